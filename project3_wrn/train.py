"""Train one network by one recipe with one seed: what main.py and the studies beside it share."""

import functools

import torch
import torch.distributed as dist
import torch.nn.functional as F

from common import augment, data, evaluation
from common.learners import Network
from common.models import MODELS
from common.problem import Problem
from common.training import EarlyStopping, cosine, fit, warm_cosine
from project3_wrn import fast, losses, policies
from project3_wrn.averaged import Averaged
from project3_wrn.parallel import Parallel


def parts_of(recipe, train):
    """What is trained on and what chooses: {"train": Images, "val": Images}; the latter only where the recipe has a split."""
    if not recipe.split:
        return {"train": train}
    kept, held_out = data.split(train.labels)
    return {"train": train[kept], "val": train[held_out]}


def check(model, recipe):
    """Raises Problem where this network cannot be trained by this recipe."""
    if model not in MODELS:
        raise Problem(f"there is no model {model}; one of {', '.join(MODELS)}")
    if recipe.fast and not model.startswith("fast"):
        raise Problem(f"the fast recipes train fast94, fast95 and fast96, not {model}; take --recipe report for it")
    if recipe.patience and not recipe.split:
        raise Problem("early stopping needs a validation set; give --patience 0")
    if recipe.mix and recipe.loss in ("hardest", "contrastive"):
        raise Problem(f"the {recipe.loss} loss needs whole labels, and {recipe.mix} mixes them; leave one out")


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
    options = {"loss": loss_of(recipe), "precision": precision, "compiled": compiled}
    if recipe.fast:
        learner, batches, schedule = _fast(network, recipe, seed, parts["train"], options)
    else:
        batches = data.Batches(parts["train"], recipe.batch_size, seed=seed, **preparation(recipe, parts["train"]))
        learner = _learner(network, optimizer(network, recipe), recipe, options)
        schedule = warm_cosine(recipe.warmup) if recipe.warmup else cosine

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


def preparation(recipe, images):
    """What the recipe does to images and labels, as Batches takes it."""
    mode = "reflect" if recipe.fast else "constant"
    steps = [functools.partial(augment.random_crop, padding=recipe.crop, mode=mode)] if recipe.crop else []
    steps += [] if recipe.fast else [augment.random_flip]
    steps += [augment.Cutout(recipe.cutout)] if recipe.cutout else []
    steps += [policies.random_erasing] if recipe.erasing else []
    mix = [policies.for_confused] if recipe.targeted else []
    mix += [{"mixup": augment.mixup, "cutmix": augment.cutmix}[recipe.mix]] if recipe.mix else []
    return {
        "normalisation": data.PIXEL,
        "policy": policies.policy(recipe.policy) if recipe.policy else None,
        "augment": tuple(steps),
        "mix": tuple(mix),
        "weights": policies.weights_of_confused(images.labels) if recipe.weighted else None,
    }


def optimizer(network, recipe):
    decay = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), **decay)
    return torch.optim.SGD(network.parameters(), momentum=recipe.momentum, **decay)


def loss_of(recipe):
    """The recipe's loss: (logits, labels) -> tensor (). The contrastive one's other half is in losses.Contrastive."""
    if recipe.loss == "focal":
        return losses.focal
    if recipe.loss == "hardest":
        return functools.partial(losses.hardest, label_smoothing=recipe.label_smoothing)
    return functools.partial(F.cross_entropy, label_smoothing=recipe.label_smoothing)


def _learner(network, optimizer, recipe, options):
    if dist.is_initialized():
        if recipe.ema or recipe.loss == "contrastive":
            raise Problem(
                "an average of the weights and the contrastive loss train in one process; start without torchrun"
            )
        return Parallel(network, optimizer, **options)
    if recipe.loss == "contrastive":
        return losses.Contrastive(network, optimizer, **options)
    return (
        Averaged(network, optimizer, decay=recipe.ema, **options)
        if recipe.ema
        else Network(network, optimizer, **options)
    )


def _fast(network, recipe, seed, images, options):
    if dist.is_initialized():
        raise Problem("the fast recipes train on one device; start without torchrun, or with --recipe report")
    if recipe.ema or recipe.loss == "contrastive":
        raise Problem(
            "the fast recipes keep their own average of the weights and compare no features; take --recipe report"
        )
    batches = fast.AlternatingFlips(images, recipe.batch_size, seed=seed, **preparation(recipe, images))
    network.whitening.whiten(data.normalise(images.images[: fast.WHITEN_FROM], data.PIXEL))
    steps = {"steps": recipe.epochs * len(batches), "epoch_steps": len(batches)}
    return fast.Lookahead(network, fast.optimizer(network, recipe), **steps, **options), batches, fast.triangle


def predictor(learner, recipe):
    """Normalised images -> logits, as this recipe measures its networks."""
    if recipe.fast:
        return fast.with_views(learner.logits)
    return with_mirror(learner.logits) if recipe.mirror else learner.logits


def with_mirror(logits_of):
    """`logits_of`, averaged over an image and its mirror image."""
    return lambda x: (logits_of(x) + logits_of(x.flip(-1))) / 2
