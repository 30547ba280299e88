"""Train every run of a task with every seed: in stacks where the network allows it, one process a core on a CPU.

A run is a dict of plain values: model, epochs, batch_size, lr, momentum, weight_decay, dropout. What can be trained together
is one job: the runs that differ in the last four only. A job has one checkpoint, so a killed study goes on where it stopped.
"""

import multiprocessing
import os
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from common import cli, data, evaluation
from common.learners import Network, Stack, StackedBatches
from common.models import MODELS
from common.problem import Problem
from common.progress import Progress
from common.training import fit

PER_MEMBER = ("lr", "momentum", "weight_decay", "dropout")
COMPILE_FROM = 20_000  # steps; compiling costs about 30 s and saves about a millisecond a step
EVALUATE_TRAIN = 10_000  # training images measured in evaluation mode: as many as test images


def study(runs, options, *, on_split=False, evaluate_train=False, name="runs"):
    """Train `runs`, {name: run}, with each of `options.seeds`; {(name, seed): history}, histories as in common/training.py.

    on_split: train on the 45,000 of the 9:1 split and measure the 5,000 as val_loss and val_accuracy after each epoch;
        otherwise train on everything. Either way test_loss and test_accuracy are measured, and nothing is chosen by them.
    evaluate_train: measure clean_train_loss and clean_train_accuracy too, in evaluation mode, on 10,000 training images.

    `seconds` of a run are its share of its stack's.
    """
    processes = cli.cores() if options.device == "cpu" else 1
    shared = {"folder": str(options.out / "checkpoints" / name), "scale": options.scale, "data": str(options.data), "device": options.device}
    shared |= {"precision": options.precision, "on_split": on_split, "evaluate_train": evaluate_train}
    jobs = plan(runs, list(options.seeds), together=options.device != "cpu")
    shared["threads"] = max(1, processes // len(jobs))
    if options.fresh:
        for path in Path(shared["folder"]).glob("*.pt"):
            path.unlink()

    histories = {}
    with Progress(sum(job["epochs"] * len(job["names"]) * len(job["seeds"]) for job in jobs), name) as progress:
        for finished in _train_all(jobs, shared, processes, progress):
            histories |= finished
    return {(run, seed): histories[run, seed] for run in runs for seed in options.seeds}


def plan(runs, seeds, together):
    """Group runs and seeds into jobs, the longest first. `together`: all seeds of a stack in one job, for a GPU to fill."""
    groups = {}
    for name, run in runs.items():
        alike = tuple((key, run[key]) for key in sorted(run) if key not in PER_MEMBER)
        groups.setdefault(alike if stackable(run["model"]) else (*alike, name), []).append(name)
    jobs = []
    for names in groups.values():
        first = runs[names[0]]
        whole = together and stackable(first["model"])
        for some in [seeds] if whole else [[seed] for seed in seeds]:
            jobs.append({"names": names, "runs": [runs[name] for name in names], "seeds": some, "epochs": first["epochs"]})
    return sorted(jobs, key=lambda job: -job["epochs"] * len(job["names"]) * (1 if stackable(job["runs"][0]["model"]) else 100))


def stackable(model):
    """Batch statistics are no function of weights and batch alone, so a network that has them is trained by itself."""
    with torch.device("meta"):
        return not any(isinstance(module, torch.nn.BatchNorm2d) for module in MODELS[model]().modules())


def _train_all(jobs, shared, processes, progress):
    if processes == 1:
        for job in jobs:
            yield train_job(job, shared, progress.advance)
        return
    context = multiprocessing.get_context("spawn")
    messages = context.SimpleQueue()
    reader = threading.Thread(target=_relay, args=(messages, progress), daemon=True)
    reader.start()
    pool = ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context, initializer=_start_worker, initargs=(messages,))
    try:
        for future in as_completed([pool.submit(_work, job, shared) for job in jobs]):
            yield future.result()
        pool.shutdown()
    except BaseException:  # Ctrl-C, or a job that failed: the others must not train on with nobody to take their results
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        messages.put(None)
        reader.join(timeout=5)


def _relay(messages, progress):
    while (message := messages.get()) is not None:
        progress.advance(*message)


def _start_worker(messages):
    global _say
    _say = lambda *message: messages.put(message)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(job, shared):
    try:
        return train_job(job, shared, _say)
    except KeyboardInterrupt:  # the parent says what there is to say
        os._exit(130)


def train_job(job, shared, say):
    """Train one job, going on from its checkpoint if there is one; {(name, seed): history}."""
    torch.set_num_threads(shared["threads"])
    device = torch.device(shared["device"])
    train, test = data.load_sample() if shared["scale"] == "quick" else data.load(shared["data"])
    parts = {"test": test}
    if shared["on_split"]:
        kept, held_out = data.split(train.labels)
        train, parts["val"] = train[kept], train[held_out]
    train = train.to(device)
    if shared["evaluate_train"]:
        parts["clean_train"] = train[slice(EVALUATE_TRAIN)]
    parts = {part: images.to(device) for part, images in parts.items()}

    run, members = job["runs"][0], len(job["names"]) * len(job["seeds"])
    batches = [data.Batches(train, run["batch_size"], seed=seed, normalisation=data.HALF) for seed in job["seeds"]]
    learner, batches = (stack if stackable(run["model"]) else network)(job, batches, device, shared["precision"])

    def evaluate():
        measured = {}
        for part, images in parts.items():
            logits = evaluation.predict(learner.logits, images, data.HALF)
            measured[f"{part}_loss"] = evaluation.cross_entropy(logits, images.labels)
            measured[f"{part}_accuracy"] = evaluation.accuracy(logits, images.labels)
        return measured

    others = f" and {len(job['names']) - 1} more" if len(job["names"]) > 1 else ""
    done = 0

    def on_epoch(epochs, history):
        nonlocal done
        accuracy = history["test_accuracy"][-1].mean()
        text = f"{job['names'][0]}{others}, seed {job['seeds'][0]}, epoch {epochs}/{job['epochs']}, test {accuracy:.1f}%"
        say((epochs - done) * members, text)
        done = epochs

    checkpoint = Path(shared["folder"]) / f"{job['names'][0]}-{'-'.join(map(str, job['seeds']))}.pt"
    settings = {"runs": dict(zip(job["names"], job["runs"])), **{key: shared[key] for key in ("scale", "on_split", "precision")}}
    history = fit(learner, batches, run["epochs"], evaluate=evaluate, checkpoint=checkpoint, settings=settings, on_epoch=on_epoch)
    say((run["epochs"] - done) * members, "")  # epochs that a diverged job did not need
    return dict(member_histories(history, learner.shape, job))


def member_histories(history, shape, job):
    """((name, seed), history of that one training) for all of a job's; `seconds` shared out equally, `lr` in full."""
    for row, seed in enumerate(job["seeds"]):
        for column, (name, run) in enumerate(zip(job["names"], job["runs"])):
            mine = {key: value[..., row, column] if value.shape[-2:] == shape != () and key not in ("lr", "seconds", "batch_indices") else value for key, value in history.items()}
            members = len(job["seeds"]) * len(job["names"])
            yield (name, seed), mine | {"seconds": history["seconds"] / members, "lr": history["lr"] * run["lr"]}


def make(run, seed, device):
    """The run's network with the weights this seed begins with."""
    torch.manual_seed(seed)
    return MODELS[run["model"]](dropout=run["dropout"]).to(device)


def stack(job, batches, device, precision):
    """A Stack of all of the job's runs and seeds, and their batches side by side. Always fp32: batches are too small for bf16 to pay."""
    runs, steps = job["runs"], len(batches[0]) * job["runs"][0]["epochs"]
    hyperparameters = {name: [run[name] for run in runs] for name in ("lr", "momentum", "weight_decay")}
    models = [[make(run, seed, device) for run in runs] for seed in job["seeds"]]
    compiled = steps >= COMPILE_FROM
    return Stack(models, **hyperparameters, batch_size=runs[0]["batch_size"], compiled=compiled), StackedBatches(batches)


def network(job, batches, device, precision):
    """The one network of a job that cannot be stacked, and its batches."""
    (run,), (seed,) = job["runs"], job["seeds"]
    model = make(run, seed, device).to(memory_format=torch.channels_last)
    hyperparameters = {name: run[name] for name in ("lr", "momentum", "weight_decay")}
    return Network(model, torch.optim.SGD(model.parameters(), **hyperparameters, fused=True), precision=precision), batches[0]
