"""Facts that claims are checked against, computed from the code and the data rather than from a training run."""

import torch
from torch import nn
from torchvision.models import resnet18

from common import data
from common.models import MODELS, forward_flops, parameter_count
from common.models.dropout import Dropout
from common.training import cosine

RECORDS = 10_000  # of each official file; the MD5s ensure that ours are the official ones


def build(model):
    return MODELS[model]()


def count_images(ending):
    return RECORDS * sum(name.endswith(ending) for name in data.FILES)


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


def convolutions(model):
    return sum(isinstance(module, nn.Conv2d) for module in build(model).modules())


def linear_share(model):
    """Return the fraction of a model's parameters that are in its fully connected layers."""
    network = build(model)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return sum(map(parameter_count, linear)) / parameter_count(network)


def stem_ratio():
    """Return the ratio of LightweightResNet's parameters in the stem to those of torchvision's ResNet-18."""
    standard = resnet18()
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
    "torchvision_resnet18_flops": lambda: forward_flops(resnet18()),
    "convolutions": convolutions,
    "stem_ratio": stem_ratio,
    "last_cosine_lr": lambda: 0.1 * cosine(99, 100),  # 100 epochs from 0.1
}
