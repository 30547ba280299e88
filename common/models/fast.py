"""The networks of the fast recipes: frozen whitening of 2x2 patches, then three groups of convolutions.

After Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU (arXiv 2404.00498), sections 3.1 to 3.3 and appendix; the
whitening layer is tysam-code's, the idea of the identity initialization is DiracNet's (arXiv 1706.00388).
"""

import functools

import torch
import torch.nn.functional as F
from torch import nn

from common.models.attention import CBAM, BilinearHead, SpatialAttention, squeeze_excitation
from common.models.parts import LocalFeatures, PartsHead

SMALL = (32, 64, 128)  # widths of fast_small
LOGITS_SCALE = 9  # the logits are divided by it
RECORD_SCALE = 256  # and by this in the record that fast94 follows
FILTERS = 24  # filters of the whitening: each of the 3 x 2 x 2 = 12 principal directions with both signs


class BatchNorm(nn.BatchNorm2d):
    """Batch normalization with a trained bias and no scale."""

    def __init__(self, channels, momentum):
        super().__init__(channels, eps=1e-12, momentum=momentum)
        scale = self.weight.detach()
        del self.weight
        self.register_buffer("weight", scale)


class Whitening(nn.Module):
    """A convolution of 2x2 patches whose weights are computed by `whiten`, not trained; its bias is trained."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.randn(FILTERS, 3, 2, 2))
        self.bias = nn.Parameter(torch.zeros(FILTERS))

    @torch.no_grad()
    def whiten(self, images, eps=5e-4):
        """Compute the weights from the covariance of the 2x2 patches of normalized images (N, 3, H, W)."""
        patches = images.cpu().unfold(2, 2, 1).unfold(3, 2, 1).movedim(1, 3).reshape(-1, 12).double()
        variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (directions / (variances + eps).sqrt()).T.flip(0).reshape(12, 3, 2, 2)
        self.weight.copy_(torch.cat((filters, -filters)))

    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias)


def identity_conv(channels_in, channels):
    """Return a 3x3 convolution that is the identity on its first `channels_in` outputs at the beginning."""
    layer = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[:channels_in])
    return layer


class Group(nn.Module):
    """Convolutions, the first of which is followed by a halving. Of three of them, the last two are a residual."""

    def __init__(self, channels_in, channels, depth, momentum, activation):
        super().__init__()
        self.activation = activation
        self.convs = nn.ModuleList(identity_conv(channels if i else channels_in, channels) for i in range(depth))
        self.norms = nn.ModuleList(BatchNorm(channels, momentum) for _ in range(depth))

    def forward(self, x):
        x = self.activation(self.norms[0](F.max_pool2d(self.convs[0](x), 2)))
        if len(self.convs) == 2:
            return self.activation(self.norms[1](self.convs[1](x)))
        residual = self.activation(self.norms[1](self.convs[1](x)))
        return self.activation(x + self.norms[2](self.convs[2](residual)))


class FastNet(nn.Module):
    """Whitening, groups of the given widths, each of `depth` convolutions, and a linear head without a bias.

    momentum: the share of a batch in the batch norms' running statistics, as in torch. activation: of the groups.
    attention: (channels) -> module after each group, or None.
    """

    def __init__(self, widths, depth, classes, momentum=0.4, activation=F.gelu, attention=None):
        super().__init__()
        self.whitening = Whitening()
        layers, channels = [], FILTERS
        for width in widths:
            layers.append(Group(channels, width, depth, momentum, activation))
            if attention:
                layers.append(attention(width))
            channels = width
        self.groups = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes, bias=False)

    def forward_features(self, x):
        return self.groups(F.gelu(self.whitening(x)))  # (N, widths[-1], 3, 3) of 32x32 pixels, 2x2 of 24x24

    def forward_head(self, features):
        return self.fc(F.max_pool2d(features, features.shape[-2:]).flatten(1)) / LOGITS_SCALE

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def fast94(classes: int = 10) -> nn.Module:
    """Return fast94. 1,971,352 parameters.

    Its activation, momentum and initialization are those of github.com/hiverge/cifar10-speedrun (2025).
    """
    network = FastNet((64, 256, 256), depth=2, classes=classes, momentum=1 - 0.5566, activation=F.silu)
    with torch.no_grad():
        # torch initializes the bias of a convolution with 12 inputs per output like this
        nn.init.uniform_(network.whitening.bias, -(12**-0.5), 12**-0.5)
        # the record has a standard deviation of 1 and divides its logits by another number
        network.fc.weight.mul_(LOGITS_SCALE / RECORD_SCALE / network.fc.weight.std())
    return network


def fast95(classes: int = 10) -> nn.Module:
    """Return fast95. 4,604,440 parameters."""
    return FastNet((128, 384, 384), depth=2, classes=classes)


def fast96(classes: int = 10) -> nn.Module:
    """Return fast96. 9,915,416 parameters."""
    return FastNet((128, 384, 512), depth=3, classes=classes, momentum=0.1)


def fast_small(classes: int = 10) -> nn.Module:
    """Return a network of a sixth of fast94's operations, for comparisons on a CPU. 294,360 parameters."""
    return FastNet(SMALL, depth=2, classes=classes)


def fast_small_se(classes: int = 10) -> nn.Module:
    """Return fast_small with squeeze-and-excitation after each group. 297,416 parameters."""
    return FastNet(SMALL, depth=2, classes=classes, attention=squeeze_excitation)


def fast_small_cbam(classes: int = 10) -> nn.Module:
    """Return fast_small with channel and spatial attention after each group. 297,710 parameters."""
    return FastNet(SMALL, depth=2, classes=classes, attention=CBAM)


def fast_small_spatial(classes: int = 10) -> nn.Module:
    """Return fast_small with spatial attention after each group. 294,654 parameters."""
    return FastNet(SMALL, depth=2, classes=classes, attention=SpatialAttention)


class BilinearFastNet(FastNet):
    """FastNet with bilinear pooling before its last layer."""

    def __init__(self, widths, depth, classes):
        super().__init__(widths, depth, classes)
        self.fc = BilinearHead(widths[-1], classes)

    def forward_head(self, features):
        return self.fc(features)


def fast_small_bilinear(classes: int = 10) -> nn.Module:
    """Return fast_small with bilinear pooling instead of the last max-pooling. 342,306 parameters."""
    return BilinearFastNet(SMALL, depth=2, classes=classes)


class PartsFastNet(FastNet):
    """FastNet with a sub-network on local parts: on the features of the first group, which see at most 9x9 pixels."""

    LOCAL = 64  # channels of the local features

    def __init__(self, widths, depth, classes, momentum=0.4):
        super().__init__(widths, depth, classes, momentum)
        norm = functools.partial(BatchNorm, momentum=momentum)
        self.local = LocalFeatures(widths[0], self.LOCAL, norm, F.gelu)
        self.parts = PartsHead(self.LOCAL, classes)

    def forward_features(self, x):
        early = self.groups[0](F.gelu(self.whitening(x)))
        last = self.groups[1:](early)
        return torch.cat((last, self.local(early, last.shape[-1])), 1)  # (N, widths[-1] + 64, 3, 3)

    def forward_head(self, features):
        last, local = features[:, : -self.LOCAL], features[:, -self.LOCAL :]
        return super().forward_head(last) + self.parts(local) / LOGITS_SCALE


def fast_small_parts(classes: int = 10) -> nn.Module:
    """Return fast_small with a sub-network on local parts. 314,658 parameters."""
    return PartsFastNet(SMALL, depth=2, classes=classes)
