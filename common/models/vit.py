"""A plain small vision transformer: 4x4 patches, six layers of width 256, eight heads.

Dosovitskiy et al., An Image is Worth 16x16 Words (arXiv 2010.11929); the encoder is torchvision's. The mean over all
patches is classified, without a class token (arXiv 2205.01580), so the last tokens are a feature map like a
convolution's. The report does not say which ViT it used; with its recipe any of this kind performs about as badly as
its 53.48%.
"""

from torch import nn
from torchvision.models.vision_transformer import Encoder


class ViT(nn.Module):
    def __init__(self, patch, layers, heads, width, mlp, dropout, classes):
        super().__init__()
        self.grid = 32 // patch
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.encoder = Encoder(self.grid**2, layers, heads, width, mlp, dropout, attention_dropout=0.0)
        self.fc = nn.Linear(width, classes)

    def forward_features(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)  # (N, 64, 256): one token per patch
        x = self.encoder(x)
        return x.transpose(1, 2).unflatten(2, (self.grid, self.grid))  # (N, 256, 8, 8)

    def forward_head(self, features):
        return self.fc(features.mean((2, 3)))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def vit(dropout: float = 0.0, classes: int = 10) -> nn.Module:
    """Return the vision transformer. 3,194,634 parameters."""
    return ViT(patch=4, layers=6, heads=8, width=256, mlp=512, dropout=dropout, classes=classes)
