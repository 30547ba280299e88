"""Grad-CAM against the public grad-cam package, and against the ways in which it fails silently."""

import warnings

import pytest
import torch
from torch import nn

from common import data
from common.models import MODELS
from common.support.errors import UserError
from project3_wrn.analysis.gradcam import detailed_layer, gradcam, upsample

LAST = {"resnet18": "layer4", "fast94": "groups", "wrn16_8": "blocks", "vgg16_bn": "features", "lenet": "conv2"}


@pytest.fixture(scope="module")
def images(sample):
    return data.normalize(sample[1].images[:4], data.CIFAR10_STATS)


def trained_looking(name):
    """Return a network whose batch statistics are not their initial values, so that its maps differ between images."""
    torch.manual_seed(0)
    model = MODELS[name]()
    model.train()(torch.randn(8, 3, 32, 32))
    return model.eval()


@pytest.mark.filterwarnings("ignore:Grad-CAM is zero")
@pytest.mark.parametrize("name", LAST)
def test_as_the_public_package(name, images):
    package = pytest.importorskip("pytorch_grad_cam", exc_type=ImportError)  # its opencv may lack a library
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, targets = trained_looking(name), [3, 5, 8, 0]
    layer = LAST[name]
    with package.GradCAM(model, [dict(model.named_modules())[layer]]) as cam:
        # a map is scaled to 0..1 before it is upsampled and after
        theirs = torch.from_numpy(cam(images, [ClassifierOutputTarget(target) for target in targets]))
    ours = upsample(gradcam(model, images, targets, layer), (32, 32))
    lowest, highest = ours.amin((1, 2), keepdim=True), ours.amax((1, 2), keepdim=True)
    assert torch.allclose((ours - lowest) / (highest - lowest + 1e-7), theirs, atol=1e-5)
    assert ours.amax() > 0.5


@pytest.mark.filterwarnings("ignore:Grad-CAM is zero")
@pytest.mark.parametrize("name", ["resnet18", "fast94", "vgg16_bn", "vit"])
def test_batch_equals_one_by_one(name, images):
    model = trained_looking(name)
    together = gradcam(model, images, [1, 2, 3, 4])
    for index, target in enumerate([1, 2, 3, 4]):
        alone = gradcam(model, images[index : index + 1], [target])[0]
        assert torch.allclose(together[index], alone, atol=1e-5)
    assert together.shape[1:] == MODELS[name]().forward_features(images).shape[2:]


def test_forward_features_are_the_layer_of_that_place(images):
    model = trained_looking("resnet18")
    assert torch.allclose(gradcam(model, images, [0] * 4), gradcam(model, images, [0] * 4, "layer4"), atol=1e-6)


@pytest.mark.filterwarnings("ignore:Grad-CAM is zero")
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer3"),  # layer4 has 4x4
        ("fast94", "groups.2.convs.0"),  # the group halves after it, to 3x3
        ("wrn16_8", None),  # its last maps have 8x8
        ("vgg16_bn", "features.22"),
        ("dla34", "trees.0"),
        ("lenet", "conv2"),
    ],
)
def test_the_default_layer_is_the_last_one_with_maps_of_seven_by_seven(images, name, layer):
    model = trained_looking(name).train()
    assert detailed_layer(model, images) == layer
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert min(gradcam(model, images, [0, 1, 2, 3], layer).shape[1:]) >= 7


def test_the_two_equations_by_hand():
    """One linear layer on the means of two maps: alpha is its weights divided by the number of pixels."""

    class Tiny(nn.Module):
        def forward_features(self, x):
            return x

        def forward_head(self, features):
            return features.mean((2, 3)) @ torch.tensor([[2.0, 0.0], [-1.0, 0.0]])

    x = torch.tensor([[[[1.0, 2.0], [3.0, 0.0]], [[0.0, 1.0], [8.0, 0.0]]]])
    expected = torch.tensor([[[2.0, 3.0], [0.0, 0.0]]])  # ReLU(2 a - b), up to its scale
    assert torch.allclose(gradcam(Tiny(), x, [0]), expected / 3, atol=1e-6)
    with pytest.warns(UserWarning, match="zero all over for image 0"):
        gradcam(Tiny(), x, [1])


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("layer", [None, "layer3"])
def test_the_model_is_left_as_it_was(images, layer, frozen):
    model = trained_looking("resnet18").train()
    model.bn1.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(not frozen)
    modes, state = [m.training for m in model.modules()], {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        gradcam(model, images, [0, 1, 2, 3], layer)
    assert [m.training for m in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_what_cannot_be_shown_is_refused(images):
    with pytest.raises(ValueError, match="1 targets for 4 images"):
        gradcam(trained_looking("resnet18"), images, [0])
    with pytest.raises(UserError, match=r"1x1.*--gradcam-layer"):
        gradcam(trained_looking("dla34"), images, [0] * 4)
    with pytest.raises(UserError, match="no layer 'layer9'"):
        gradcam(trained_looking("resnet18"), images, [0] * 4, "layer9")
    with pytest.raises(UserError, match="output of fc is"):
        gradcam(trained_looking("resnet18"), images, [0] * 4, "fc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gradcam(trained_looking("dla34"), images, [0] * 4, "trees.1").shape == (4, 4, 4)
