"""What chapter 3 of project 3's report proposes to add to a network: attention over channels and places, bilinear pooling."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import SqueezeExcitation


def squeeze_excitation(channels):
    """Hu et al., Squeeze-and-Excitation Networks (arXiv 1709.01507): torchvision's."""
    return SqueezeExcitation(channels, max(4, channels // 16))


class CBAM(nn.Module):
    """Channel attention, then spatial attention (Woo et al., CBAM, arXiv 1807.06521, equations 2 and 3)."""

    def __init__(self, channels):
        super().__init__()
        hidden = max(4, channels // 16)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x):
        channel = torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3))))
        x = x * channel[:, :, None, None]
        place = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        return x * torch.sigmoid(self.conv(place))


class BilinearHead(nn.Module):
    """Logits from all products of two features, averaged over places (Lin et al., Bilinear CNNs, arXiv 1504.07889).

    A 1x1 convolution first makes the channels few; then signed square root and stats, as in the paper.
    """

    def __init__(self, channels, classes, few=64):
        super().__init__()
        self.few = nn.Conv2d(channels, few, 1)
        self.fc = nn.Linear(few * few, classes)

    def forward(self, features):
        x = self.few(features).flatten(2)  # (N, 64, places)
        products = (x @ x.transpose(1, 2) / x.shape[2]).flatten(1)
        # the root's slope is endless at 0
        roots = products.sign() * (products.abs() + 1e-5).sqrt()
        return self.fc(F.normalize(roots, dim=1))
