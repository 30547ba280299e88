"""The networks, one family a file. Nothing in here knows of training.

A factory takes numbers only and gives a network for images (N, 3, 32, 32), with
`forward_features` -> the last feature maps and `forward_head` -> logits (N, classes).
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from common.models.lenet import lenet
from common.models.lightweight_resnet import lightweight_resnet

MODELS = {
    "lenet": lenet,
    "lightweight_resnet": lightweight_resnet,
}


def parameter_count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def forward_flops(model):
    """Floating-point operations of one 32x32 image's forward pass: two for each multiply-add of convolutions and linear layers."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    return counter.get_total_flops()
