"""What chapter 3 of project 3's report proposes to add to a network: attention and bilinear pooling."""

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-5  # added to what a square root is taken of


def squeeze_excitation(channels: int) -> nn.Module:
    """Return torchvision's squeeze-and-excitation (Hu et al., Squeeze-and-Excitation Networks, arXiv 1709.01507)."""
    from torchvision.ops import SqueezeExcitation  # not at the top: --help would wait for it

    return SqueezeExcitation(channels, hidden_channels(channels))


def hidden_channels(channels: int) -> int:
    """Return the width of the bottleneck of an attention: a sixteenth of the channels, as published, but at least 4."""
    return max(4, channels // 16)


class SpatialAttention(nn.Module):
    """Multiply each pixel by a number in 0..1, from its mean and its maximum over the channels (CBAM, equation 3).

    channels: not used; all attentions are made by this number.
    """

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x):
        summary = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        return x * torch.sigmoid(self.conv(summary))


class CBAM(nn.Module):
    """Channel attention, then spatial attention (Woo et al., CBAM, arXiv 1807.06521, equations 2 and 3)."""

    def __init__(self, channels):
        super().__init__()
        hidden = hidden_channels(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.spatial = SpatialAttention(channels)

    def forward(self, x):
        channel = torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3))))
        return self.spatial(x * channel[:, :, None, None])


class BilinearHead(nn.Module):
    """Logits from all products of two features, averaged over pixels (Lin et al., Bilinear CNNs, arXiv 1504.07889).

    A 1x1 convolution first reduces the channels to `reduced`; signed square root and normalization follow, as in the
    paper.
    """

    def __init__(self, channels, classes, reduced=64):
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.fc = nn.Linear(reduced * reduced, classes)

    def forward(self, features):
        x = self.reduce(features).flatten(2)  # (N, reduced, pixels)
        products = (x @ x.transpose(1, 2) / x.shape[2]).flatten(1)
        # the slope of the root is infinite at 0
        roots = products.sign() * (products.abs() + EPS).sqrt()
        return self.fc(F.normalize(roots, dim=1))
