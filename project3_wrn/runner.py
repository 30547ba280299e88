"""Train configurations with seeds, one training at a time: what main.py and the studies share.

A configuration is a pair (model, recipe), a run one configuration with one seed. Runs that differ only in what is done
at test time share one training. A finished run is a file, `runs/<config>-<seed>.npz`, and is not trained again; --fresh
removes a script's own runs. What another script has trained with the same settings is always taken over. An interrupted
training resumes from its checkpoint. A failed run is listed at the end and does not stop the others. While it trains, a
script adds a line per epoch to log.csv in its outputs.
"""

import contextlib
import dataclasses
import functools
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common import cli, data, evaluation, tables
from common.support import checkpoints, failures, plan
from common.support.epoch_log import EpochLog, last_epoch
from common.support.errors import gpu_failure
from common.support.progress import Progress, epoch_reporter
from project3_wrn import result_files
from project3_wrn.method import distributed
from project3_wrn.method.recipes import Recipe
from project3_wrn.method.train import (
    Backend,
    build,
    check_recipe,
    evaluation_sets,
    make_splits,
    predict_logits,
    train,
)

QUICK = dict(epochs=1, batch_size=64)
SHORT_OUTPUTS = "outputs_short"
MEASURED = ("train_loss", "train_accuracy", "val_accuracy", "learning_rate", "seconds")  # columns of the log


# --- a study, from its command line to its tables ---


def parse(description, folder, study, seeds):
    """Return the Options of a study's command line; its results go to the folder `study` below the outputs."""
    parser = cli.make_parser(description, seeds)
    cli.add_convolutions(parser)
    args = parser.parse_args()
    options = cli.resolve_options(args, folder, seeds, name=study)
    return options if args.out else in_folder_of_length(options, folder)


def in_folder_of_length(options, folder):
    """Return the Options with the folder outputs_short/ in place of outputs/ where the start is a short one.

    Without CUDA a study at full scale is short: it has fewer epochs than the report, or a smaller network. --redraw
    without --device redraws what is in outputs/, and what is in outputs_short/ where outputs/ has nothing.
    """
    usual, short = (folder / name / options.out.name for name in ("outputs", SHORT_OUTPUTS))
    if options.out != usual:
        return options
    if options.redraw and options.device == "auto":
        is_short = not (usual / "run.json").exists()
    else:
        is_short = options.device != "cuda"
    return dataclasses.replace(options, out=short if is_short else usual)


def configure(configs, options):
    """Return the configurations with what quick scale, --epochs and --batch-size change in their recipes."""
    changes = {**(QUICK if options.scale == "quick" else {}), **options.overrides}
    return {config: (model, dataclasses.replace(recipe, **changes)) for config, (model, recipe) in configs.items()}


def run_study(
    configs,
    options,
    write_results,
    *,
    save=result_files.save_study,
    splits=None,
    held_out=0.0,
    save_weights=False,
    complete=False,
):
    """Train every configuration with every seed, save what came out, and write tables and figures.

    With --redraw, only write tables and figures; with --plan, only print the runs and what they cost.

    configs: {name: (model, recipe)}.
    write_results: (folder) -> None, from what `save` has written there and nothing else.
    save: (configs, {(config, seed): result}, options, (train set, test set, source)) -> None.
    splits: (config, train set) -> {"train": Dataset, "val": Dataset}; by default the recipe's split.
    held_out: the share of the training images that `splits` holds out, for --plan.
    save_weights: write weights-<seed>.pt too, for a study of one configuration.
    complete: save nothing where a run failed.

    Raises:
        UserError: a configuration cannot be trained; or runs failed, and the tables have the others.
    """
    if not options.redraw:
        for model, recipe in configs.values():
            check_recipe(model, recipe)
    runs = make_runs(configs, options, own_splits=splits is not None, save_weights=save_weights)
    if options.plan:
        title, rows = options.command.split()[1], plan_rows(runs, options.scale, held_out)
        plan.show(title, rows, options.scale, options.device)
        return
    with distributed.process_group(options.device) as device:
        is_main = distributed.is_main_process()
        with cli.output_folder(options) if is_main else contextlib.nullcontext():
            failed = {}
            if not options.redraw:
                dataset = data.load(options.scale, options.data)
                results, failed = train_all(runs, options, dataset, device, splits)
                if complete or not results:
                    failures.raise_if_any(failed, "No results are written")
                if is_main:
                    save(configs, results, options, dataset)
            if is_main:
                with cli.reading_results(options):
                    write_results(options.out)
                failures.raise_if_any(failed, "The tables have the others")
                print(f"results: {options.out}")


def plan_rows(runs, scale, held_out=0.0):
    """Return one row per configuration for common/support/plan.py, all its seeds together.

    A training that an earlier row or an earlier script of the same plan has is not counted again.

    held_out: the share of the training images that is held out without the recipe's split.
    """
    new = {id(group[0]) for group in group_runs(runs) if plan.is_new(result_files.training_key(group[0].settings))}
    rows = []
    for config in dict.fromkeys(run.config for run in runs):
        of_config = [run for run in runs if run.config == config]
        model, recipe, settings = of_config[0].model, of_config[0].recipe, of_config[0].settings
        train_images, val_images, _ = plan.image_counts(scale, recipe.validation_split)
        if held_out:
            val_images = round(held_out * train_images)
            train_images -= val_images
        # the last pass may end early, and an image of fewer pixels costs less
        passes = recipe.epochs - 1 + recipe.last_epoch_fraction
        saved = min(recipe.low_res_epochs, passes) * (1 - (recipe.low_res_size / data.IMAGE_SIZE) ** 2)
        rows.append(
            {
                "name": config,
                "model": model,
                "seeds": len(of_config),
                "epochs": recipe.epochs,
                "batch_size": recipe.batch_size,
                "members": sum(id(run) in new for run in of_config),
                "stacked": False,
                "train": train_images,
                "evaluated": val_images,
                "passes": passes - saved,
                "speed": plan.WINOGRAD if settings["convolutions"] == "winograd" else 1,
            }
        )
    return rows


# --- training ---


@dataclass(frozen=True)
class Run:
    """One configuration with one seed, how it is computed, and where its files are."""

    config: str
    model: str
    recipe: Recipe
    seed: int
    settings: dict  # its result and its checkpoint have these; with other ones they belong to another run
    backend: Backend
    git_commit: str
    result: Path
    checkpoint: Path
    weights: Path | None  # None where the weights are not saved

    def __str__(self):
        return f"{self.config}, seed {self.seed}"


def make_runs(configs, options, *, own_splits=False, save_weights=False):
    """Return the runs of a study in the order of training: all configurations with one seed, then with the next.

    own_splits: the configurations differ in the images that they hold out, so their settings name them.
    """
    start = {**vars(options), "processes": distributed.world_size()}
    # on a CPU, compiling slows bf16 and Winograd's convolutions down and costs minutes
    compiled = options.device == "cuda" and options.scale == "full"
    return [
        Run(
            config,
            model,
            recipe,
            seed,
            settings=result_files.run_settings(
                model, dataclasses.asdict(recipe), seed, start, split=config if own_splits else None
            ),
            backend=Backend(options.precision, options.convolutions, compiled),
            git_commit=options.git_commit or "none",
            result=result_files.result_path(options.out, config, seed),
            checkpoint=options.out / "checkpoints" / f"{config}-{seed}.pt",
            weights=result_files.weights_path(options.out, seed) if save_weights else None,
        )
        for seed in options.seeds
        for config, (model, recipe) in configs.items()
    ]


def group_runs(runs):
    """Return lists of the runs that share one training: they differ in what is done at test time only."""
    groups = {}
    for run in runs:
        groups.setdefault(result_files.training_key(run.settings), []).append(run)
    return list(groups.values())


def train_all(runs, options, dataset, device, splits=None):
    """Train all runs that are not finished; return ({(config, seed): result}, {failed run: why}).

    Raises:
        UserError: a run failed that other processes train too.
        torch.AcceleratorError: the GPU failed in a way after which this process can no longer use it.
    """
    train_set, test_set, _ = dataset
    is_main = distributed.is_main_process()
    if options.fresh and is_main:
        # all results are removed before the first run, so that the same command without --fresh can resume
        for path in options.out.glob("runs/*.npz"):
            path.unlink()
    distributed.barrier()  # no process may look for a result earlier
    groups, results, failed = group_runs(runs), {}, {}
    epoch_log = EpochLog(options.out, ("config", "seed"), MEASURED)
    total = sum(group[0].recipe.epochs for group in groups)
    with Progress(total, options.out.name, quiet=not is_main) as progress:
        for group in groups:
            first, missing = group[0], []
            report_progress = epoch_reporter(progress.advance, str(first), resumed=checkpoints.exists(first.checkpoint))
            for run in group:
                with listed_if_failed([run], failed, progress.log):
                    if (result := finished_result(run, progress.log)) is not None:
                        results[run.config, run.seed] = result
                    else:
                        missing.append(run)
            if missing:
                with listed_if_failed(missing, failed, progress.log):
                    sets = splits(first.config, train_set) if splits else make_splits(first.recipe, train_set)
                    on_epoch = functools.partial(report_epoch, missing[0], report_progress, epoch_log)
                    work = (missing, first, sets, test_set, device, report_progress, on_epoch, progress.log)
                    results.update(train_runs(*work))
                    if is_main and not options.keep_checkpoints:
                        checkpoints.discard(first.checkpoint)
            torch.cuda.empty_cache()  # what a run that ran out of memory held is free only now
            report_progress(first.recipe.epochs, skipped=True)  # finished before, stopped early, or failed
    # the tables list all seeds of one configuration, then those of the next
    order = list(dict.fromkeys(run.config for run in runs))
    return dict(sorted(results.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))), failed


def listed_if_failed(runs, failed, log):
    """Return a context manager that adds what the block fails by to `failed`, and ends it without the exception.

    It does raise where other processes train these runs too, and would wait for this one, and where the GPU is broken,
    so that every later run would fail too.
    """
    names = [f"{run.config} with seed {run.seed}" for run in runs]
    path = runs[0].result.parents[1] / failures.FOLDER / f"{runs[0].config}-{runs[0].seed}.log"
    return failures.noted(failed, names, path, log, lambda error: distributed.world_size() > 1 or gpu_failure(error))


def report_epoch(run, report_progress, epoch_log, epoch, history):
    """Report an epoch of a training, as `fit` calls it, to the progress and, in the main process, to the log."""
    validation = f", validation {history['val_accuracy'][-1]:.2f}%" if "val_accuracy" in history else ""
    loss = f"loss {history['epoch_losses'][-1]:.3f}"
    report_progress(epoch, f"{run}, epoch {epoch}/{run.recipe.epochs}, {loss}{validation}")
    if distributed.is_main_process():
        origin = {"config": run.config, "seed": run.seed, "epoch": epoch}
        epoch_log.write([origin | last_epoch(history, run.recipe.lr)])


def finished_result(run, log):
    """Return the result of a run that is finished, here or by another script, which is then copied; else None.

    Raises:
        UserError: the run's file has other settings.
    """
    if (result := result_files.read_finished(run.result, run.settings)) is not None:
        log(f"{run}: finished earlier, at commit {str(result['git_commit'])[:7]}; --fresh trains it again")
        return result
    if run.weights:  # another script has saved no weights
        return None
    if (found := result_files.find_run(run)) is None:
        return None
    folder, result = found
    log(f"{run}: taken over from {folder.name}, which has trained it with the same settings")
    if distributed.is_main_process():
        tables.save_arrays(run.result, result)
    return result


def train_runs(runs, first, splits, test_set, device, on_step, on_epoch, log):
    """Train what `runs` share, or resume it, and evaluate it as each of them says; return {(config, seed): result}.

    The return value is {} in all processes except the main one. A result is the arrays of a run's file: `test_logits`
    (10000, 10) and, with a validation set, `val_logits`, both by the recipe's test-time augmentation;
    `clean_train_accuracy` (per cent) and `clean_train_loss` (nats) in evaluation mode; the history of
    common/training.py; `settings` as JSON, `git_commit`, and `started`, when training began or was last resumed.

    first: the run that the checkpoint is named after; it shares the training and may be finished.
    on_step, on_epoch: as `fit` calls them.

    Raises:
        UserError: the checkpoint has other settings, or the training diverged.
    """
    run, started = runs[0], cli.timestamp(time.time())
    parts = {name: part.to(device) for name, part in splits.items()}
    origin = {"git_commit": np.array(run.git_commit), "started": np.array(started)}
    if path := None if run.weights else result_files.find_weights(run):
        log(f"{run}: evaluating the weights that {path.parent.parent.name} has trained")
        learner, history, origin = trained_elsewhere(run, parts, path)
    else:
        learner, history = train(
            run.model,
            run.recipe,
            run.seed,
            parts,
            run.backend,
            checkpoint=checkpoints.Checkpoint(first.checkpoint, first.settings),
            on_step=on_step,
            on_epoch=on_epoch,
        )
    distributed.barrier()  # the main process must not write the result while others still look for one
    if not distributed.is_main_process():
        return {}
    sets = evaluation_sets(splits, test_set, run.settings["scale"])
    results = {}
    for run in runs:
        log(f"{run}: evaluating {sum(map(len, sets.values())):,} images")
        logits, train_labels = predict_logits(learner, run.recipe, sets, device), sets["train"].labels
        result = {
            **history,
            **{f"{name}_logits": values.numpy() for name, values in logits.items() if name != "train"},
            "clean_train_accuracy": evaluation.accuracy(logits["train"], train_labels).numpy(),
            "clean_train_loss": evaluation.cross_entropy(logits["train"], train_labels).numpy(),
            "settings": np.array(json.dumps(run.settings)),
            **origin,
        }
        if run.weights:
            checkpoints.save(run.weights, {name: value.cpu() for name, value in learner.weights().items()})
        tables.save_arrays(run.result, result)  # last: it marks the run as finished
        results[run.config, run.seed] = result
    return results


def trained_elsewhere(run, parts, path):
    """Return (learner, history, origin) of the same training by main.py, whose run's file is `path`.

    origin: `git_commit` and `started` of that training.
    """
    learner, _, _ = build(run.model, run.recipe, run.seed, parts["train"], run.backend)
    weights = result_files.weights_path(path.parent.parent, run.seed)
    learner.load_weights(checkpoints.load(weights, "file of weights", "remove it, and the run is trained"))
    result = tables.load_arrays(path)
    history = {name: values for name, values in result.items() if name not in result_files.NOT_HISTORY}
    return learner, history, {name: result[name] for name in result_files.ORIGIN if name in result}
