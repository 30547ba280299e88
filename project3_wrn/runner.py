"""Train configurations with seeds, one run at a time: what main.py and the studies share.

A configuration is a pair (model, recipe), a run one configuration with one seed. A finished run is a file,
`runs/<config>-<seed>.npz`, and is not trained again. An interrupted run resumes from its checkpoint. A failed run is
listed at the end and does not stop the others.
"""

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import cli, data, evaluation, tables
from common.support import checkpoints, plan
from common.support.errors import UserError, first_line, out_of_memory
from common.support.progress import Progress, epoch_reporter
from project3_wrn.analysis import result_tables, study_tables
from project3_wrn.method import distributed
from project3_wrn.method.recipes import Recipe
from project3_wrn.method.train import Backend, evaluation_sets, make_splits, predict_logits, train

QUICK = dict(epochs=1, batch_size=64)
IMAGE_SIZE = 32  # pixels per side
SHARED_SETTINGS = ("scale", "precision", "convolutions", "processes")  # of all runs of one start, as in run.json
NOT_HISTORY = ("test_logits", "val_logits", "clean_train_accuracy", "clean_train_loss", "settings", "git_commit")


# --- a study, from its command line to its tables ---


def parse(description, folder, study, seeds):
    """Return the Options of a study's command line; its results go to the folder `study` below the outputs."""
    parser = cli.make_parser(description, seeds)
    cli.add_convolutions(parser)
    return cli.resolve_options(parser.parse_args(), folder, seeds, name=study)


def configure(configs, options):
    """Return the configurations with what quick scale, --epochs and --batch-size change in their recipes."""
    flags = {name: value for name in ("epochs", "batch_size") if (value := getattr(options, name))}
    changes = {**(QUICK if options.scale == "quick" else {}), **flags}
    return {config: (model, dataclasses.replace(recipe, **changes)) for config, (model, recipe) in configs.items()}


def run_study(configs, options, write_results, *, save=None, splits=None, save_weights=False, complete=False):
    """Train every configuration with every seed, save what came out, and write tables and figures.

    With --redraw, only write tables and figures; with --plan, only print the runs and what they cost.

    configs: {name: (model, recipe)}.
    write_results: (folder, options) -> None, from what `save` has written there and nothing else.
    save: (configs, {(config, seed): result}, options, (train set, test set, source)) -> None; by default `save_study`.
    splits: (config, train set) -> {"train": Dataset, "val": Dataset}; by default the recipe's split.
    save_weights: write weights-<seed>.pt too, for a study of one configuration.
    complete: save nothing where a run failed.

    Raises:
        UserError: runs failed. The tables have the others.
    """
    if options.plan:
        plan.show(options.command.split()[1], plan_rows(configs, options), options.scale, options.device)
        return
    with distributed.process_group(options.device) as device:
        is_main = distributed.is_main_process()
        with cli.output_folder(options) if is_main else contextlib.nullcontext():
            failed = []
            if not options.redraw:
                dataset = data.load(options.scale, options.data)
                runs = make_runs(configs, options, save_weights)
                results, failed = train_all(runs, options, dataset, device, splits)
                if complete or not results:
                    raise_if_failed(failed, "No results are written")
                if is_main:
                    (save or save_study)(configs, results, options, dataset)
            if is_main:
                write_results(options.out, options)
                raise_if_failed(failed, "The tables have the others")
                print(f"results: {options.out}")


def plan_rows(configs, options):
    """Return one row per configuration for common/support/plan.py, all its seeds together."""
    rows = []
    for config, (model, recipe) in configs.items():
        train_images, held_out, _ = plan.image_counts(options.scale, recipe.validation_split)
        # the last pass may end early, and an image of fewer pixels costs less
        passes = recipe.epochs - 1 + recipe.last_epoch_fraction
        saved = min(recipe.low_res_epochs, passes) * (1 - (recipe.low_res_size / IMAGE_SIZE) ** 2)
        rows.append(
            {
                "name": config,
                "model": model,
                "seeds": len(options.seeds),
                "epochs": recipe.epochs,
                "batch_size": recipe.batch_size,
                "members": len(options.seeds),
                "stacked": False,
                "train": train_images,
                "evaluated": held_out,
                "passes": passes - saved,
                "speed": plan.WINOGRAD if options.convolutions == "winograd" else 1,
            }
        )
    return rows


# --- training ---


@dataclass(frozen=True)
class Run:
    """One configuration with one seed, and where its files are."""

    config: str
    model: str
    recipe: Recipe
    seed: int
    path: Path  # of its result
    checkpoint: Path
    weights: Path | None  # None: they are not saved

    def __str__(self):
        return f"{self.config}, seed {self.seed}"


def make_runs(configs, options, save_weights=False):
    """Return the runs of a study in the order of training: all configurations with one seed, then with the next."""
    return [
        Run(
            config,
            model,
            recipe,
            seed,
            path=result_path(options.out, config, seed),
            checkpoint=options.out / "checkpoints" / f"{config}-{seed}.pt",
            weights=weights_path(options.out, seed) if save_weights else None,
        )
        for seed in options.seeds
        for config, (model, recipe) in configs.items()
    ]


def train_all(runs, options, dataset, device, splits=None):
    """Train all runs that are not finished; return ({(config, seed): result}, one line per failed run).

    Raises:
        UserError: a run failed that other processes train too.
    """
    train_set, test_set, _ = dataset
    is_main = distributed.is_main_process()
    if options.fresh and is_main:
        # all of them before the first run, so that the same command without --fresh can resume
        for path in options.out.glob("runs/*.npz"):
            path.unlink()
    distributed.barrier()  # before any process looks for a result
    results, failed = {}, []
    with Progress(sum(run.recipe.epochs for run in runs), options.out.name, quiet=not is_main) as progress:
        for run in runs:
            report_progress = epoch_reporter(progress.advance, str(run), resumed=checkpoints.exists(run.checkpoint))
            sets = splits(run.config, train_set) if splits else make_splits(run.recipe, train_set)
            try:
                results[run.config, run.seed] = train_run(
                    run, sets, test_set, options, device, report_progress, progress.log
                )
                if is_main and not options.keep_checkpoints:
                    checkpoints.discard(run.checkpoint)
            except (UserError, RuntimeError) as error:
                if distributed.world_size() > 1:
                    raise  # the other processes would wait for this one
                failed.append(f"{run.config} with seed {run.seed} ({explain(error)})")
                progress.log(f"failed, and left out: {failed[-1]}")
            report_progress(run.recipe.epochs, skipped=True)  # finished before, stopped early, or failed
    # as the tables list them: all seeds of one configuration, then those of the next
    order = list(dict.fromkeys(run.config for run in runs))
    return dict(sorted(results.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))), failed


def train_run(run, splits, test_set, options, device, report_progress, log):
    """Train a run, or resume it, or read it back; return its result, in all processes but the main one {}.

    A result is the arrays of a run's file: `test_logits` (10000, 10) and, with a validation set, `val_logits`, both by
    the recipe's test-time augmentation; `clean_train_accuracy` (per cent) and `clean_train_loss` (nats) in evaluation
    mode; the history of common/training.py; `settings` as JSON and `git_commit`.

    Raises:
        UserError: the run's file or checkpoint has other settings, or the training diverged.
    """
    start = {**vars(options), "processes": distributed.world_size()}
    settings = run_settings(run.model, dataclasses.asdict(run.recipe), run.seed, start)
    if (result := read_finished(run.path, settings)) is not None:
        log(f"{run}: finished earlier, at commit {str(result['git_commit'])[:7]}; --fresh trains it again")
        return result

    def on_epoch(epoch, history):
        validation = f", validation {history['val_accuracy'][-1]:.2f}%" if "val_accuracy" in history else ""
        loss = f"loss {history['epoch_losses'][-1]:.3f}"
        report_progress(epoch, f"{run}, epoch {epoch}/{run.recipe.epochs}, {loss}{validation}")

    learner, history = train(
        run.model,
        run.recipe,
        run.seed,
        {name: part.to(device) for name, part in splits.items()},
        # on a CPU, compiling slows bf16 and Winograd's convolutions down and costs minutes
        Backend(options.precision, options.convolutions, compiled=options.device == "cuda" and options.scale == "full"),
        checkpoint=checkpoints.Checkpoint(run.checkpoint, settings),
        on_step=report_progress,
        on_epoch=on_epoch,
    )
    distributed.barrier()  # before the main process writes the result, which the others must not find instead
    if not distributed.is_main_process():
        return {}
    sets = evaluation_sets(splits, test_set, options.scale)
    log(f"{run}: evaluating {sum(map(len, sets.values())):,} images")
    logits, train_labels = predict_logits(learner, run.recipe, sets, device), sets["train"].labels
    result = {
        **history,
        **{f"{name}_logits": values.numpy() for name, values in logits.items() if name != "train"},
        "clean_train_accuracy": evaluation.accuracy(logits["train"], train_labels).numpy(),
        "clean_train_loss": evaluation.cross_entropy(logits["train"], train_labels).numpy(),
        "settings": np.array(json.dumps(settings)),
        "git_commit": np.array(options.git_commit or "none"),
    }
    if run.weights:
        checkpoints.save(run.weights, {name: value.cpu() for name, value in learner.weights().items()})
    tables.save_arrays(run.path, result)  # last: it marks the run as finished
    return result


def read_finished(path, settings):
    """Return the result of a finished run; None where it has no file, or a damaged one, which is removed.

    Raises:
        UserError: it has other settings.
    """
    if not path.exists():
        return None
    try:
        result = tables.load_arrays(path)
    except UserError as problem:
        if distributed.is_main_process():
            print(f"trained again: {problem}", flush=True)
            path.unlink()
        return None
    if changes := result_changes(result, settings):
        raise UserError(
            f"{path} has other settings ({changes}); remove it, start over with --fresh, or choose another folder"
            " with --out"
        )
    return result


def run_settings(model, recipe, seed, start):
    """Return the settings that a file or checkpoint must have to belong to this run.

    recipe: its fields. start: a dict with SHARED_SETTINGS, such as run.json.
    """
    return {"model": model, **recipe, "seed": seed, **{name: start.get(name) for name in SHARED_SETTINGS}}


def result_changes(result, settings):
    """Name the settings that a result was not made with, as `checkpoints.setting_changes` does; empty if none."""
    try:
        return checkpoints.setting_changes(json.loads(str(result["settings"])), settings)
    except (KeyError, ValueError):
        return "it was written by another version"


def explain(error):
    """Return one line on why a run failed."""
    if out_of_memory(error):
        return "out of memory; lower --batch-size"
    return str(error) if isinstance(error, UserError) else first_line(error)


def raise_if_failed(failed, consequence):
    """Raise UserError that names the failed runs, if there are any, and what follows for the tables."""
    if failed:
        raise UserError(f"{len(failed)} failed: {'; '.join(failed)}. {consequence}; rerun the command to try again")


# --- files ---


def result_path(folder, config, seed):
    return folder / "runs" / f"{config}-{seed}.npz"


def weights_path(folder, seed):
    return folder / f"weights-{seed}.pt"


def write_run_json(results, options, source, **facts):
    """Write run.json, with the commit of every run: a study that was resumed may have several."""
    commits = sorted({str(result["git_commit"]) for result in results.values()})
    cli.write_run_json(options, source, processes=distributed.world_size(), trained_by=commits, **facts)


def describe(configs):
    """Return {config: {"model": ..., every field of its recipe}}, as run.json has it."""
    return {config: {"model": model, **dataclasses.asdict(recipe)} for config, (model, recipe) in configs.items()}


def save_study(configs, results, options, dataset, more_columns=None):
    """Write a study's run.json and results.csv. Without CUDA a study is a shortened one, which run.json says.

    more_columns: (test logits, test labels) -> {column: value}.
    """
    train_set, test_set, source = dataset
    shortened = options.device != "cuda"
    write_run_json(results, options, source, shortened=shortened, configs=describe(configs))
    val_labels = train_set.labels[data.train_val_split(train_set.labels)[1]]
    rows = study_tables.result_rows(results, test_set.labels, val_labels, more_columns)
    study_tables.write_result_rows(options.out, rows)


def save_network(configs, results, options, dataset):
    """Write what main.py makes its tables and figures from: metrics.json, loss_history.npz, logits.npz, run.json."""
    train_set, test_set, source = dataset
    labels, arrays = {"test": test_set.labels}, {}
    if options.recipe.validation_split:
        train_indices, val_indices = data.train_val_split(train_set.labels)
        labels["val"] = train_set.labels[val_indices]
        arrays = {"train_indices": train_indices.numpy(), "val_indices": val_indices.numpy()}
    arrays.update({f"{name}_labels": values.numpy() for name, values in labels.items()})
    parameters, flops = study_tables.model_size(options.model)
    histories, metrics = {}, []
    for (config, seed), result in results.items():
        arrays.update({f"{seed}/{name}": result[f"{name}_logits"] for name in labels})
        histories[config, seed] = {name: values for name, values in result.items() if name not in NOT_HISTORY}
        entry = result_tables.metrics_entry(seed, result, labels)
        metrics.append({**entry, "parameters": parameters, "flops": flops})
    cli.write_json(options.out / "metrics.json", metrics)
    tables.save_histories(options.out / "loss_history.npz", histories)
    tables.save_arrays(options.out / "logits.npz", arrays)
    recipe = dataclasses.asdict(options.recipe)
    write_run_json(results, options, source, model=options.model, recipe=recipe)


def load_results(folder, run_json):
    """Return {(config, seed): result} of the finished runs among the configurations and seeds in run.json."""
    results = {}
    for config, fields in run_json["configs"].items():
        recipe = {name: value for name, value in fields.items() if name != "model"}
        for seed in run_json["seeds"]:
            path = result_path(folder, config, seed)
            settings = run_settings(fields["model"], recipe, seed, run_json)
            if path.exists() and not result_changes(result := tables.load_arrays(path), settings):
                results[config, seed] = result
    return results


def load_labels(scale, folder):
    """Return (validation labels, test labels) of this scale."""
    train_set, test_set, _ = data.load(scale, folder)
    return train_set.labels[data.train_val_split(train_set.labels)[1]], test_set.labels
