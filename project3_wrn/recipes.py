"""How project 3's networks are trained: the report's recipe, and the fast ones for a machine without a GPU."""

from dataclasses import dataclass

FAST_MOMENTUM = 0.85


@dataclass(frozen=True)
class Recipe:
    """The defaults are the report's (sections 1.1 to 1.6).

    Its section 1.2 gives a weight decay of 1e-3, section 1.3 one of 5e-4, and table 1.7 marks 5e-4 as WideResNet-28-10's alone:
    so 1e-3 for the others.
    """

    epochs: int = 100
    batch_size: int = 256
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-3
    label_smoothing: float = 0.1
    crop: int = 4  # pixels of padding
    cutout: int = 12  # pixels; 0 for none
    patience: int = (
        15  # epochs; 0 for no early stopping, and then there is no validation set: all 50,000 images are trained on
    )
    min_delta: float = 0.001
    fast: bool = False  # trained by project3_wrn/fast.py


def fast_recipe(epochs, lr, weight_decay, crop=2, cutout=0):
    """The published values are for summed losses: lr a 1024 examples, weight decay a step. Here both are for mean losses.

    A step of Nesterov's momentum is in the long run 1 + 1 / (1 - momentum) times lr (arXiv 2404.00498, listing 1 of its code).
    """
    return Recipe(
        epochs=epochs,
        batch_size=1024,
        lr=lr / (1 + 1 / (1 - FAST_MOMENTUM)),
        momentum=FAST_MOMENTUM,
        weight_decay=weight_decay / lr,
        label_smoothing=0.2,
        crop=crop,
        cutout=cutout,
        patience=0,
        fast=True,
    )


RECIPES = {
    "report": Recipe(),
    "fast94": fast_recipe(epochs=10, lr=11.5, weight_decay=0.0153),
    "fast95": fast_recipe(epochs=15, lr=10.0, weight_decay=0.0153),
    "fast96": fast_recipe(epochs=45, lr=9.0, weight_decay=0.012, crop=4, cutout=12),
}


def recipe_of(name, model):
    """The recipe called `name` as `model` takes it."""
    if name == "report" and model == "wrn28_10":
        return Recipe(weight_decay=5e-4)
    return RECIPES[name]
