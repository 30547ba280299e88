"""DLA-34: deep layer aggregation.

Yu et al., Deep Layer Aggregation (arXiv 1707.06484). A stage is a tree of residual blocks whose outputs a 1x1
convolution (the root) merges; stages 3 to 5 also pass their downsampled input to the root.
"""

import torch
import torch.nn.functional as F
from torch import nn

CHANNELS = (16, 32, 64, 128, 256, 512)
DEPTHS = (1, 2, 2, 1)  # the depths of the trees of stages 2 to 5


def conv_bn(channels_in, channels, kernel_size, stride=1):
    """Return a convolution and its batch norm."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, kernel_size, stride, kernel_size // 2, bias=False), nn.BatchNorm2d(channels)
    )


class Block(nn.Module):
    """Two convolutions, whose result is added to a shortcut that the caller passes."""

    def __init__(self, channels_in, channels, stride):
        super().__init__()
        self.conv1 = conv_bn(channels_in, channels, 3, stride)
        self.conv2 = conv_bn(channels, channels, 3)

    def forward(self, x, shortcut):
        return F.relu(self.conv2(F.relu(self.conv1(x))) + shortcut)


class Tree(nn.Module):
    """Two blocks and their root (depth 1), or two trees of which the second's root also merges the first's output.

    extra_channels: of the children, further inputs of the last root.
    keep_input: the downsampled input is one of them.
    """

    def __init__(self, depth, channels_in, channels, stride, extra_channels=0, keep_input=False):
        super().__init__()
        extra_channels += channels_in if keep_input else 0
        self.depth, self.keep_input = depth, keep_input
        self.downsample = nn.MaxPool2d(stride) if stride > 1 else nn.Identity()
        if depth == 1:
            self.project = conv_bn(channels_in, channels, 1) if channels_in != channels else nn.Identity()
            self.first = Block(channels_in, channels, stride)
            self.second = Block(channels, channels, 1)
            self.root = conv_bn(2 * channels + extra_channels, channels, 1)
        else:
            self.first = Tree(depth - 1, channels_in, channels, stride)
            self.second = Tree(depth - 1, channels, channels, 1, extra_channels=channels + extra_channels)

    def forward(self, x, children=()):
        bottom = self.downsample(x)
        if self.keep_input:
            children = (*children, bottom)
        if self.depth == 1:
            first = self.first(x, self.project(bottom))
            second = self.second(first, first)
            return F.relu(self.root(torch.cat((second, first, *children), 1)))
        first = self.first(x)
        return self.second(first, (*children, first))


class DLA(nn.Module):
    """A stem, two convolutions (stages 0 and 1) and four trees (stages 2 to 5).

    strides: of the stages 0 to 5. stem: kernel size of the first convolution.
    """

    def __init__(self, strides, stem, classes):
        super().__init__()
        self.base = conv_bn(3, CHANNELS[0], stem)
        self.level0 = conv_bn(CHANNELS[0], CHANNELS[0], 3, strides[0])
        self.level1 = conv_bn(CHANNELS[0], CHANNELS[1], 3, strides[1])
        self.trees = nn.Sequential(
            *(
                Tree(depth, CHANNELS[stage - 1], CHANNELS[stage], strides[stage], keep_input=stage > 2)
                for stage, depth in enumerate(DEPTHS, start=2)
            )
        )
        self.fc = nn.Linear(CHANNELS[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x):
        for layer in (self.base, self.level0, self.level1):
            x = F.relu(layer(x))
        return self.trees(x)  # (N, 512, 1, 1) with the ImageNet strides, (N, 512, 4, 4) with those for CIFAR

    def forward_head(self, features):
        return self.fc(features.mean((2, 3)))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def dla34(classes: int = 10) -> nn.Module:
    """Return DLA-34 with the ImageNet strides: five halvings, 32x32 to 1x1. 15,234,234 parameters.

    The report must have used these: its DLA-34 is the fastest of its models and reaches 90.69%.
    """
    return DLA(strides=(1, 2, 2, 2, 2, 2), stem=7, classes=classes)


def dla34_cifar(classes: int = 10) -> nn.Module:
    """Return DLA-34 with three halvings, 32x32 to 4x4, and a 3x3 stem. 15,232,314 parameters."""
    return DLA(strides=(1, 1, 1, 2, 2, 2), stem=3, classes=classes)
