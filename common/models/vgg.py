"""VGG-16 with batch normalization and one linear layer, as is usual for CIFAR-10.

Simonyan & Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition (arXiv 1409.1556); the
convolutions are torchvision's. Five poolings leave 1x1 of a 32x32 image, so the feature maps are those before the last
one: 2x2.
"""

import torch.nn.functional as F
from torch import nn
from torchvision.models import vgg


class VGG(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features = vgg.make_layers(vgg.cfgs["D"], batch_norm=True)[:-1]  # all but the last max-pooling
        self.fc = nn.Linear(512, classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward_features(self, x):
        return self.features(x)  # (N, 512, 2, 2)

    def forward_head(self, features):
        return self.fc(F.max_pool2d(features, 2).flatten(1))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def vgg16_bn(classes: int = 10) -> nn.Module:
    """Return VGG-16. 14,728,266 parameters."""
    return VGG(classes)
