"""Train one network by one recipe with one seed: what main.py and the studies beside it share."""

import functools
import math

import torch
import torch.distributed as dist
import torch.nn.functional as F

from common import augment, data, evaluation, winograd
from common.learners import Learner
from common.models import MODELS
from common.support import checkpoints
from common.support.errors import UserError
from common.training import EarlyStopping, cosine, fit, warm_cosine
from project3_wrn.method import fast, losses, policies
from project3_wrn.method.distributed import DistributedLearner, broadcast_from_main
from project3_wrn.method.hooks import EMA
from project3_wrn.method.recipes import Fast

EVALUATE_TRAIN = {"quick": 200, "full": 10_000}  # training images measured after training


def make_splits(recipe, train):
    """What is trained on and what chooses: {"train": Images, "val": Images}; the latter only where the recipe has a split."""
    if not recipe.validation_split:
        return {"train": train}
    kept, held_out = data.split(train.labels)
    return {"train": train[kept], "val": train[held_out]}


def evaluation_sets(parts, test, scale):
    """What is measured after training: `parts` and the test set, and the first training images, as many as EVALUATE_TRAIN has."""
    return {**parts, "test": test, "train": parts["train"][slice(EVALUATE_TRAIN[scale])]}


def logits_of(learner, recipe, measured, device):
    """{part: logits (N, 10) on the CPU} of `evaluation_sets`, as the recipe predicts."""
    return {
        name: fast.predict(
            learner.logits, part.to(device), data.CIFAR10_STATS, recipe.tta_views, recipe.tta_fraction
        ).cpu()
        for name, part in measured.items()
    }


def check(model, recipe):
    """Raises UserError where this network cannot be trained by this recipe."""
    if model not in MODELS:
        raise UserError(f"there is no model {model}; one of {', '.join(MODELS)}")
    if recipe.fast and not model.startswith("fast"):
        raise UserError(f"the fast recipes train fast94, fast95 and fast96, not {model}; take --recipe report for it")
    ranges = {"momentum": (0, 1), "ema": (0, 1), "label_smoothing": (0, 1), "crop": (0, 31), "cutout": (0, 64)}
    for name, (low, high) in ranges.items():
        if not low <= getattr(recipe, name) < high + (high > 1):
            raise UserError(
                f"{name} {getattr(recipe, name)} is out of range: from {low}, {'up to' if high > 1 else 'below'} {high}"
            )
    if recipe.fast and (recipe.optimizer == "adamw" or recipe.warmup or not recipe.momentum):
        raise UserError(
            "the fast recipes have their own schedule and SGD or Muon with momentum; leave --optimizer and --warmup"
        )
    if recipe.optimizer == "muon" and not recipe.fast:
        raise UserError("Muon is for the fast recipes; take --optimizer sgd or adamw")
    if not recipe.fast and (recipe.last_epoch_fraction != 1 or recipe.low_res_epochs):
        raise UserError(
            "only the fast recipes end within a pass and begin with small images; leave out --last-epoch-fraction and --low-res-epochs"
        )
    if not 9 <= recipe.low_res_size <= 32:  # 8 pixels have nothing left after whitening and three halvings
        raise UserError(f"small {recipe.low_res_size} is out of range: from 9, up to 32")
    for name in ("last_epoch_fraction", "tta_fraction"):
        if not 0 < getattr(recipe, name) <= 1:
            raise UserError(f"{name} {getattr(recipe, name)} is out of range: above 0, up to 1")
    if recipe.tta_views not in fast.TTA:
        raise UserError(f"predictions are from 1, 2 or 6 views, not {recipe.tta_views}")
    if recipe.patience and not recipe.validation_split:
        raise UserError("early stopping needs a validation set; give --patience 0, or --validation-split")
    if recipe.mixing and recipe.loss in ("hardest", "contrastive"):
        raise UserError(f"the {recipe.loss} loss needs whole labels, and {recipe.mixing} mixes them; leave one out")


def train(
    model,
    recipe,
    seed,
    parts,
    *,
    precision="fp32",
    convolutions="direct",
    compiled=False,
    checkpoint=None,
    settings=None,
    on_step=None,
    on_epoch=None,
):
    """Return (learner, history as of common/training.py) of `parts` (`make_splits`), trained on their device.

    Where the recipe keeps a validation split, the learner has the weights of its best epoch, whatever the patience.

    Started by torchrun, all processes train together and the first alone writes the checkpoint (project3_wrn/distributed.py).

    Raises:
        UserError: loss or weights are no longer finite. The checkpoint of the last good epoch stays.
    """
    drop_last = recipe.fast and recipe.fast.drop_last
    if drop_last and len(parts["train"]) < recipe.batch_size:
        raise UserError(f"{len(parts['train'])} images are less than a batch of {recipe.batch_size}; choose another")
    if recipe.batch_size == 1 or (len(parts["train"]) % recipe.batch_size == 1 and not drop_last):
        raise UserError(
            f"batch size {recipe.batch_size} leaves a last batch of one image, for which BatchNorm is undefined; choose another"
        )
    learner, batches, schedule = build(
        model, recipe, seed, parts["train"], precision=precision, convolutions=convolutions
    )
    if dist.is_initialized() or recipe.loss == "contrastive":  # whose steps call the network in ways of their own
        compiled = False

    def evaluate():
        if "val" not in parts:
            return {}
        logits = evaluation.predict(learner.logits, parts["val"], data.CIFAR10_STATS)
        loss = evaluation.cross_entropy(logits, parts["val"].labels)
        return broadcast_from_main({"val_loss": loss, "val_accuracy": evaluation.accuracy(logits, parts["val"].labels)})

    def prepare():
        examples = batches.examples() if recipe.fast else [batches.example()]
        return sum(learner.compile(x, y) for x, y in examples)  # they share their code: each size is compiled once

    history = fit(
        learner,
        batches,
        recipe.epochs,
        schedule=schedule,
        evaluate=evaluate,
        early_stopping=EarlyStopping(recipe.patience, recipe.min_delta) if recipe.validation_split else None,
        checkpoint=checkpoint,
        settings=settings,
        prepare=prepare if compiled else None,
        on_step=on_step,
        on_epoch=on_epoch,
        writes=not dist.is_initialized() or dist.get_rank() == 0,
    )
    if step := int(history["diverged_step"]):
        epochs = len(history["epoch_losses"])  # the last of which, this one, is in no checkpoint
        kept = "lower the learning rate"
        if checkpoint and checkpoints.there(checkpoint):
            kept = f"epoch {epochs - 1} is kept in {checkpoint}; start over with --fresh and a lower learning rate, "
            kept += "or rerun the same command, which resumes from that epoch"
        where = f"{model} with seed {seed} diverged at step {step}, in epoch {epochs}"
        raise UserError(f"{where}: loss or weights became NaN or infinite; {kept}")
    return learner, history


def build(model, recipe, seed, images, *, precision="fp32", convolutions="direct"):
    """(learner, batches of `images`, schedule of the learning rate), all by the recipe, as this seed begins with them."""
    check(model, recipe)
    torch.manual_seed(seed)
    network = MODELS[model]().to(images.images.device).to(memory_format=torch.channels_last)
    if convolutions == "winograd":
        winograd.use(network)
    if hasattr(network, "whitening"):
        first = images.images[: (recipe.fast or Fast()).whitening_images]
        network.whitening.whiten(data.normalize(first, data.CIFAR10_STATS))
    options = {"loss": build_loss(recipe), "precision": precision}
    options |= {"decay": recipe.ema} if recipe.ema else {}
    prepared = preparation(recipe, images)
    if not recipe.fast:
        batches = data.Batches(images, recipe.batch_size, seed=seed, **prepared)
        schedule = warm_cosine(recipe.warmup) if recipe.warmup else cosine
        return _learner(recipe)(network, optimizer(network, recipe), **options), batches, schedule
    numbers = recipe.fast
    batches = fast.AlternatingFlips(images, recipe.batch_size, seed=seed, whole=numbers.drop_last, **prepared)
    batches.steps = steps = math.ceil((recipe.epochs - 1 + recipe.last_epoch_fraction) * len(batches))
    batches.low_res_size, batches.low_res_steps = recipe.low_res_size, math.ceil(recipe.low_res_epochs * len(batches))
    options |= {"whitening_steps": math.ceil(numbers.whitening_epochs * len(batches))}
    options |= {"whitening_falls": numbers.whitening_falls}
    options |= {"steps": steps} if recipe.optimizer == "sgd" else {}

    def schedule(epoch, _):
        return fast.triangular_schedule(
            round(epoch * len(batches)), steps, peak_at=recipe.peak_fraction, end=recipe.final_lr_fraction
        )

    return _learner(recipe)(network, fast.optimizer(network, recipe), **options), batches, schedule


def preparation(recipe, images):
    """Return what the recipe does to images and labels, as Batches takes it."""
    # the report crops the picture, as torchvision's RandomCrop does: what it pads with is black, not the mean colour
    pads = {"mode": "reflect"} if recipe.fast else {"fill": data.black(data.CIFAR10_STATS, images.images.device)}
    steps = [functools.partial(augment.random_crop, padding=recipe.crop, **pads)] if recipe.crop else []
    steps += [] if recipe.fast else [augment.random_flip]
    steps += [augment.Cutout(recipe.cutout)] if recipe.cutout else []
    if recipe.brightness or recipe.contrast:
        steps += [functools.partial(augment.jitter_color, brightness=recipe.brightness, contrast=recipe.contrast)]
    steps += [policies.random_erasing] if recipe.random_erasing else []
    mix = [policies.targeted_augmentation] if recipe.targeted_augmentation else []
    mix += [{"mixup": augment.mixup, "cutmix": augment.cutmix}[recipe.mixing]] if recipe.mixing else []
    return {
        "normalisation": data.CIFAR10_STATS,
        "policy": policies.auto_augment(recipe.auto_augment) if recipe.auto_augment else None,
        "augment": tuple(steps),
        "mixing": tuple(mix),
        "weights": policies.class_weights(images.labels) if recipe.class_weighted_sampling else None,
    }


def optimizer(network, recipe):
    decay = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), **decay)
    return torch.optim.SGD(network.parameters(), momentum=recipe.momentum, **decay)


def build_loss(recipe):
    """The recipe's loss: (logits, labels) -> tensor (). The contrastive one's other half is in losses.Contrastive."""
    if recipe.loss == "focal":
        return functools.partial(losses.focal, label_smoothing=recipe.label_smoothing)
    if recipe.loss == "hardest":
        return functools.partial(losses.ohem, label_smoothing=recipe.label_smoothing)
    return functools.partial(F.cross_entropy, label_smoothing=recipe.label_smoothing)


def _learner(recipe):
    """What is trained: a Learner, with what the recipe adds to it."""
    if dist.is_initialized():
        if recipe.fast or recipe.ema or recipe.loss == "contrastive":
            raise UserError(
                "torchrun trains by the report's recipe only; start in one process for fast, ema or contrastive"
            )
        return DistributedLearner
    quick = fast.Fast if recipe.optimizer == "muon" else fast.Lookahead
    wanted = ((recipe.fast, quick), (recipe.ema, EMA), (recipe.loss == "contrastive", losses.Contrastive))
    kinds = tuple(kind for asked, kind in wanted if asked)
    return type("Learner", kinds, {}) if len(kinds) > 1 else kinds[0] if kinds else Learner
