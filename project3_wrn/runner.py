"""Train configurations with seeds, one run at a time: what main.py and the studies share.

A configuration is a pair (model, recipe), a run one configuration with one seed. A finished run is a file,
`runs/<config>-<seed>.npz`, and is not trained again. An interrupted run resumes from its checkpoint. A failed run is
listed at the end and does not stop the others.
"""

import contextlib
import dataclasses
import json

import numpy as np

from common import cli, data, evaluation, tables
from common.support import checkpoints, plan
from common.support.errors import UserError, first_line, out_of_memory
from common.support.progress import Progress, epoch_reporter
from project3_wrn.analysis import result_tables, study_tables
from project3_wrn.method import distributed
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
    save: (configs, runs, options, (train set, test set, source)) -> None; by default `save_study`.
    splits: (config, recipe, train set) -> what to train on and what to validate on; by default the recipe's split.
    save_weights: write weights-<seed>.pt too, for a study of one configuration.
    complete: save nothing where a run failed.

    Raises:
        UserError: runs failed. The tables have the others.
    """
    if options.plan:
        plan.show(f"project3_wrn, {options.out.name}", plan_rows(configs, options), options)
        return
    with distributed.process_group(options.device) as device:
        is_main = distributed.is_main_process()
        with cli.output_folder(options) if is_main else contextlib.nullcontext():
            failed = []
            if not options.redraw:
                dataset = data.load(options.scale, options.data)
                runs, failed = train_all(configs, options, dataset, device, splits, save_weights)
                if complete or not runs:
                    raise_if_failed(failed, "No results are written")
                if is_main:
                    (save or save_study)(configs, runs, options, dataset)
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


def train_all(configs, options, dataset, device, splits=None, save_weights=False):
    """Return ({(config, seed): run as `train_run` returns it}, one line per failed run).

    Raises:
        UserError: every run failed; or one did, and other processes train it too.
    """
    train_set, test_set, _ = dataset
    if options.fresh and distributed.is_main_process():
        # all of them before the first run, so that the same command without --fresh can resume
        for path in options.out.glob("runs/*.npz"):
            path.unlink()
    distributed.barrier()  # before any process looks for a finished run
    runs, failed = {}, []
    epochs = sum(recipe.epochs for _, recipe in configs.values()) * len(options.seeds)
    with Progress(epochs, options.out.name, quiet=not distributed.is_main_process()) as progress:
        for seed in options.seeds:
            for config, (model, recipe) in configs.items():
                name = f"{config}, seed {seed}"
                resumed = checkpoints.exists(checkpoint_path(options.out, config, seed))
                report_progress = epoch_reporter(progress.advance, name, resumed=resumed)
                sets = splits(config, recipe, train_set) if splits else make_splits(recipe, train_set)
                try:
                    runs[config, seed] = train_run(
                        config,
                        model,
                        recipe,
                        seed,
                        sets,
                        test_set,
                        options,
                        device,
                        report_progress=report_progress,
                        log=progress.log,
                        save_weights=save_weights,
                    )
                except (UserError, RuntimeError) as error:
                    if distributed.world_size() > 1:
                        raise  # the other processes would wait for this one
                    failed.append(f"{config} with seed {seed} ({explain(error)})")
                    progress.log(f"failed, and left out: {failed[-1]}")
                else:
                    if distributed.is_main_process() and not options.keep_checkpoints:
                        checkpoints.discard(checkpoint_path(options.out, config, seed))
                report_progress(recipe.epochs, skipped=True)  # finished before, stopped early, or failed
    # in the order of the tables: all seeds of one configuration, then those of the next
    return {
        (config, seed): runs[config, seed] for config in configs for seed in options.seeds if (config, seed) in runs
    }, failed


def train_run(
    config, model, recipe, seed, splits, test_set, options, device, *, report_progress, log, save_weights=False
):
    """Train one run, or resume it, or read it back; return the arrays of its file.

    These are `test_logits` (10000, 10) and, with a validation set, `val_logits`, both by the recipe's test-time
    augmentation; `clean_train_accuracy` (per cent) and `clean_train_loss` (nats) in evaluation mode; the history of
    common/training.py; `settings` as JSON and `git_commit`.

    Raises:
        UserError: the run's file or checkpoint has other settings, or the training diverged.
    """
    path = run_path(options.out, config, seed)
    start = {**vars(options), "processes": distributed.world_size()}
    settings = run_settings(model, dataclasses.asdict(recipe), seed, start)
    if (run := read_finished(path, settings)) is not None:
        return run

    def on_epoch(epoch, history):
        validation = f", validation {history['val_accuracy'][-1]:.2f}%" if "val_accuracy" in history else ""
        loss = history["epoch_losses"][-1]
        report_progress(epoch, f"{config}, seed {seed}, epoch {epoch}/{recipe.epochs}, loss {loss:.3f}{validation}")

    learner, history = train(
        model,
        recipe,
        seed,
        {name: part.to(device) for name, part in splits.items()},
        # on a CPU, compiling slows bf16 and Winograd's convolutions down and costs minutes
        Backend(options.precision, options.convolutions, compiled=options.device == "cuda" and options.scale == "full"),
        checkpoint=checkpoints.Checkpoint(checkpoint_path(options.out, config, seed), settings),
        on_step=report_progress,
        on_epoch=on_epoch,
    )
    distributed.barrier()  # every process has read the checkpoint, and none has looked for the finished run since
    if not distributed.is_main_process():
        return {}
    sets = evaluation_sets(splits, test_set, options.scale)
    log(f"{config}, seed {seed}: evaluating {sum(map(len, sets.values())):,} images")
    logits = predict_logits(learner, recipe, sets, device)
    train_labels = sets["train"].labels
    run = {
        **history,
        **{f"{name}_logits": values.numpy() for name, values in logits.items() if name != "train"},
        "clean_train_accuracy": evaluation.accuracy(logits["train"], train_labels).numpy(),
        "clean_train_loss": evaluation.cross_entropy(logits["train"], train_labels).numpy(),
        "settings": np.array(json.dumps(settings)),
        "git_commit": np.array(options.git_commit or "none"),
    }
    if save_weights:
        weights = {name: value.cpu() for name, value in learner.weights().items()}
        checkpoints.save(weights_path(options.out, seed), weights)
    tables.save_arrays(path, run)  # last: it marks the run as finished
    return run


def read_finished(path, settings):
    """Return the arrays of a finished run; None where it has no file, or a damaged one, which is removed.

    Raises:
        UserError: it has other settings.
    """
    if not path.exists():
        return None
    try:
        run = tables.load_arrays(path)
    except UserError as problem:
        if distributed.is_main_process():
            print(f"trained again: {problem}", flush=True)
            path.unlink()
        return None
    if differences := setting_differences(run, settings):
        raise UserError(
            f"{path} has other settings ({differences}); remove it, start over with --fresh, or choose another folder"
            " with --out"
        )
    return run


def run_settings(model, recipe, seed, start):
    """Return the settings that a file or checkpoint must have to belong to this run.

    recipe: its fields. start: a dict with SHARED_SETTINGS, such as run.json.
    """
    return {"model": model, **recipe, "seed": seed, **{name: start.get(name) for name in SHARED_SETTINGS}}


def setting_differences(run, settings):
    """Return text that names each setting in which a run's file differs; empty if there is none."""
    try:
        saved = json.loads(str(run["settings"]))
    except (KeyError, ValueError):
        return "it was written by another version"
    differing = [name for name in {**saved, **settings} if saved.get(name) != settings.get(name)]
    return "; ".join(f"{name} was {saved.get(name)}, is {settings.get(name)}" for name in differing)


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


def run_path(folder, config, seed):
    return folder / "runs" / f"{config}-{seed}.npz"


def checkpoint_path(folder, config, seed):
    return folder / "checkpoints" / f"{config}-{seed}.pt"


def weights_path(folder, seed):
    return folder / f"weights-{seed}.pt"


def write_run_json(runs, options, source, **facts):
    """Write run.json, with the commit of every run: a study that was resumed may have several."""
    commits = sorted({str(run["git_commit"]) for run in runs.values()})
    cli.write_run_json(options, source, processes=distributed.world_size(), trained_by=commits, **facts)


def describe(configs):
    """Return {config: {"model": ..., every field of its recipe}}, as run.json has it."""
    return {config: {"model": model, **dataclasses.asdict(recipe)} for config, (model, recipe) in configs.items()}


def save_study(configs, runs, options, dataset, more_columns=None):
    """Write a study's run.json and results.csv. Without CUDA a study is a shortened one, which run.json says.

    more_columns: (test logits, test labels) -> {column: value}.
    """
    train_set, test_set, source = dataset
    shortened = options.device != "cuda"
    write_run_json(runs, options, source, shortened=shortened, configs=describe(configs))
    val_labels = train_set.labels[data.train_val_split(train_set.labels)[1]]
    rows = study_tables.result_rows(runs, test_set.labels, val_labels, more_columns)
    study_tables.write_result_rows(options.out, rows)


def save_network(configs, runs, options, dataset):
    """Write what main.py makes its results from: metrics.json, loss_history.npz, logits.npz and run.json."""
    train_set, test_set, source = dataset
    labels = {"test": test_set.labels}
    arrays = {"test_labels": test_set.labels.numpy()}
    if options.recipe.validation_split:
        train_indices, val_indices = data.train_val_split(train_set.labels)
        labels["val"] = train_set.labels[val_indices]
        arrays["train_indices"], arrays["val_indices"] = train_indices.numpy(), val_indices.numpy()
        arrays["val_labels"] = labels["val"].numpy()
    for (_, seed), run in runs.items():
        arrays.update({f"{seed}/{name}": run[f"{name}_logits"] for name in labels})
    histories = {
        key: {name: values for name, values in run.items() if name not in NOT_HISTORY} for key, run in runs.items()
    }
    parameters, flops = study_tables.model_size(options.model)
    metrics = [result_tables.metrics_entry(seed, run, labels) for (_, seed), run in runs.items()]
    cli.write_json(
        options.out / "metrics.json", [{**entry, "parameters": parameters, "flops": flops} for entry in metrics]
    )
    tables.save_histories(options.out / "loss_history.npz", histories)
    tables.save_arrays(options.out / "logits.npz", arrays)
    recipe = dataclasses.asdict(options.recipe)
    write_run_json(runs, options, source, model=options.model, recipe=recipe)


def load_runs(folder, run_json):
    """Return {(config, seed): arrays} of the finished runs of the configurations and seeds in run.json."""
    runs = {}
    for config, fields in run_json["configs"].items():
        for seed in run_json["seeds"]:
            path = run_path(folder, config, seed)
            recipe = {name: value for name, value in fields.items() if name != "model"}
            settings = run_settings(fields["model"], recipe, seed, run_json)
            if path.exists() and not setting_differences(run := tables.load_arrays(path), settings):
                runs[config, seed] = run
    return runs


def load_labels(scale, folder):
    """Return (validation labels, test labels) of this scale."""
    train_set, test_set, _ = data.load(scale, folder)
    return train_set.labels[data.train_val_split(train_set.labels)[1]], test_set.labels
