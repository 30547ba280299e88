"""Train every configuration of a task with every seed: in stacks where the network allows it, one process per CPU core.

A configuration is a dict of plain values: model, epochs, batch_size, lr, momentum, weight_decay, dropout. Those that
share model, epochs and batch size are trained together, as one job. Each job has a checkpoint from which it resumes.
"""

import contextlib
import functools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common import cli, data, evaluation, metrics, tables
from common.learners import Learner, StackedBatches, StackedLearner
from common.models import MODELS, forward_flops
from common.support import checkpoints, failures, machine, plan, signals
from common.support.epoch_log import EpochLog, last_epoch
from common.support.errors import UserError, gpu_failure
from common.support.progress import Progress, epoch_reporter
from common.training import fit

STACKED_FLOPS = 1e7  # a network that needs more per image is not bound by overhead, so a stack gains nothing
SINGLE_COST = 50  # a network that is not stacked takes about as long as this many LeNets
PER_MEMBER = ("lr", "momentum", "weight_decay", "dropout")
# Steps of a stack. Compiling takes 30 s or more and saves about a millisecond per step; on CUDA, where a step is one
# graph anyway, about a quarter of one.
COMPILE_FROM = {"cpu": 20_000, "cuda": 100_000, "mps": 20_000}
CLEAN_TRAIN_IMAGES = 10_000  # training images measured in evaluation mode: as many as test images
QUICK_SHARE = 5  # quick scale trains one fifth of the epochs

MEASURED = ("train_loss", "val_accuracy", "test_accuracy", "learning_rate", "seconds")  # columns of the log

# How a worker process reports to the process that started it, as `reporter` does; set once in each worker.
report_to_parent: ContextVar[Callable] = ContextVar("report_to_parent")


@dataclass(frozen=True)
class Job:
    """What is trained together: configurations that differ in PER_MEMBER at most, each with all of `seeds`."""

    configs: dict[str, dict]
    seeds: list[int]

    @property
    def shared(self) -> dict:
        """Return the first configuration, for the values that all have in common."""
        return next(iter(self.configs.values()))

    @property
    def members(self) -> int:
        """Return the number of trainings."""
        return len(self.configs) * len(self.seeds)

    @property
    def label(self) -> str:
        """Return what the job is called in messages."""
        first, *others = self.configs
        return f"{first} and {len(others)} more" if others else first

    @property
    def file_name(self) -> str:
        """Return what the job's checkpoint is called, without a suffix."""
        return f"{next(iter(self.configs))}-{'-'.join(map(str, self.seeds))}"

    def __str__(self) -> str:
        return f"{self.label} with seed {', '.join(map(str, self.seeds))}"


@dataclass(frozen=True)
class Setup:
    """What all jobs of a sweep have in common."""

    checkpoints: Path
    scale: str
    data: Path | None
    device: str
    precision: str
    threads: int
    validation: bool
    evaluate_train: bool


def configure(configs: dict, base: dict, options: cli.Options) -> dict[str, dict]:
    """Return {name: configuration} with every value filled in: `base`, then the configuration's change, then the flags.

    Quick scale takes a fifth of the epochs.
    """
    complete = {name: {**base, **change, **options.overrides} for name, change in configs.items()}
    if options.scale == "full" or options.epochs:
        return complete
    return {name: {**config, "epochs": max(1, config["epochs"] // QUICK_SHARE)} for name, config in complete.items()}


def run(
    configs: dict[str, dict],
    base: dict,
    options: cli.Options,
    *,
    save_to: str,
    seeds: range | None = None,
    validation: bool = False,
    evaluate_train: bool = False,
    stacked: bool = True,
    batch_losses: bool = True,
) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Train every configuration with every seed; return {(configuration, seed): history} as in common/training.py.

    Saves the histories to `save_to` in the folder of outputs, and run.json; log.csv has a line per run and epoch while
    it trains. With --plan it prints what it would train and returns {}.

    configs: {name: change from `base`}.
    seeds: by default `options.seeds`.
    validation: train on the 45,000 images of the 9:1 split and measure the other 5,000 as val_loss and val_accuracy
        after each epoch; save the indices of both as split.npz. Otherwise train on all images. Test loss and test
        accuracy are always measured, and nothing is chosen by them.
    evaluate_train: also measure clean_train_loss and clean_train_accuracy, in evaluation mode, on 10,000 training
        images.
    stacked: False trains runs one at a time, so that their times are comparable. In a stack, a run's `seconds` are
        its share of the stack's.
    batch_losses: save the losses of the first seed batch by batch, and those of the baseline (else of the first
        configuration) also under the three keys of the report.

    Raises:
        UserError: jobs failed. The others have been trained, and their checkpoints are kept.
    """
    configs = configure(configs, base, options)
    seeds = list(options.seeds if seeds is None else seeds)
    if options.plan:
        jobs = [Job(job.configs, seeds) for job in make_jobs(configs, seeds[:1], stacked)]
        rows = [plan_row(job, options.scale, validation, evaluate_train) for job in jobs]
        plan.show(options.command.split()[1], rows, options.scale, options.device)
        return {}

    train_set, _, source = data.load(options.scale, options.data)  # downloads it, before several processes read it
    labels = train_set.labels
    del train_set  # each process that trains has its own
    processes = machine.cores() if options.device == "cpu" else 1
    # on a CPU each job has one seed, so that its result does not depend on the number of cores
    jobs = make_jobs(configs, seeds, stacked, seeds_together=options.device != "cpu")
    setup = Setup(
        checkpoints=options.out / "checkpoints" / Path(save_to).stem,
        scale=options.scale,
        data=options.data,
        device=options.device,
        precision=options.precision,
        threads=1 if processes > 1 else torch.get_num_threads(),
        validation=validation,
        evaluate_train=evaluate_train,
    )
    trained, failed = {}, {}
    log = EpochLog(options.out, ("history", "config", "seed"), MEASURED)
    description = "9:1 split" if validation else "training"
    with Progress(sum(job.shared["epochs"] * job.members for job in jobs), description) as progress:

        def noted(job):
            path = options.out / failures.FOLDER / f"{job.file_name}.log"
            return failures.noted(failed, [str(job)], path, progress.log, _is_fatal)

        for histories in _train_jobs(jobs, setup, processes, reporter(progress, log), noted):
            trained |= histories
    failures.raise_if_any(failed, "No results are written, and what is trained is kept")
    histories = {(name, seed): trained[name, seed] for name in configs for seed in seeds}

    plain = ("baseline" if "baseline" in configs else next(iter(configs)), seeds[0]) if batch_losses else None
    tables.save_histories(options.out / save_to, histories, plain)
    if validation:
        train_indices, val_indices = data.train_val_split(labels)
        split = {"train": train_indices.numpy(), "validation": val_indices.numpy()}
        tables.save_arrays(options.out / "split.npz", split)
    _write_run_json(configs, options, source)
    return histories


def plan_row(job: Job, scale: str, validation: bool, evaluate_train: bool) -> dict:
    """Return the row of a job for `plan.show`."""
    train, held_out, test = plan.image_counts(scale, validation)
    return {
        "name": job.label + (" (9:1 split)" if validation else ""),
        **{key: job.shared[key] for key in ("model", "epochs", "batch_size")},
        "seeds": len(job.seeds),
        "members": job.members,
        "stacked": stackable(job.shared["model"]),
        "train": train,
        "evaluated": held_out + test + (min(train, CLEAN_TRAIN_IMAGES) if evaluate_train else 0),
    }


def _write_run_json(configs, options, source):
    """Write run.json with these configurations and those of the earlier sweeps of the same start."""
    path = options.out / "run.json"
    earlier = {}
    if path.exists():
        try:
            document = cli.read_json(path)
        except UserError:  # damaged; it is replaced
            document = {}
        if document.get("started") == cli.timestamp(options.started):
            earlier = document["configs"]
    configs = {**earlier, **configs}
    precisions = dict.fromkeys(training_precision(config["model"], options.precision) for config in configs.values())
    cli.write_run_json(options, source, precision=" and ".join(precisions), configs=configs)


def make_jobs(
    configs: dict[str, dict], seeds: list[int], stacked: bool = True, seeds_together: bool = False
) -> list[Job]:
    """Group configurations into jobs, each with one seed or, of a stack and `seeds_together`, with all of them.

    The longest job comes first.
    """
    groups = {}
    for name, config in configs.items():
        key = tuple((key, value) for key, value in sorted(config.items()) if key not in PER_MEMBER)
        in_stack = stacked and stackable(config["model"])
        groups.setdefault(key if in_stack else (*key, name), []).append(name)
    jobs = []
    for names in groups.values():
        in_stack = stacked and stackable(configs[names[0]]["model"])
        for job_seeds in [seeds] if seeds_together and in_stack else [[seed] for seed in seeds]:
            jobs.append(Job({name: configs[name] for name in names}, job_seeds))
    return sorted(jobs, key=_estimated_length, reverse=True)


def _estimated_length(job):
    cost = 1 if stackable(job.shared["model"]) else SINGLE_COST
    return job.shared["epochs"] * job.members * cost


def training_precision(model: str, precision: str) -> str:
    """Return the precision a network is trained in: stacks always use fp32, as their batches are too small for bf16."""
    return "fp32" if stackable(model) else precision


def stackable(model: str) -> bool:
    """Return whether a network can be trained in a stack, and gains by it.

    Batch statistics are not a function of weights and batch alone, so a network that has them is trained by itself.
    """
    with torch.device("meta"):
        network = MODELS[model]()
        has_statistics = any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
        return not has_statistics and forward_flops(network) < STACKED_FLOPS


def reporter(progress: Progress, log: EpochLog) -> Callable:
    """Return report(kind, ...): "progress" with the arguments of Progress.advance, "epoch" with those of the log."""
    receivers = {"progress": progress.advance, "epoch": log.write}
    return lambda kind, *arguments: receivers[kind](*arguments)


def _is_fatal(error):
    """Return whether no other job can be trained after an error."""
    return isinstance(error, BrokenProcessPool) or bool(gpu_failure(error))


def _train_jobs(jobs, setup, processes, report, noted) -> Iterator[dict]:
    """Yield the histories of each job as it ends, trained in this process or in a pool of several.

    noted: (job) -> a context manager that notes what the job fails by, and lets the others be trained.
    """
    if processes == 1:
        for job in jobs:
            with noted(job):
                yield train_job(job, setup, report)
        return
    context = multiprocessing.get_context("spawn")
    with signals.kept_from_children():  # the queue starts a process of its own
        messages = context.SimpleQueue()
    reader = threading.Thread(target=_relay, args=(messages, report), daemon=True)
    reader.start()
    pool = ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=_start_worker, initargs=(messages,))
    try:
        with signals.kept_from_children():  # this process answers them
            futures = {pool.submit(_work, job, setup): job for job in jobs}
        for future in as_completed(futures):
            with noted(futures[future]):
                yield future.result()
        pool.shutdown()
        messages.put(None)
        reader.join()
    except BrokenProcessPool as error:
        raise UserError("a worker process died (possibly out of memory); rerun the command to resume") from error
    finally:  # after a signal or a failed job, no worker may continue: nobody would take its results
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.kill()


def _relay(messages, report):
    while (message := messages.get()) is not None:
        with contextlib.suppress(OSError, ValueError):  # a closed terminal; the workers wait until messages are read
            report(*message)


def _start_worker(messages):
    report_to_parent.set(lambda *message: messages.put(message))
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(job, setup):
    return train_job(job, setup, report_to_parent.get())


def train_job(job: Job, setup: Setup, report: Callable) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Train one job, resuming from its checkpoint if it exists; return {(configuration, seed): history}.

    report: as `reporter` returns it.
    """
    torch.set_num_threads(setup.threads)
    device = torch.device(setup.device)
    train_set, test_set, _ = data.load(setup.scale, setup.data)
    evaluated = {"test": test_set}
    if setup.validation:
        train_indices, val_indices = data.train_val_split(train_set.labels)
        train_set, evaluated["val"] = train_set[train_indices], train_set[val_indices]
    train_set = train_set.to(device)
    if setup.evaluate_train:
        evaluated["clean_train"] = train_set[:CLEAN_TRAIN_IMAGES]
    evaluated = {name: dataset.to(device) for name, dataset in evaluated.items()}
    learner, batches = make_learner(job, train_set, device, setup.precision)

    def evaluate():
        metrics = {}
        for name, dataset in evaluated.items():
            logits = evaluation.predict(learner.logits, dataset, data.TUTORIAL_STATS)
            metrics[f"{name}_loss"] = evaluation.cross_entropy(logits, dataset.labels)
            metrics[f"{name}_accuracy"] = evaluation.accuracy(logits, dataset.labels)
        return metrics

    model, epochs = job.shared["model"], job.shared["epochs"]
    settings = {
        "configs": job.configs,
        "scale": setup.scale,
        "validation": setup.validation,
        "precision": training_precision(model, setup.precision),
    }
    path = setup.checkpoints / f"{job.file_name}.pt"
    label = f"{job.label}, seed {job.seeds[0]}"
    advance = functools.partial(report, "progress")
    report_progress = epoch_reporter(advance, label, job.members, resumed=checkpoints.exists(path))

    def on_epoch(epochs_done, history):
        accuracy = history["test_accuracy"][-1].mean()
        report_progress(epochs_done, f"{label}, epoch {epochs_done}/{epochs}, test {accuracy:.1f}%")
        report("epoch", epoch_rows(job, setup.checkpoints.name, epochs_done, history))

    history = fit(
        learner,
        batches,
        epochs,
        evaluate=evaluate,
        checkpoint=checkpoints.Checkpoint(path, settings),
        on_step=report_progress,
        on_epoch=on_epoch,
    )
    report_progress(epochs, skipped=True)  # epochs that a diverged job did not need
    return member_histories(history, job)


def epoch_rows(job: Job, name: str, epochs_done: int, history: dict) -> list[dict]:
    """Return the log's row of each run of a job after an epoch; `seconds` are shared equally.

    name: of the file of the histories.
    """
    rows = []
    for row, seed in enumerate(job.seeds):
        for column, (config, values) in enumerate(job.configs.items()):

            def own(value, row=row, column=column):
                return value[row, column] if value.ndim else value

            shared = {**history, "seconds": [history["seconds"][-1] / job.members]}
            origin = {"history": name, "config": config, "seed": seed, "epoch": epochs_done}
            rows.append(origin | last_epoch(shared, values["lr"], own))
    return rows


def member_histories(history: dict, job: Job) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Split the history of a job into {(configuration, seed): history}; `seconds` are shared equally."""
    histories = {}
    for row, seed in enumerate(job.seeds):
        for column, (name, config) in enumerate(job.configs.items()):
            # arrays of a stack end in (seeds, configurations), except for what is the same for all its members
            own = {key: value[..., row, column] if value.ndim > 1 else value for key, value in history.items()}
            own["seconds"] = history["seconds"] / job.members
            own["lr"] = history["lr"] * config["lr"]
            own["roughness"] = np.array(metrics.roughness(own["batch_losses"]))
            histories[name, seed] = own
    return histories


def make_learner(job: Job, train_set: data.Dataset, device: torch.device, precision: str) -> tuple:
    """Return the learner of a job and its batches of `train_set`, which is on `device`."""
    size = job.shared["batch_size"]
    batches = [data.Batches(train_set, size, seed=seed, stats=data.TUTORIAL_STATS) for seed in job.seeds]
    if stackable(job.shared["model"]):
        return stacked_learner(job, batches, device)
    return single_learner(job, batches, device, precision)


def make_model(config: dict, seed: int, device: torch.device) -> torch.nn.Module:
    """Return the configuration's network with the initial weights of this seed."""
    torch.manual_seed(seed)
    return MODELS[config["model"]](dropout=config["dropout"]).to(device)


def stacked_learner(
    job: Job, batches: list[data.Batches], device: torch.device
) -> tuple[StackedLearner, StackedBatches]:
    """Return a StackedLearner of all members of a job, always in fp32, and the batches of its seeds side by side."""
    configs, size = list(job.configs.values()), job.shared["batch_size"]
    hyperparameters = {name: [config[name] for config in configs] for name in ("lr", "momentum", "weight_decay")}
    models = [[make_model(config, seed, device) for config in configs] for seed in job.seeds]
    compiled = len(batches[0]) * job.shared["epochs"] >= COMPILE_FROM[device.type]
    on_cuda = device.type == "cuda"
    learner = StackedLearner(models, **hyperparameters, batch_size=size, compiled=compiled, graph=on_cuda)
    return learner, StackedBatches(batches)


def single_learner(
    job: Job, batches: list[data.Batches], device: torch.device, precision: str
) -> tuple[Learner, data.Batches]:
    """Return the learner of a job's only member, and its batches. Compiling such a small network gains nothing."""
    config, (seed,), (batches,) = job.shared, job.seeds, batches
    model = make_model(config, seed, device).to(memory_format=torch.channels_last)
    hyperparameters = {name: config[name] for name in ("lr", "momentum", "weight_decay")}
    optimizer = torch.optim.SGD(model.parameters(), **hyperparameters, fused=True)
    return Learner(model, optimizer, precision=precision, graph=device.type == "cuda"), batches
