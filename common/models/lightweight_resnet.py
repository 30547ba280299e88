"""LightweightResNet, section 3.4.3 of the assignment: a 3x3 stem and three stages of one residual block each.

After He et al., Deep Residual Learning for Image Recognition (arXiv 1512.03385). The report calls its block
"pre-activation" (arXiv 1603.05027) but describes conv-BN-ReLU-conv-BN, addition, ReLU: the original, post-activation
block. That is what is built here.
"""

import torch.nn.functional as F
from torch import nn

from common.models.dropout import Dropout


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, channels_in, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual + self.shortcut(x))


class LightweightResNet(nn.Module):
    """A stem, three residual blocks, dropout and a linear layer."""

    def __init__(self, dropout, classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.layer1 = ResidualBlock(32, 32, stride=1)
        self.layer2 = ResidualBlock(32, 64, stride=2)
        self.layer3 = ResidualBlock(64, 128, stride=2)
        self.dropout = Dropout(dropout)
        self.fc = nn.Linear(128, classes)

    def forward_features(self, x):
        return self.layer3(self.layer2(self.layer1(self.stem(x))))  # (N, 128, 8, 8)

    def forward_head(self, features):
        return self.fc(self.dropout(features.mean((2, 3))))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def lightweight_resnet(dropout: float = 0.5, classes: int = 10) -> nn.Module:
    """Return LightweightResNet. 308,650 parameters."""
    return LightweightResNet(dropout, classes)
