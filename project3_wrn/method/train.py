"""Train one network by one recipe with one seed: what main.py and the other scripts of project 3 share."""

import dataclasses
import functools
import inspect
import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F

from common import augment, cuda_graph, data, evaluation, winograd
from common.learners import Learner
from common.models import MODELS, forward_flops
from common.support.errors import UserError
from common.training import EarlyStopping, cosine, fit, multistep_decay, step_decay, warm
from project3_wrn.method import fast, losses, policies, soft_labels
from project3_wrn.method.distributed import DistributedLearner, broadcast_from_main, is_main_process
from project3_wrn.method.hooks import EMA, Lookahead, WhiteningBias
from project3_wrn.method.recipes import CHOICES, Fast, Recipe

EVALUATED_TRAIN_IMAGES = {"quick": 200, "full": 10_000}  # number that is evaluated after training
# limits of the recipe's fields
FROM_0_BELOW_1 = ("momentum", "ema", "label_smoothing", "dropout")
FROM_0_UP_TO_1 = ("soft_labels",)
ABOVE_0_UP_TO_1 = ("last_epoch_fraction", "tta_fraction")
LIMITS = {
    "crop": (0, data.IMAGE_SIZE - 1),
    "cutout": (0, 2 * data.IMAGE_SIZE),
    "low_res_size": (9, data.IMAGE_SIZE),  # of 8 pixels nothing is left after whitening and three halvings
}
FAST_ONLY = ("last_epoch_fraction", "low_res_epochs", "low_res_size", "peak_fraction", "final_lr_fraction")
MIXING = {"mixup": augment.mixup, "cutmix": augment.cutmix}
SCHEDULES = {"cosine": cosine, "step": step_decay, "multistep": multistep_decay}
ADAM = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
WHOLE_LABELS = ("ohem", "contrastive")  # losses that need them


@dataclass(frozen=True)
class Backend:
    """How a training is computed: what changes its speed, and its numbers by rounding only."""

    precision: str = "fp32"  # or "bf16"
    convolutions: str = "direct"  # or "winograd"
    compiled: bool = False  # the networks whose steps are long enough


def make_splits(recipe, train_set):
    """Return what is trained on and what selects the epoch: {"train": Dataset, "val": Dataset}.

    Without a validation split in the recipe there is no "val". With soft labels "train" has targets.

    Raises:
        UserError: the recipe has soft labels, and label_audit.py has not made them.
    """
    if recipe.soft_labels:
        train_set = soft_labels.add_targets(train_set, recipe.soft_labels)
    if not recipe.validation_split:
        return {"train": train_set}
    train, val = data.train_val_split(train_set.labels)
    return {"train": train_set[train], "val": train_set[val]}


def evaluation_sets(splits, test_set, scale):
    """Return what is evaluated after training: `splits`, with EVALUATED_TRAIN_IMAGES of "train" only, and "test"."""
    return {**splits, "test": test_set, "train": splits["train"][: EVALUATED_TRAIN_IMAGES[scale]]}


def predict_logits(learner, recipe, sets, device):
    """Return {name: logits (N, 10) on the CPU} of `evaluation_sets`, by the recipe's test-time augmentation."""
    return {
        name: evaluation.predict_with_tta(
            learner.logits, dataset.to(device), data.CIFAR10_STATS, recipe.tta_views, recipe.tta_fraction
        ).cpu()
        for name, dataset in sets.items()
    }


def check_recipe(model, recipe):
    """Check that this network can be trained by this recipe.

    Raises:
        UserError: it cannot; the message names the flag to change.
    """
    if model not in MODELS:
        raise UserError(f"there is no model {model}; choose one of {', '.join(MODELS)}")
    _check_values(recipe)
    if recipe.fast:
        with torch.device("meta"):
            trainable = hasattr(MODELS[model](), "whitening")
        if not trainable:
            raise UserError(f"the fast recipes train fast94 and its like, not {model}; use --recipe report for it")
        own_schedule = recipe.warmup or recipe.schedule != Recipe.schedule
        if recipe.optimizer in ("adam", "adamw") or own_schedule or not recipe.momentum:
            raise UserError(
                "the fast recipes have their own schedule and SGD or Muon with momentum; leave out --optimizer, "
                "--schedule, --warmup and --momentum"
            )
    else:
        if recipe.optimizer == "muon":
            raise UserError("Muon is for the fast recipes; use --optimizer sgd, adam or adamw")
        if ignored := [name for name in FAST_ONLY if getattr(recipe, name) != getattr(Recipe(), name)]:
            raise UserError(f"{_flag(ignored[0])} is for the fast recipes; leave it out")
    if recipe.patience and not recipe.validation_split:
        raise UserError("early stopping needs a validation set; give --patience 0, or --validation-split")
    if recipe.loss in WHOLE_LABELS and (recipe.mixing != "none" or recipe.soft_labels):
        other = f"--mixing {recipe.mixing}" if recipe.mixing != "none" else "--soft-labels"
        raise UserError(f"--loss {recipe.loss} needs whole labels, and {other} mixes them; drop one")
    if recipe.focal_gamma != Recipe.focal_gamma and recipe.loss != "focal":
        raise UserError("--focal-gamma is for --loss focal; leave it out")
    if recipe.dropout is not None and not has_dropout(model):
        able = ", ".join(filter(has_dropout, MODELS))
        raise UserError(f"{model} has no dropout; leave --dropout out, or choose one of {able}")


def has_dropout(model):
    """Return whether the probability of dropout of this network can be chosen."""
    return "dropout" in inspect.signature(MODELS[model]).parameters


def _check_values(recipe):
    for name, choices in CHOICES.items():
        if (value := getattr(recipe, name)) not in choices:
            raise UserError(f"{_flag(name)} {value} is not one of {', '.join(choices)}")
    if recipe.tta_views not in evaluation.TTA:
        raise UserError(f"--tta-views must be 1, 2 or 6, not {recipe.tta_views}")
    for name in ("epochs", "batch_size"):
        if getattr(recipe, name) < 1:
            raise UserError(f"{_flag(name)} {getattr(recipe, name)} is out of range: from 1")
    for name in FROM_0_BELOW_1:
        if not 0 <= (getattr(recipe, name) or 0) < 1:
            raise UserError(f"{_flag(name)} {getattr(recipe, name)} is out of range: from 0, below 1")
    for name in FROM_0_UP_TO_1:
        if not 0 <= getattr(recipe, name) <= 1:
            raise UserError(f"{_flag(name)} {getattr(recipe, name)} is out of range: from 0, up to 1")
    for name in ABOVE_0_UP_TO_1:
        if not 0 < getattr(recipe, name) <= 1:
            raise UserError(f"{_flag(name)} {getattr(recipe, name)} is out of range: above 0, up to 1")
    for name, (low, high) in LIMITS.items():
        if not low <= getattr(recipe, name) <= high:
            raise UserError(f"{_flag(name)} {getattr(recipe, name)} is out of range: from {low}, up to {high}")


def _flag(field):
    return "--" + field.replace("_", "-")


def train(model, recipe, seed, splits, backend=Backend(), *, checkpoint=None, on_step=None, on_epoch=None):
    """Train on `splits` (of `make_splits`), on their device; return (learner, history as of common/training.py).

    Where the recipe has a validation split, the learner ends with the weights of its best epoch, whatever the patience.

    Started by torchrun, all processes train together and the main one alone writes the checkpoint
    (project3_wrn/method/distributed.py).

    checkpoint, on_step, on_epoch: as `fit` takes them.

    Raises:
        UserError: the batch size does not fit the images; or loss or weights are no longer finite, then the checkpoint
            stays the last good one.
    """
    _check_batch_size(recipe, len(splits["train"]))
    learner, batches, schedule = build(model, recipe, seed, splits["train"], backend)

    def evaluate():
        if "val" not in splits:
            return {}
        logits, labels = evaluation.predict(learner.logits, splits["val"], data.CIFAR10_STATS), splits["val"].labels
        return broadcast_from_main(
            {
                "val_loss": evaluation.cross_entropy(logits, labels),
                "val_accuracy": evaluation.accuracy(logits, labels),
            }
        )

    if checkpoint and not is_main_process():
        checkpoint = dataclasses.replace(checkpoint, read_only=True)
    history = fit(
        learner,
        batches,
        recipe.epochs,
        schedule=schedule,
        evaluate=evaluate,
        early_stopping=EarlyStopping(recipe.patience, recipe.min_delta) if recipe.validation_split else None,
        checkpoint=checkpoint,
        on_step=on_step,
        on_epoch=on_epoch,
    )
    if step := int(history["diverged_step"]):
        epochs, advice = len(history["epoch_losses"]), "lower the learning rate"
        if checkpoint and checkpoint.exists():
            advice = (
                f"the last good state is kept in {checkpoint.path}; start over with --fresh and a lower learning rate, "
                "or rerun the same command, which resumes from it"
            )
        raise UserError(f"diverged at step {step}, in epoch {epochs}: loss or weights became NaN or infinite; {advice}")
    return learner, history


def _check_batch_size(recipe, images):
    drop_last = recipe.fast and recipe.fast.drop_last
    if drop_last and images < recipe.batch_size:
        raise UserError(f"{images} images are fewer than a batch of {recipe.batch_size}; choose another --batch-size")
    if recipe.batch_size == 1 or (images % recipe.batch_size == 1 and not drop_last):
        raise UserError(
            f"batch size {recipe.batch_size} leaves a last batch of one image, for which BatchNorm is undefined; "
            "choose another --batch-size"
        )


def build(model, recipe, seed, train_set, backend=Backend()):
    """Return (learner, batches of `train_set`, schedule of the learning rate) at the start of a training."""
    check_recipe(model, recipe)
    torch.manual_seed(seed)
    options = {} if recipe.dropout is None else {"dropout": recipe.dropout}
    network = MODELS[model](**options).to(train_set.images.device).to(memory_format=torch.channels_last)
    if backend.convolutions == "winograd":
        winograd.use(network)
    if hasattr(network, "whitening"):
        first = train_set.images[: (recipe.fast or Fast()).whitening_images]
        network.whitening.whiten(data.normalize(first, data.CIFAR10_STATS))
    prepared = preparation(recipe, train_set)
    if recipe.fast:
        batches = fast.AlternatingFlips(
            train_set,
            recipe.batch_size,
            seed=seed,
            passes=recipe.epochs - 1 + recipe.last_epoch_fraction,
            drop_last=recipe.fast.drop_last,
            low_res_size=recipe.low_res_size,
            low_res_passes=recipe.low_res_epochs,
            flip=recipe.flip,
            **prepared,
        )
        learner = build_learner(model, network, fast.optimizer(network, recipe), recipe, batches, backend)

        def schedule(epoch, _):
            return fast.triangular_schedule(
                round(epoch * len(batches)),
                batches.steps,
                peak_at=recipe.peak_fraction,
                end=recipe.final_lr_fraction,
            )

        return learner, batches, schedule
    batches = data.Batches(train_set, recipe.batch_size, seed=seed, **prepared)
    learner = build_learner(model, network, optimizer(network, recipe), recipe, batches, backend)
    schedule = SCHEDULES[recipe.schedule]
    return learner, batches, warm(schedule, recipe.warmup) if recipe.warmup else schedule


def build_learner(model, network, optimizer, recipe, batches, backend):
    """Return a learner with the loss and the hooks of the recipe, data-parallel where torchrun started this process."""
    loss = build_loss(recipe)
    if dist.is_initialized():
        if recipe.fast or recipe.ema or recipe.loss == "contrastive":
            raise UserError(
                "torchrun trains by the report's recipe only; start in one process for fast, ema or contrastive"
            )
        return DistributedLearner(network, optimizer, loss=loss, precision=backend.precision)
    hooks = []
    if recipe.fast:
        whitening_steps = math.ceil(recipe.fast.whitening_epochs * len(batches))
        hooks.append(WhiteningBias(whitening_steps, recipe.fast.whitening_decays))
    if recipe.ema:
        hooks.append(EMA(recipe.ema))
    if recipe.fast and recipe.optimizer == "sgd":
        hooks.append(Lookahead(batches.steps))
    work = step_flops(model, recipe.batch_size)
    # the gradients of Muon's matrices are checked on the host where they are scaled
    waits = backend.precision == "fp16" and recipe.optimizer == "muon"
    return Learner(
        network,
        optimizer,
        loss=loss,
        precision=backend.precision,
        compiled=backend.compiled and work >= cuda_graph.WORTH_COMPILING,
        graph=batches.dataset.images.is_cuda and work < cuda_graph.LONG_STEP and not waits,
        hooks=hooks,
    )


def step_flops(model, batch_size):
    """Return the floating-point operations of the forward pass of a training step."""
    with torch.device("meta"):
        return batch_size * forward_flops(MODELS[model]())


def preparation(recipe, train_set):
    """Return what the recipe does to images and labels, as keyword arguments of Batches."""
    # the report crops the picture, as torchvision's RandomCrop does: it pads with black, not with the mean color
    pads = {"mode": "reflect"} if recipe.fast else {"fill": data.black(data.CIFAR10_STATS, train_set.images.device)}
    steps = [functools.partial(augment.random_crop, padding=recipe.crop, **pads)] if recipe.crop else []
    # a fast recipe's batches flip themselves
    steps += [augment.random_flip] if recipe.flip and not recipe.fast else []
    steps += [augment.Cutout(recipe.cutout)] if recipe.cutout else []
    if recipe.brightness or recipe.contrast:
        steps += [functools.partial(augment.jitter_color, brightness=recipe.brightness, contrast=recipe.contrast)]
    steps += [policies.random_erasing] if recipe.random_erasing else []
    mix = [policies.targeted_augmentation] if recipe.targeted_augmentation else []
    mix += [MIXING[recipe.mixing]] if recipe.mixing != "none" else []
    return {
        "stats": data.CIFAR10_STATS,
        "policy": policies.POLICIES.get(recipe.auto_augment),
        "augment": tuple(steps),
        "mix": tuple(mix),
        "weights": policies.class_weights(train_set.labels) if recipe.class_weighted_sampling else None,
    }


def optimizer(network, recipe):
    """Return the optimizer of a recipe that is not fast."""
    decay = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer in ADAM:
        return ADAM[recipe.optimizer](network.parameters(), **decay)
    return torch.optim.SGD(network.parameters(), momentum=recipe.momentum, **decay)


def build_loss(recipe):
    """Return the recipe's loss, as a Learner takes it."""
    smoothing = {"label_smoothing": recipe.label_smoothing}
    cross_entropy = functools.partial(F.cross_entropy, **smoothing)
    return {
        "cross_entropy": cross_entropy,
        "focal": functools.partial(losses.focal, gamma=recipe.focal_gamma, **smoothing),
        "ohem": functools.partial(losses.ohem, **smoothing),
        "multi_label": functools.partial(losses.multi_label, **smoothing),
        "contrastive": losses.Contrastive(cross_entropy),
    }[recipe.loss]
