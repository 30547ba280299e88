"""The networks of the fast recipes: frozen whitening of 2x2 patches, then three groups of convolutions.

After Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU (arXiv 2404.00498), sections 3.1 to 3.3 and appendix; the whitening
layer is tysam-code's, the identity initialisation's idea is DiracNet's (arXiv 1706.00388).
"""

import torch
import torch.nn.functional as F
from torch import nn

from common.models.attention import CBAM, BilinearHead, squeeze_excitation


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation with a trained bias and no scale."""

    def __init__(self, channels, momentum):
        super().__init__(channels, eps=1e-12, momentum=momentum)
        scale = self.weight.detach()
        del self.weight
        self.register_buffer("weight", scale)


class Whitening(nn.Module):
    """A convolution whose weights are given (`whiten`), not trained: 24 filters of 2x2, each principal direction with both signs."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.randn(24, 3, 2, 2))
        self.bias = nn.Parameter(torch.zeros(24))

    @torch.no_grad()
    def whiten(self, images, eps=5e-4):
        """Take the weights from the covariance of the 2x2 patches of normalized images (N, 3, H, W)."""
        patches = images.cpu().unfold(2, 2, 1).unfold(3, 2, 1).movedim(1, 3).reshape(-1, 12).double()
        variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (directions / (variances + eps).sqrt()).T.flip(0).reshape(12, 3, 2, 2)
        self.weight.copy_(torch.cat((filters, -filters)))

    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias)


def convolution(channels_in, channels):
    """3x3, beginning as the identity on its first `channels_in` outputs."""
    layer = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[:channels_in])
    return layer


class Group(nn.Module):
    """Convolutions with a halving after the first. With three of them, the last two are a residual."""

    def __init__(self, channels_in, channels, depth, momentum, activation):
        super().__init__()
        self.activation = activation
        self.convs = nn.ModuleList(convolution(channels if i else channels_in, channels) for i in range(depth))
        self.norms = nn.ModuleList(BatchNorm(channels, momentum) for _ in range(depth))

    def forward(self, x):
        x = self.activation(self.norms[0](F.max_pool2d(self.convs[0](x), 2)))
        if len(self.convs) == 2:
            return self.activation(self.norms[1](self.convs[1](x)))
        residual = self.activation(self.norms[1](self.convs[1](x)))
        return self.activation(x + self.norms[2](self.convs[2](residual)))


class FastNet(nn.Module):
    """momentum: the share of a batch in the batch norms' running statistics, as torch has it. activation: of the groups.

    attention: (channels) -> what comes after each group.
    """

    def __init__(self, widths, depth, classes, momentum=0.4, activation=F.gelu, attention=None):
        super().__init__()
        self.whitening = Whitening()
        layers, channels = [], 24
        for width in widths:
            layers.append(Group(channels, width, depth, momentum, activation))
            if attention:
                layers.append(attention(width))
            channels = width
        self.groups = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes, bias=False)

    def forward_features(self, x):
        return self.groups(F.gelu(self.whitening(x)))  # (N, widths[-1], 3, 3) of 32x32, (N, widths[-1], 2, 2) of 24x24

    def forward_head(self, features):
        return self.fc(F.max_pool2d(features, features.shape[-2:]).flatten(1)) / 9

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def fast94(classes=10):
    """1,971,352 parameters. Its activation, momentum and beginning are github.com/hiverge/cifar10-speedrun's (2025)."""
    network = FastNet((64, 256, 256), depth=2, classes=classes, momentum=1 - 0.5566, activation=F.silu)
    with torch.no_grad():
        # as torch initialises the bias of a convolution with 12 inputs per output
        nn.init.uniform_(network.whitening.bias, -(12**-0.5), 12**-0.5)
        # the record has a standard deviation of 1 and divides its logits by 256, ours by 9
        network.fc.weight.mul_(9 / 256 / network.fc.weight.std())
    return network


def fast95(classes=10):
    """4,604,440 parameters."""
    return FastNet((128, 384, 384), depth=2, classes=classes)


def fast96(classes=10):
    """9,915,416 parameters."""
    return FastNet((128, 384, 512), depth=3, classes=classes, momentum=0.1)


SMALL = (32, 64, 128)


def fast_small(classes=10):
    """A sixth of fast94's operations, for studies on a CPU. 294,360 parameters."""
    return FastNet(SMALL, depth=2, classes=classes)


def fast_small_se(classes=10):
    """fast_small with squeeze-and-excitation after each group. 297,416 parameters."""
    return FastNet(SMALL, depth=2, classes=classes, attention=squeeze_excitation)


def fast_small_cbam(classes=10):
    """fast_small with channel and spatial attention after each group. 297,710 parameters."""
    return FastNet(SMALL, depth=2, classes=classes, attention=CBAM)


class BilinearFastNet(FastNet):
    def __init__(self, widths, depth, classes):
        super().__init__(widths, depth, classes)
        self.fc = BilinearHead(widths[-1], classes)

    def forward_head(self, features):
        return self.fc(features)


def fast_small_bilinear(classes=10):
    """fast_small with bilinear pooling for the last max-pooling. 342,306 parameters."""
    return BilinearFastNet(SMALL, depth=2, classes=classes)
