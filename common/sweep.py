"""Train every run of a task with every seed: in stacks where the network allows it, one process a core on a CPU.

A run is a dict of plain values: model, epochs, batch_size, lr, momentum, weight_decay, dropout. What can be trained together
is one job: the runs that differ in the last four only. A job has one checkpoint, so a killed study resumes where it stopped.
"""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from common import cli, data, evaluation
from common.learners import Learner, StackedBatches, StackedLearner
from common.models import MODELS
from common.support import checkpoints, download, files, machine
from common.support.errors import UserError
from common.support.progress import Progress, epoch_reporter
from common.training import fit

FULL_STACK = 6  # members from which on a step's overhead is shared well
PER_MEMBER = ("lr", "momentum", "weight_decay", "dropout")
# Steps. Compiling costs about 30 s and saves about a millisecond a step; on CUDA the steps left are all overhead.
COMPILE_FROM = {"cpu": 20_000, "cuda": 2_000, "mps": 20_000}
EVALUATE_TRAIN = 10_000  # training images measured in evaluation mode: as many as test images


def configure(runs, base, options):
    """{name: run} with every value filled in: `base`, the run's change from it, then what the flags ask for.

    Quick scale takes a fifth of the epochs.
    """
    asked = {name: value for name, value in (("epochs", options.epochs), ("batch_size", options.batch_size)) if value}
    full = {name: {**base, **change, **asked} for name, change in runs.items()}
    if options.scale == "full" or options.epochs:
        return full
    return {name: {**run, "epochs": max(1, run["epochs"] // 5)} for name, run in full.items()}


def run(runs, options, *, seeds=None, on_split=False, evaluate_train=False, apart=False, name="runs"):
    """Train `runs`, {name: run}, with each of `seeds` (`options.seeds` if none); {(name, seed): history} as in common/training.py.

    on_split: train on the 45,000 of the 9:1 split and measure the 5,000 as val_loss and val_accuracy after each epoch;
        otherwise train on everything. Either way test_loss and test_accuracy are measured, and nothing is chosen by them.
    evaluate_train: measure clean_train_loss and clean_train_accuracy too, in evaluation mode, on 10,000 training images.
    apart: each run and seed by itself, where its seconds are compared with another's.

    `seconds` of a run are its share of its stack's.
    """
    seeds = list(options.seeds if seeds is None else seeds)
    if options.scale == "quick":
        options.source = download.SAMPLE_SOURCE
    else:
        options.data, options.source = download.find(options.data)
    processes = machine.cores() if options.device == "cpu" else 1
    shared = {
        "folder": str(options.out / "checkpoints" / name.replace(":", "-")),  # no Windows file has a colon in its name
        "scale": options.scale,
        "data": str(options.data),
        "device": options.device,
    }
    shared |= {"precision": options.precision, "on_split": on_split, "evaluate_train": evaluate_train}
    jobs = make_jobs(runs, seeds, processes, apart)
    shared["threads"] = max(1, processes // len(jobs))
    if options.fresh:
        # all of the task's, so that a start that is stopped and given again without --fresh finds nothing old
        files.clear_checkpoints(options.out / "checkpoints")
        options.fresh = False

    histories = {}
    with Progress(sum(job["epochs"] * len(job["names"]) * len(job["seeds"]) for job in jobs), name) as progress:
        for finished in _train_all(jobs, shared, processes, progress):
            histories |= finished
    return {(run, seed): histories[run, seed] for run in runs for seed in seeds}


def make_jobs(runs, seeds, processes, apart=False):
    """Group runs and seeds into jobs for `processes`, the longest first. A single process takes all seeds of a stack at once."""
    by_itself = lambda run: apart or not stackable(run["model"])
    groups = {}
    for name, run in runs.items():
        alike = tuple((key, run[key]) for key in sorted(run) if key not in PER_MEMBER)
        groups.setdefault((*alike, name) if by_itself(run) else alike, []).append(name)
    jobs = []
    for names in groups.values():
        first, at_once = runs[names[0]], 1
        if not by_itself(first):
            at_once = -(-len(seeds) // processes)
            if processes > 1:
                at_once = min(at_once, -(-FULL_STACK // len(names)))
        for start in range(0, len(seeds), at_once):
            some = seeds[start : start + at_once]
            job = {"names": names, "configs": [runs[name] for name in names], "seeds": some}
            jobs.append(job | {"epochs": first["epochs"]})
    return sorted(jobs, key=_length, reverse=True)


def _length(job):
    """A guess at how long a job takes: a convolutional network with batch statistics is some fifty LeNets."""
    return job["epochs"] * len(job["names"]) * len(job["seeds"]) * (1 if stackable(job["configs"][0]["model"]) else 50)


def training_precision(model, precision):
    """What a network is trained in: stacks always in fp32, for their batches are too small for bf16 to pay."""
    return "fp32" if stackable(model) else precision


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
    pool = ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=_start_worker, initargs=(messages,))
    try:
        answer = signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # which the workers inherit: Ctrl-C is the parent's to answer
        futures = [pool.submit(_work, job, shared) for job in jobs]
        signal.signal(signal.SIGINT, answer)
        for future in as_completed(futures):
            yield future.result()
        pool.shutdown()
        messages.put(None)
        reader.join()
    except BrokenProcessPool as error:
        raise UserError("a worker process died (possibly out of memory); rerun the command to resume") from error
    finally:  # after Ctrl-C or a job that failed, the others must not train on with nobody to take their results
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()


def _relay(messages, progress):
    while (message := messages.get()) is not None:
        progress.advance(*message)


def _start_worker(messages):
    global _messages
    _messages = messages
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(job, shared):
    return train_job(job, shared, lambda *message: _messages.put(message))


def train_job(job, shared, say):
    """Train one job, resuming from its checkpoint if it exists; return {(name, seed): history}."""
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

    run, members = job["configs"][0], len(job["names"]) * len(job["seeds"])
    batches = [data.Batches(train, run["batch_size"], seed=seed, stats=data.TUTORIAL_STATS) for seed in job["seeds"]]
    learner, batches = (stacked_learner if stackable(run["model"]) else single_learner)(
        job, batches, device, shared["precision"]
    )

    def evaluate():
        measured = {}
        for part, images in parts.items():
            logits = evaluation.predict(learner.logits, images, data.TUTORIAL_STATS)
            measured[f"{part}_loss"] = evaluation.cross_entropy(logits, images.labels)
            measured[f"{part}_accuracy"] = evaluation.accuracy(logits, images.labels)
        return measured

    checkpoint = Path(shared["folder"]) / f"{job['names'][0]}-{'-'.join(map(str, job['seeds']))}.pt"
    settings = {"configs": dict(zip(job["names"], job["configs"]))}
    settings |= {key: shared[key] for key in ("scale", "on_split")} | {
        "precision": training_precision(run["model"], shared["precision"])
    }
    others = f" and {len(job['names']) - 1} more" if len(job["names"]) > 1 else ""
    which = f"{job['names'][0]}{others}, seed {job['seeds'][0]}"
    tell = epoch_reporter(say, which, members, checkpoints.there(checkpoint))

    def on_epoch(epochs, history):
        accuracy = history["test_accuracy"][-1].mean()
        tell(epochs, f"{which}, epoch {epochs}/{job['epochs']}, test {accuracy:.1f}%")

    history = fit(
        learner,
        batches,
        run["epochs"],
        evaluate=evaluate,
        checkpoint=checkpoint,
        settings=settings,
        on_step=tell,
        on_epoch=on_epoch,
    )
    tell(run["epochs"], skipped=True)  # epochs that a diverged job did not need
    return dict(member_histories(history, learner.shape, job))


def member_histories(history, shape, job):
    """((name, seed), history of that one training) for all of a job's; `seconds` shared out equally, `lr` in full."""
    whole = ("lr", "seconds", "batch_indices", "kept_epoch")  # the same for all members
    for row, seed in enumerate(job["seeds"]):
        for column, (name, run) in enumerate(zip(job["names"], job["configs"])):
            own = dict(history)
            if shape:
                own |= {key: value[..., row, column] for key, value in history.items() if key not in whole}
            own["seconds"] = history["seconds"] / (len(job["seeds"]) * len(job["names"]))
            own["lr"] = history["lr"] * run["lr"]
            yield (name, seed), own


def make_model(run, seed, device):
    """The run's network with the weights this seed begins with."""
    torch.manual_seed(seed)
    return MODELS[run["model"]](dropout=run["dropout"]).to(device)


def stacked_learner(job, batches, device, precision):
    """A StackedLearner of all of the job's runs and seeds, and their batches side by side, in fp32."""
    runs, steps = job["configs"], len(batches[0]) * job["configs"][0]["epochs"]
    hyperparameters = {name: [run[name] for run in runs] for name in ("lr", "momentum", "weight_decay")}
    models = [[make_model(run, seed, device) for run in runs] for seed in job["seeds"]]
    learner = StackedLearner(
        models, **hyperparameters, batch_size=runs[0]["batch_size"], compiled=steps >= COMPILE_FROM[device.type]
    )
    return learner, StackedBatches(batches)


def single_learner(job, batches, device, precision):
    """The one network of a job that cannot be stacked, and its batches. On a CPU compiling it gains nothing."""
    (run,), (seed,), (batches,) = job["configs"], job["seeds"], batches
    model = make_model(run, seed, device).to(memory_format=torch.channels_last)
    hyperparameters = {name: run[name] for name in ("lr", "momentum", "weight_decay")}
    optimizer = torch.optim.SGD(model.parameters(), **hyperparameters, fused=True)
    learner = Learner(model, optimizer, precision=precision)
    if device.type == "cuda" and len(batches) * run["epochs"] >= COMPILE_FROM["cuda"]:
        learner.compile(*batches.example())
    return learner, batches


def split_indices(options):
    """The indices of the 9:1 split that `study` trains on, as arrays to be saved."""
    train, _ = data.load_sample() if options.scale == "quick" else data.load(options.data)
    return dict(zip(("train", "validation"), (indices.numpy() for indices in data.split(train.labels))))


def write_run_json(runs, options):
    """Write run.json beside the saved histories."""
    document = cli.provenance(options, options.source)
    document["precision"] = " and ".join(
        {training_precision(run["model"], options.precision): run for run in runs.values()}
    )
    cli.write_json(options.out / "run.json", document | {"configs": runs})
