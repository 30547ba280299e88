"""A sub-network on local parts for the classes that the report's networks confuse (project 3's report, section 3.1).

To separate a cat from a dog by its ears, eyes or nose, features are needed that see little more than such a part. So
the sub-network reads an early stage, whose features see few pixels, and not the last one, whose features see the whole
image. It learns where to look: each of PARTS maps of attention selects the pixels of one part, in the manner of Zheng
et al., Multi-Attention CNN for Fine-Grained Image Recognition (ICCV 2017). What it finds is added to the logits of the
confused classes alone.
"""

import torch
import torch.nn.functional as F
from torch import nn

PARTS = 4
CONFUSED = (1, 2, 3, 4, 5, 9)  # automobile, bird, cat, deer, dog, truck: the classes of common/reported.py's pairs


class LocalFeatures(nn.Module):
    """One 3x3 convolution of early features, then the maximum over the area of each pixel of the last feature maps.

    norm: (channels) -> batch norm. The convolution does not look further than one pixel of its input to each side.
    """

    def __init__(self, channels_in, channels, norm=nn.BatchNorm2d, activation=F.relu):
        super().__init__()
        # a list, as in common/models/fast.py: the fast recipes' optimizers know their parameters by these names
        self.convs = nn.ModuleList([nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)])
        self.norms = nn.ModuleList([norm(channels)])
        self.activation = activation

    def forward(self, early, size):
        """Return (N, channels, size, size) of early features (N, channels_in, h, h)."""
        local = self.activation(self.norms[0](self.convs[0](early)))
        kernel = local.shape[-1] // size
        return F.max_pool2d(local, kernel)[..., :size, :size]


class PartsHead(nn.Module):
    """Logits of the CONFUSED classes, 0 of the others, from the local features of PARTS attended parts."""

    def __init__(self, channels, classes):
        super().__init__()
        self.where = nn.Conv2d(channels, PARTS, 1)
        self.what = nn.Linear(PARTS * channels, len(CONFUSED))
        self.register_buffer("positions", torch.eye(classes)[list(CONFUSED)], persistent=False)

    def forward(self, local):
        attention = self.where(local).flatten(2).softmax(2)  # (N, PARTS, pixels)
        parts = attention @ local.flatten(2).transpose(1, 2)  # (N, PARTS, channels)
        return self.what(parts.flatten(1)) @ self.positions
