"""Published test accuracies on CIFAR-10, to compare the report and ours with (project 3's report, section 2.8)."""

from typing import NamedTuple


class Mark(NamedTuple):
    """One published test accuracy in per cent.

    config: what compare_models.py calls the network; empty where it does not train it.
    """

    network: str
    accuracy: float
    training: str
    source: str
    config: str = ""


MARKS = (
    Mark("WRN-16-8", 95.73, "crop and flip, 200 epochs", "arXiv 1605.07146", "wrn16_8"),
    Mark("WRN-28-10", 96.00, "crop and flip, 200 epochs", "arXiv 1605.07146", "wrn28_10"),
    Mark("WRN-28-10", 96.11, "the same with dropout 0.3", "arXiv 1605.07146", "wrn28_10"),
    Mark("ResNet-18", 95.28, "crop and flip, 200 epochs", "arXiv 1708.04552", "resnet18"),
    Mark("ResNet-18", 96.01, "the same with Cutout", "arXiv 1708.04552", "resnet18"),
    Mark("WRN-28-10", 96.92, "crop, flip and Cutout, 200 epochs", "arXiv 1708.04552", "wrn28_10"),
    Mark("WRN-28-10", 97.3, "RandAugment", "arXiv 1909.13719", "wrn28_10"),
    Mark("WRN-28-10", 97.4, "AutoAugment and Cutout", "arXiv 1805.09501", "wrn28_10"),
    Mark("WRN-28-10", 97.46, "TrivialAugment", "arXiv 2103.10158", "wrn28_10"),
    Mark("ViT-H/14", 99.50, "pre-trained on JFT-300M, 303 million more images", "arXiv 2010.11929"),
)
