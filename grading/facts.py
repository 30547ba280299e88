"""Facts that claims are checked against, computed from the code and the data rather than from a training run."""

import math

import torch
from torch import nn

from common import augment, data
from common.models import MODELS, forward_flops, parameter_count
from common.models.dropout import Dropout
from common.support import cifar_files
from common.training import cosine

RECORDS = 10_000  # of each official file; the MD5s ensure that ours are the official ones
DRAWS = 10_000  # of a random augmentation
PUBLISHED = {  # test accuracy, %
    "wrn28_10": 96.00,  # Zagoruyko & Komodakis, Wide Residual Networks, arXiv 1605.07146, table 5: 4.00% error
    "best": 99.50,  # ViT-H/14: Dosovitskiy et al., arXiv 2010.11929, table 2
}


def build(model):
    return MODELS[model]()


def torchvision_resnet18():
    from torchvision.models import resnet18  # not at the top: --help would wait for it

    return resnet18()


def count_images(ending):
    return RECORDS * sum(name.endswith(ending) for name in cifar_files.FILES)


def validation_images():
    labels = torch.arange(count_images(".bin") - count_images("test_batch.bin")) % len(data.CLASSES)
    return len(data.train_val_split(labels)[1])


def dropout_factor():
    """Return the factor that Dropout(0.5) applies to the activations that it keeps."""
    return float(Dropout(0.5)(torch.ones(1000)).max())


def weight_decay_penalty(weight_decay=0.01):
    """Return c of the penalty c * weight_decay * w ** 2 whose gradient SGD's weight_decay adds."""
    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0, weight_decay=weight_decay)
    weight.grad = torch.zeros(1)
    optimizer.step()
    return (1 - weight.item()) / (2 * weight_decay)


def smoothed_target(smoothing=0.1, classes=10):
    """Return the target probability of the true class under nn.CrossEntropyLoss(label_smoothing=0.1)."""
    logits = torch.zeros(1, classes, requires_grad=True)
    nn.functional.cross_entropy(logits, torch.tensor([0]), label_smoothing=smoothing).backward()
    return 1 / classes - logits.grad[0, 0].item()  # the gradient is softmax minus target


def convolutions(model, kernel=None):
    """Return the number of convolutions, all or those of one kernel size."""
    sizes = [module.kernel_size[0] for module in build(model).modules() if isinstance(module, nn.Conv2d)]
    return len(sizes) if kernel is None else sizes.count(int(kernel))


def linear_layers(model):
    return sum(isinstance(module, nn.Linear) for module in build(model).modules())


def most_channels(model):
    return max(module.out_channels for module in build(model).modules() if isinstance(module, nn.Conv2d))


@torch.no_grad()
def feature_side(model):
    """Return the height of the last feature maps of a 32x32 image."""
    return build(model).eval().forward_features(torch.zeros(1, 3, 32, 32)).shape[-1]


@torch.no_grad()
def least_block_output():
    """Return the least output of the residual block that the assignment describes, on normal inputs."""
    generator = torch.Generator().manual_seed(0)
    block = build("lightweight_resnet").layer1.eval()
    return float(block(torch.randn(8, 32, 8, 8, generator=generator)).min())


def flipped_share():
    """Return the share of images that random_flip mirrors."""
    images = torch.tensor([0.0, 1.0]).expand(DRAWS, 1, 1, 2)
    return float(augment.random_flip(images, torch.Generator().manual_seed(0))[..., 0].mean())


def crop_padding():
    """Return how far random_crop moves an image at most."""
    images = torch.zeros(DRAWS, 1, 32, 32)
    images[..., 16, 16] = 1
    moved = augment.random_crop(images, torch.Generator().manual_seed(0)).flatten(1).argmax(1)
    return int((moved // 32 - 16).abs().max())


def cutout_pixels(length="12"):
    """Return the mean number of pixels that Cutout hides, over all centers of a 32x32 image."""
    images = torch.ones(DRAWS, 1, 32, 32)
    return float((augment.Cutout(int(length))(images, torch.Generator().manual_seed(0)) == 0).sum() / DRAWS)


def linear_share(model):
    """Return the fraction of a model's parameters that are in its fully connected layers."""
    network = build(model)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return sum(map(parameter_count, linear)) / parameter_count(network)


def stem_ratio():
    """Return the ratio of LightweightResNet's parameters in the stem to those of torchvision's ResNet-18."""
    standard = torchvision_resnet18()
    return parameter_count(build("lightweight_resnet").stem) / parameter_count(
        nn.ModuleList([standard.conv1, standard.bn1])
    )


FACTS = {
    "images": lambda: count_images(".bin"),
    "test_images": lambda: count_images("test_batch.bin"),
    "validation_images": validation_images,
    "dropout_factor": dropout_factor,
    "weight_decay_penalty": weight_decay_penalty,
    "smoothed_target": smoothed_target,
    "parameters": lambda model: parameter_count(build(model)),
    "head_parameters": lambda model: parameter_count(build(model).fc),
    "linear_share": linear_share,
    "flops": lambda model: forward_flops(build(model)),
    "torchvision_resnet18_flops": lambda: forward_flops(torchvision_resnet18()),
    "convolutions": convolutions,
    "linear_layers": linear_layers,
    "most_channels": most_channels,
    "feature_side": feature_side,
    "least_block_output": least_block_output,
    "chance_loss": lambda: math.log(len(data.CLASSES)),  # cross-entropy of equal probabilities
    "flipped_share": flipped_share,
    "crop_padding": crop_padding,
    "cutout_pixels": cutout_pixels,
    "published": lambda result: PUBLISHED[result],
    "stem_ratio": stem_ratio,
    "last_cosine_lr": lambda: 0.1 * cosine(99, 100),  # 100 epochs from 0.1
}
