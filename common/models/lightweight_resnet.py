"""LightweightResNet, section 3.4.3 of the assignment: a 3x3 stem and three stages of one residual block each.

After He et al., Deep Residual Learning for Image Recognition (arXiv 1512.03385). The report calls its block
"pre-activation" (arXiv 1603.05027) but describes conv-BN-ReLU-conv-BN, addition, ReLU: the original, post-activation
block. That is what is built here.
"""

import torch.nn.functional as F
from torch import nn

from common.models.dropout import Dropout


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes.

    For ablation, batch norm can be replaced by biases, and the shortcut left out.
    """

    def __init__(self, channels_in, channels, stride, batch_norm, shortcut):
        super().__init__()
        norm, bias = (nn.BatchNorm2d, False) if batch_norm else (nn.Identity, True)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=bias)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.bn2 = norm(channels)
        self.shortcut = nn.Identity() if shortcut else None
        if shortcut and (stride != 1 or channels_in != channels):
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=bias), norm(channels))

    def forward(self, x):
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual if self.shortcut is None else residual + self.shortcut(x))


class LightweightResNet(nn.Module):
    """A stem, three residual blocks, dropout and a linear layer."""

    def __init__(self, dropout, classes, batch_norm=True, shortcuts=True):
        super().__init__()
        norm = nn.BatchNorm2d(32) if batch_norm else nn.Identity()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=not batch_norm), norm, nn.ReLU())
        self.layer1 = ResidualBlock(32, 32, 1, batch_norm, shortcuts)
        self.layer2 = ResidualBlock(32, 64, 2, batch_norm, shortcuts)
        self.layer3 = ResidualBlock(64, 128, 2, batch_norm, shortcuts)
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


def lightweight_resnet_no_batch_norm(dropout: float = 0.5, classes: int = 10) -> nn.Module:
    """Return LightweightResNet with biases in place of batch norm. 307,978 parameters."""
    return LightweightResNet(dropout, classes, batch_norm=False)


def lightweight_resnet_no_shortcuts(dropout: float = 0.5, classes: int = 10) -> nn.Module:
    """Return LightweightResNet without the shortcuts around its blocks. 298,026 parameters."""
    return LightweightResNet(dropout, classes, shortcuts=False)
