"""The networks, one family per file. Nothing in here knows about training.

A factory takes numbers only and returns a network for images (N, 3, 32, 32), with `forward_features`, which returns the
last feature maps, and `forward_head`, which returns logits (N, classes).
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from common.models.dla import dla34, dla34_cifar
from common.models.fast import (
    fast94,
    fast95,
    fast96,
    fast_small,
    fast_small_bilinear,
    fast_small_cbam,
    fast_small_parts,
    fast_small_se,
    fast_small_spatial,
)
from common.models.lenet import lenet
from common.models.lightweight_resnet import (
    lightweight_resnet,
    lightweight_resnet_no_batch_norm,
    lightweight_resnet_no_shortcuts,
)
from common.models.resnet import (
    resnet18,
    resnet18_bilinear,
    resnet18_cbam,
    resnet18_parts,
    resnet18_se,
    resnet18_spatial,
    resnet34,
    resnet50,
)
from common.models.vgg import vgg16_bn
from common.models.vit import vit
from common.models.wrn import wrn16_8, wrn28_10

MODELS = {
    factory.__name__: factory
    for factory in (
        lenet,
        lightweight_resnet,
        lightweight_resnet_no_batch_norm,
        lightweight_resnet_no_shortcuts,
        resnet18,
        resnet34,
        resnet50,
        wrn28_10,
        wrn16_8,
        dla34,
        dla34_cifar,
        vit,
        vgg16_bn,
        fast94,
        fast95,
        fast96,
        resnet18_se,
        resnet18_cbam,
        resnet18_spatial,
        resnet18_bilinear,
        resnet18_parts,
        fast_small,
        fast_small_se,
        fast_small_cbam,
        fast_small_spatial,
        fast_small_bilinear,
        fast_small_parts,
    )
}


def parameter_count(model: torch.nn.Module) -> int:
    """Return the number of trained values."""
    return sum(parameter.numel() for parameter in model.parameters())


def forward_flops(model: torch.nn.Module) -> int:
    """Return the floating-point operations of the forward pass of one 32x32 image.

    There are two for each multiply-add of convolutions and linear layers; nothing else is counted.
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    return counter.get_total_flops()
