"""The networks, one family per file. Nothing in here knows about training.

A factory takes numbers only and returns a network for images (N, 3, 32, 32), with `forward_features`, which returns the
last feature maps, and `forward_head`, which returns logits (N, classes).
"""

import importlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch.utils.flop_counter import FlopCounterMode


class Networks(Mapping):
    """{name of a network: its factory}. A file is imported when one of its networks is asked for.

    Some networks are torchvision's, which takes as long to import as torch: `--help` and most trainings need none.

    files: {file of this folder: names of its networks}.
    """

    def __init__(self, files: dict[str, tuple[str, ...]]):
        self.file_of = {name: file for file, names in files.items() for name in names}

    def __getitem__(self, name: str) -> Callable[..., torch.nn.Module]:
        return getattr(importlib.import_module(f"common.models.{self.file_of[name]}"), name)

    def __contains__(self, name: object) -> bool:
        return name in self.file_of

    def __iter__(self) -> Iterator[str]:
        return iter(self.file_of)

    def __len__(self) -> int:
        return len(self.file_of)


MODELS = Networks(
    {
        "lenet": ("lenet",),
        "lightweight_resnet": (
            "lightweight_resnet",
            "lightweight_resnet_no_batch_norm",
            "lightweight_resnet_no_shortcuts",
        ),
        "resnet": (
            "resnet18",
            "resnet34",
            "resnet50",
            "resnet18_se",
            "resnet18_cbam",
            "resnet18_spatial",
            "resnet18_bilinear",
            "resnet18_parts",
        ),
        "wrn": ("wrn28_10", "wrn16_8"),
        "dla": ("dla34", "dla34_cifar"),
        "vit": ("vit",),
        "vgg": ("vgg16_bn",),
        "fast": (
            "fast94",
            "fast95",
            "fast96",
            "fast_small",
            "fast_small_se",
            "fast_small_cbam",
            "fast_small_spatial",
            "fast_small_bilinear",
            "fast_small_parts",
        ),
    }
)


def parameter_count(model: torch.nn.Module) -> int:
    """Return the number of trained values."""
    return sum(parameter.numel() for parameter in model.parameters())


def forward_flops(model: torch.nn.Module) -> int:
    """Return the floating-point operations of the forward pass of one 32x32 image.

    There are two for each multiply-add of convolutions and linear layers; nothing else is counted.
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    return counter.get_total_flops()
