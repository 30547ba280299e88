"""Wide residual networks with dropout in the blocks.

Zagoruyko & Komodakis, Wide Residual Networks (arXiv 1605.07146): the pre-activation block of arXiv 1603.05027, three
stages of (depth - 4) / 6 blocks, widths 16k, 32k and 64k.
"""

import torch.nn.functional as F
from torch import nn


class WideBlock(nn.Module):
    def __init__(self, channels_in, channels, stride, dropout):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        same = stride == 1 and channels_in == channels
        self.shortcut = None if same else nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x):
        active = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        # dropout as in the paper's own code: before bn2 it would change the variance that bn2 learns
        residual = self.dropout(F.relu(self.bn2(self.conv1(active))))
        return shortcut + self.conv2(residual)


class WideResNet(nn.Module):
    def __init__(self, depth, width, dropout, classes):
        super().__init__()
        if (depth - 4) % 6:
            raise ValueError(f"a wide residual network has a depth of 6n + 4, not {depth}")
        blocks, channels_in, layers = (depth - 4) // 6, 16, []
        for channels, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for block in range(blocks):
                layers.append(WideBlock(channels_in, channels, stride if block == 0 else 1, dropout))
                channels_in = channels
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*layers)
        self.bn = nn.BatchNorm2d(channels_in)
        self.fc = nn.Linear(channels_in, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x):
        return F.relu(self.bn(self.blocks(self.conv(x))))  # (N, 64 * width, 8, 8)

    def forward_head(self, features):
        return self.fc(features.mean((2, 3)))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def wrn28_10(dropout: float = 0.3, classes: int = 10) -> nn.Module:
    """Return WideResNet-28-10. 36,479,194 parameters."""
    return WideResNet(28, 10, dropout, classes)


def wrn16_8(dropout: float = 0.3, classes: int = 10) -> nn.Module:
    """Return WideResNet-16-8. 10,961,370 parameters."""
    return WideResNet(16, 8, dropout, classes)
