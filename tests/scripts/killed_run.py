"""Train one network, a stack with dropout and two fast ones for three epochs each; print a hash of all results.

An epoch has 14 steps, with fast94 13, the last one 9.

python tests/scripts/killed_run.py FOLDER KILL_AT     KILL_AT: the step at which this process kills itself, or 0
"""

import dataclasses
import functools
import hashlib
import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import augment, data, evaluation, training
from common.learners import Learner, StackedBatches, StackedLearner
from common.models import MODELS
from common.models.fast import FastNet
from common.support import checkpoints
from common.support.checkpoints import Checkpoint
from project3_wrn.method import fast
from project3_wrn.method.hooks import EMA, Lookahead, WhiteningBias
from project3_wrn.method.recipes import RECIPES

EPOCHS, BATCH_SIZE = 3, 10


def main(folder, kill_at):
    torch.set_num_threads(1)
    checkpoints.INTERVAL = 0  # a kill leaves no time to write
    train, test, _ = data.load("quick")
    train, test = train[:135], test[:50]  # 14 steps an epoch, the last batch short
    digest = hashlib.sha256()
    steps = 0
    trainings = {
        "network": network(train),
        "stack": stack(train),
        "fast95": fast_network(train, "fast95"),
        "fast94": fast_network(train, "fast94"),
    }
    for name, (learner, batches) in trainings.items():

        def counted(x, y, step=learner.step):
            nonlocal steps
            steps += 1
            if steps == kill_at:
                os._exit(9)  # as SIGKILL does: nothing is cleaned up or written
            return step(x, y)

        learner.step = counted

        def evaluate(learner=learner):
            logits = evaluation.predict(learner.logits, test, data.TUTORIAL_STATS)
            return {"val_accuracy": evaluation.accuracy(logits, test.labels)}

        history = training.fit(
            learner,
            batches,
            EPOCHS,
            schedule=training.cosine,
            evaluate=evaluate,
            early_stopping=training.EarlyStopping(patience=10) if name == "network" else None,
            checkpoint=Checkpoint(folder / f"{name}.pt", {"epochs": EPOCHS}),
        )
        for field in sorted(history):
            if field != "seconds":
                digest.update(history[field].tobytes())
        for tensor in tensors(learner.state_dict()):
            digest.update(tensor.numpy().tobytes())
    print(digest.hexdigest())


def network(train):
    torch.manual_seed(0)
    model = MODELS["lightweight_resnet"]().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True)
    augmentation = (augment.random_crop, augment.random_flip, augment.Cutout(12))
    batches = data.Batches(train, BATCH_SIZE, seed=0, stats=data.CIFAR10_STATS, augment=augmentation)
    return Learner(model, optimizer, loss=functools.partial(F.cross_entropy, label_smoothing=0.1)), batches


def stack(train):
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        models.append([MODELS["lenet"](dropout=p) for p in (0.0, 0.5, 0.7)])
    learner = StackedLearner(
        models, lr=[0.01] * 3, momentum=[0.9, 0.9, 0.0], weight_decay=[0.0, 0.01, 0.1], batch_size=BATCH_SIZE
    )
    return learner, StackedBatches(
        [data.Batches(train, BATCH_SIZE, seed=seed, stats=data.TUTORIAL_STATS) for seed in range(2)]
    )


def fast_network(train, recipe):
    torch.manual_seed(0)
    model = FastNet((8, 16, 16), depth=3, classes=10).to(memory_format=torch.channels_last)
    model.whitening.whiten(data.normalize(train.images, data.CIFAR10_STATS))
    recipe = dataclasses.replace(RECIPES[recipe], batch_size=BATCH_SIZE)
    augmentation = (augment.random_crop, functools.partial(augment.jitter_color, brightness=0.1, contrast=0.1))
    muon = recipe.optimizer == "muon"
    # 13, 13 and 9 steps, of which the last of the 18 with small images are in epoch 2
    lengths = dict(passes=2.69, drop_last=True, low_res_size=24, low_res_passes=1.38) if muon else {}
    batches = fast.AlternatingFlips(
        train, BATCH_SIZE, seed=0, stats=data.CIFAR10_STATS, augment=augmentation, **lengths
    )
    optimizer = fast.optimizer(model, recipe)
    hooks = [WhiteningBias(24, whitening_decays=muon)]  # it stops in epoch 2
    if not muon:
        hooks += [EMA(0.9), Lookahead(EPOCHS * len(batches))]
    return Learner(model, optimizer, hooks=hooks), batches


def tensors(state):
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, (dict, list)):
        for value in state.values() if isinstance(state, dict) else state:
            yield from tensors(value)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
