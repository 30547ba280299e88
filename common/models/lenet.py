"""LeNet for 32x32 color images, as the assignment's section 3.2 builds it.

After LeCun et al., Gradient-Based Learning Applied to Document Recognition (Proc. IEEE 86, 1998). Departures: three
input channels, ReLU and max-pooling instead of tanh and subsampling, a linear last layer, dropout between fc1 and fc2.
"""

import torch.nn.functional as F
from torch import nn

from common.models.dropout import Dropout


class LeNet(nn.Module):
    """Two convolutions and three linear layers, with dropout before the second linear layer."""

    def __init__(self, dropout, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.dropout = Dropout(dropout)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward_features(self, x):
        # ReLU after pooling gives the same values and gradients as before it, from a quarter of the elements.
        x = F.relu(F.max_pool2d(self.conv1(x), 2))  # (N, 6, 14, 14)
        return F.relu(F.max_pool2d(self.conv2(x), 2))  # (N, 16, 5, 5)

    def forward_head(self, features):
        x = F.relu(self.fc1(features.flatten(1)))
        x = F.relu(self.fc2(self.dropout(x)))
        return self.fc3(x)

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def lenet(dropout: float = 0.5, classes: int = 10) -> nn.Module:
    """Return LeNet. 62,006 parameters."""
    return LeNet(dropout, classes)
