"""The networks, one family a file. Nothing in here knows of training.

A factory takes numbers only and gives a network for images (N, 3, 32, 32), with
`forward_features` -> the last feature maps and `forward_head` -> logits (N, classes).
"""

from common.models.lenet import lenet
from common.models.lightweight_resnet import lightweight_resnet

MODELS = {
    "lenet": lenet,
    "lightweight_resnet": lightweight_resnet,
}
