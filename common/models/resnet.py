"""ResNet-18, 34 and 50 for 32x32 images.

He et al., Deep Residual Learning for Image Recognition (arXiv 1512.03385). The blocks and stages are torchvision's; the
stem is the usual one for CIFAR: a 3x3 convolution of stride 1 and no max-pooling, so that the last feature maps are 4x4
and not 1x1.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet

from common.models.attention import CBAM, BilinearHead, SpatialAttention, squeeze_excitation
from common.models.parts import LocalFeatures, PartsHead


class ResNet(resnet.ResNet):
    """torchvision's ResNet with a stem for images of 32x32 pixels."""

    def __init__(self, block, layers, classes):
        super().__init__(block, layers, num_classes=classes)
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()

    def forward_features(self, x):
        x = F.relu(self.bn1(self.conv1(x)))  # (N, 64, 32, 32)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (N, 512 or 2048, 4, 4)

    def forward_head(self, features):
        return self.fc(features.mean((2, 3)))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def resnet18(classes: int = 10) -> nn.Module:
    """Return ResNet-18. 11,173,962 parameters."""
    return ResNet(resnet.BasicBlock, (2, 2, 2, 2), classes)


def resnet34(classes: int = 10) -> nn.Module:
    """Return ResNet-34. 21,282,122 parameters."""
    return ResNet(resnet.BasicBlock, (3, 4, 6, 3), classes)


def resnet50(classes: int = 10) -> nn.Module:
    """Return ResNet-50. 23,520,842 parameters."""
    return ResNet(resnet.Bottleneck, (3, 4, 6, 3), classes)


def attentive_block(attention):
    """Return torchvision's basic block with `attention`(channels) after its last batch norm, before the addition."""

    class AttentiveBlock(resnet.BasicBlock):
        def __init__(self, channels_in, channels, *arguments, **options):
            super().__init__(channels_in, channels, *arguments, **options)
            self.bn2 = nn.Sequential(self.bn2, attention(channels))

    return AttentiveBlock


def resnet18_se(classes: int = 10) -> nn.Module:
    """Return ResNet-18 with squeeze-and-excitation in every block. 11,263,042 parameters."""
    return ResNet(attentive_block(squeeze_excitation), (2, 2, 2, 2), classes)


def resnet18_cbam(classes: int = 10) -> nn.Module:
    """Return ResNet-18 with channel and spatial attention in every block. 11,263,826 parameters."""
    return ResNet(attentive_block(CBAM), (2, 2, 2, 2), classes)


def resnet18_spatial(classes: int = 10) -> nn.Module:
    """Return ResNet-18 with spatial attention in every block. 11,174,746 parameters."""
    return ResNet(attentive_block(SpatialAttention), (2, 2, 2, 2), classes)


class BilinearResNet(ResNet):
    """ResNet with bilinear pooling before its last layer."""

    def __init__(self, block, layers, classes):
        super().__init__(block, layers, classes)
        self.fc = BilinearHead(self.fc.in_features, classes)

    def forward_head(self, features):
        return self.fc(features)


def resnet18_bilinear(classes: int = 10) -> nn.Module:
    """Return ResNet-18 with bilinear pooling instead of the mean. 11,242,634 parameters."""
    return BilinearResNet(resnet.BasicBlock, (2, 2, 2, 2), classes)


class PartsResNet(ResNet):
    """ResNet with a sub-network on local parts: on the features of stage 1, which see at most 11x11 pixels."""

    LOCAL = 128  # channels of the local features

    def __init__(self, block, layers, classes):
        super().__init__(block, layers, classes)
        self.local = LocalFeatures(self.layer1[-1].conv2.out_channels, self.LOCAL)
        self.parts = PartsHead(self.LOCAL, classes)

    def forward_features(self, x):
        early = self.layer1(F.relu(self.bn1(self.conv1(x))))
        last = self.layer4(self.layer3(self.layer2(early)))
        return torch.cat((last, self.local(early, last.shape[-1])), 1)  # (N, 512 + 128, 4, 4)

    def forward_head(self, features):
        last, local = features[:, : -self.LOCAL], features[:, -self.LOCAL :]
        return self.fc(last.mean((2, 3))) + self.parts(local)


def resnet18_parts(classes: int = 10) -> nn.Module:
    """Return ResNet-18 with a sub-network on local parts. 11,251,540 parameters."""
    return PartsResNet(resnet.BasicBlock, (2, 2, 2, 2), classes)
