"""Train one network by one recipe with one seed: what main.py and the studies beside it share."""

import functools

import torch
import torch.distributed as dist

from common import augment, data, evaluation
from common.learners import Network
from common.models import MODELS
from common.problem import Problem
from common.training import EarlyStopping, cosine, fit
from project3_wrn import fast
from project3_wrn.parallel import Parallel


def parts_of(recipe, train):
    """What is trained on and what chooses: {"train": Images, "val": Images}; without early stopping nothing is chosen."""
    if not recipe.patience:
        return {"train": train}
    kept, held_out = data.split(train.labels)
    return {"train": train[kept], "val": train[held_out]}


def check(model, recipe):
    """Raises Problem where this network cannot be trained by this recipe."""
    if model not in MODELS:
        raise Problem(f"there is no model {model}; one of {', '.join(MODELS)}")
    if recipe.fast and not model.startswith("fast"):
        raise Problem(f"the fast recipes train fast94, fast95 and fast96, not {model}; take --recipe report for it")


def train(
    model, recipe, seed, parts, *, precision="fp32", compiled=False, checkpoint=None, settings=None, on_epoch=None
):
    """(learner with its best weights, history as of common/training.py) of `parts` (`parts_of`), which are on the device to train on.

    Started by torchrun, all processes train together and the first alone writes the checkpoint (project3_wrn/parallel.py).
    """
    check(model, recipe)
    torch.manual_seed(seed)
    device = parts["train"].images.device
    network = MODELS[model]().to(device).to(memory_format=torch.channels_last)
    options = {"label_smoothing": recipe.label_smoothing, "precision": precision, "compiled": compiled}
    if recipe.fast:
        learner, batches, schedule = _fast(network, recipe, seed, parts["train"], options)
    else:
        batches = data.Batches(parts["train"], recipe.batch_size, seed=seed, **augmentation(recipe))
        sgd = torch.optim.SGD(
            network.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )
        learner = (Parallel if dist.is_initialized() else Network)(network, sgd, **options)
        schedule = cosine

    def evaluate():
        if "val" not in parts:
            return {}
        logits = evaluation.predict(learner.logits, parts["val"], data.PIXEL)
        return {
            "val_loss": evaluation.cross_entropy(logits, parts["val"].labels),
            "val_accuracy": evaluation.accuracy(logits, parts["val"].labels),
        }

    history = fit(
        learner,
        batches,
        recipe.epochs,
        schedule=schedule,
        evaluate=evaluate,
        early_stopping=EarlyStopping(recipe.patience, recipe.min_delta) if recipe.patience else None,
        checkpoint=checkpoint,
        settings=settings,
        on_epoch=on_epoch,
        writes=not dist.is_initialized() or dist.get_rank() == 0,
    )
    return learner, history


def augmentation(recipe):
    """Normalisation and augmentation of the recipe, as Batches takes them."""
    mode = "reflect" if recipe.fast else "constant"
    steps = [functools.partial(augment.random_crop, padding=recipe.crop, mode=mode)] if recipe.crop else []
    steps += [] if recipe.fast else [augment.random_flip]
    steps += [augment.Cutout(recipe.cutout)] if recipe.cutout else []
    return {"normalisation": data.PIXEL, "augment": tuple(steps)}


def _fast(network, recipe, seed, images, options):
    if dist.is_initialized():
        raise Problem("the fast recipes train on one device; start without torchrun, or with --recipe report")
    batches = fast.AlternatingFlips(images, recipe.batch_size, seed=seed, **augmentation(recipe))
    network.whitening.whiten(data.normalise(images.images[: fast.WHITEN_FROM], data.PIXEL))
    steps = {"steps": recipe.epochs * len(batches), "epoch_steps": len(batches)}
    return fast.Lookahead(network, fast.optimizer(network, recipe), **steps, **options), batches, fast.triangle


def predictor(learner, recipe):
    """Normalised images -> logits, as this recipe measures its networks."""
    return fast.with_views(learner.logits) if recipe.fast else learner.logits
