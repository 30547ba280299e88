"""Train every row of a study with every seed, run by run: what the scripts beside main.py share.

A row is (model, recipe). A finished run is a file, `<study>/runs/<row>-<seed>.npz`, and is not trained again; an unfinished one
resumes from its checkpoint; a failed run is listed at the end and does not stop the others.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from common import cli, data, evaluation, tables
from common.models import MODELS, forward_flops, parameter_count
from common.support import checkpoints, download, files
from common.support.errors import UserError, first_line
from common.support.progress import Progress, epoch_reporter
from project3_wrn.method.train import evaluation_sets, logits_of, make_splits, train


def main(description, task, study, seeds, make_configs, write_results, more=None):
    """A study from its command line to its tables, which are drawn from its results.csv and run.json alone.

    make_configs: (options) -> configs. write_results: (folder, options). more: (test logits, test labels) -> further columns of results.csv.
    """
    options = parse(description, task, study, seeds)
    failed = []
    with cli.output_lock(options.out):
        if not options.redraw:
            rows = configure(make_configs(options), options)
            failed = train_all(rows, options)
            if len(failed) == len(rows) * len(options.seeds):
                raise_if_failed(failed, "There is nothing to report on")
            results = finish(options, rows)
            val_labels, test_labels = load_labels(options.scale, options.data)
            write_result_rows(options.out / "results.csv", measure(results, test_labels, val_labels, more))
        write_results(options.out, options)
    raise_if_failed(failed, "The tables have the others")
    print(f"results: {options.out}")


def parse(description, task, study, seeds):
    """The options of a study's command line, its folder of outputs settled."""
    parser = cli.make_parser(description, seeds)
    cli.add_convolutions(parser)
    options = cli.resolve_options(parser.parse_args(), task, seeds)
    options.out /= study
    return options


def configure(rows, options):
    """The rows as the flags and the scale ask for them. Quick scale: one epoch in batches of 64."""
    asked = {name: value for name in ("epochs", "batch_size") if (value := getattr(options, name))}
    if options.scale == "quick":
        asked = {"epochs": 1, "batch_size": 64} | asked
    return {row: (model, dataclasses.replace(recipe, **asked)) for row, (model, recipe) in rows.items()}


def train_all(rows, options, fold_of=None):
    """Train what is not there yet; the list of what has failed.

    A run's file holds `test_logits` (10000, 10) and `val_logits` of the kept weights, `epoch_losses` and the other values an
    epoch of common/training.py, `clean_train_accuracy` and `clean_train_loss`, and the `settings` and code it was made with.
    fold_of: (row, labels) -> indices to train on and indices to hold out instead, whose logits are then `val_logits`.
    """
    images, options.source = download.images(options.scale, options.data)
    runs = [(row, seed) for seed in options.seeds for row in rows]
    failed = []
    if options.fresh:  # all before the first run, so that the same command without --fresh can resume
        for path in options.out.glob("runs/*.npz"):
            path.unlink()
        files.clear_checkpoints(options.out / "checkpoints")
    with Progress(sum(rows[row][1].epochs for row, _ in runs), Path(options.out).name) as progress:
        for row, seed in runs:
            model, recipe = rows[row]
            path = run_path(options.out, row, seed)
            settings = settings_of(model, dataclasses.asdict(recipe), seed, vars(options))
            tell = epoch_reporter(progress.advance, path.stem, resumed=checkpoints.there(checkpoint_path(path)))
            try:
                if not finished(path, settings):
                    train_one(path, settings, model, recipe, images, options, tell, fold_of)
                checkpoints.discard(checkpoint_path(path))
            except (UserError, RuntimeError) as error:
                failed.append(f"{row} with seed {seed} ({first_line(error)})")
                print(f"failed, and left out: {failed[-1]}", flush=True)
            tell(recipe.epochs, skipped=True)  # done before, stopped early, or failed
    return failed


def run_path(folder, row, seed):
    return Path(folder) / "runs" / f"{row}-{seed}.npz"


def finished(path, settings):
    """Whether this run is done. One whose file is damaged is not. Raises UserError where it was made with other settings."""
    if not path.exists():
        return False
    try:
        result = tables.load_arrays(path)
    except UserError as problem:
        print(f"trained again: {problem}", flush=True)
        path.unlink()
        return False
    if not made_with(result, settings):
        raise UserError(
            f"{path} is of other settings; remove it, start over with --fresh, or choose another folder with --out"
        )
    return True


def checkpoint_path(path):
    return path.parents[1] / "checkpoints" / f"{path.stem}.pt"


def train_one(path, settings, model, recipe, images, options, tell, fold_of):
    (train_images, test), device = images, torch.device(options.device)
    parts = make_splits(recipe, train_images)
    if fold_of:
        kept, held_out = fold_of(path.stem.rsplit("-", 1)[0], train_images.labels)
        parts = {"train": train_images[kept], "val": train_images[held_out]}
    measured = evaluation_sets(parts, test, options.scale)
    learner, history = train(
        model,
        recipe,
        settings["seed"],
        {name: part.to(device) for name, part in parts.items()},
        precision=options.precision,
        convolutions=options.convolutions,
        compiled=options.device == "cuda" and options.scale == "full",
        checkpoint=checkpoint_path(path),
        settings=settings,
        on_step=tell,
        on_epoch=lambda epoch, history: tell(epoch, f"{path.stem}, epoch {epoch}/{recipe.epochs}"),
    )
    logits = logits_of(learner, recipe, measured, device)
    result = {f"{name}_logits": logits[name].numpy() for name in logits if name != "train"}
    result |= {name: values for name, values in history.items() if not name.startswith("batch_")}
    result["clean_train_accuracy"] = evaluation.accuracy(logits["train"], measured["train"].labels).numpy()
    result["clean_train_loss"] = evaluation.cross_entropy(logits["train"], measured["train"].labels).numpy()
    result["settings"], result["git_commit"] = np.array(repr(settings)), np.array(options.git_commit or "none")
    tables.save_arrays(path, result)


def settings_of(model, recipe, seed, start):
    """Return what a run must have been made with. start: the options of a start as a dict, or its run.json."""
    # runs of before there was a choice of convolutions have no such setting
    how = {name: start[name] for name in ("scale", "precision", "convolutions") if name in start}
    return {"model": model, "recipe": recipe, "seed": seed} | how


def made_with(result, settings):
    """Whether the arrays of a run that is done were made with these settings."""
    return str(result.get("settings")) == repr(settings)


def saved(folder, run_json):
    """{(row, seed): result} of the finished runs of the rows and seeds that run.json names, trained as it says."""
    results = {}
    for row, seed in [(row, seed) for row in run_json["configs"] for seed in run_json["seeds"]]:
        path, recipe = run_path(folder, row, seed), dict(run_json["configs"][row])
        settings = settings_of(recipe.pop("model"), recipe, seed, run_json)
        if path.exists() and made_with(result := tables.load_arrays(path), settings):
            results[row, seed] = result
    return results


def load_labels(scale, folder):
    """(validation labels, test labels) as the runs of this scale saw them."""
    (train_images, test), _ = download.images(scale, folder)
    return train_images.labels[data.split(train_images.labels)[1]], test.labels


def measure(results, test_labels, val_labels=None, more=None):
    """One row a run and seed: accuracies in per cent, seconds of training, and what `more` adds.

    train_accuracy is of the kept epoch's augmented batches, as the report's is; clean_train_accuracy of its weights afterwards.
    """
    rows = []
    for (row, seed), result in results.items():
        test = torch.from_numpy(result["test_logits"]).float()
        entry = {"config": row, "seed": seed, "test_accuracy": float(evaluation.accuracy(test, test_labels))}
        entry["test_loss"] = float(evaluation.cross_entropy(test, test_labels))
        if "val_logits" in result and val_labels is not None:
            entry["val_accuracy"] = float(evaluation.accuracy(torch.from_numpy(result["val_logits"]), val_labels))
        entry["epochs"], entry["best_epoch"] = len(result["epoch_losses"]), int(result["kept_epoch"])
        entry["train_accuracy"] = float(result["train_accuracy"][entry["best_epoch"] - 1])
        entry["clean_train_accuracy"] = float(result["clean_train_accuracy"])
        entry["seconds"] = float(result["seconds"].astype(float).sum())
        rows.append(entry | (more(test, test_labels) if more else {}))
    return rows


def write_result_rows(path, measured):
    rounded = [{k: f"{v:.4f}" if isinstance(v, float) else v for k, v in entry.items()} for entry in measured]
    tables.write_csv(path, rounded)


def read_results(folder):
    """The rows of a results.csv: run as text, the rest as numbers."""
    rows = tables.read_csv(folder / "results.csv")
    return [{name: value if name == "config" else float(value) for name, value in row.items() if value} for row in rows]


def values_per_config(measured, field):
    """{run: float array over its seeds}."""
    values = {}
    for entry in measured:
        if field in entry:
            values.setdefault(entry["config"], []).append(entry[field])
    return {run: np.array(numbers) for run, numbers in values.items()}


def finish(options, rows):
    """Write run.json with the commit of every run (a resumed study may span several); return the finished runs.

    Without CUDA a study is a shortened one, and says so.
    """
    document = cli.provenance(options, options.source) | {"shortened": options.device != "cuda"}
    document["configs"] = {row: {"model": model} | dataclasses.asdict(recipe) for row, (model, recipe) in rows.items()}
    results = saved(options.out, document)
    document["trained_by"] = sorted({str(result.get("git_commit", "not recorded")) for result in results.values()})
    cli.write_json(options.out / "run.json", document)
    return results


def model_size(model):
    """(parameters, FLOPs of a forward pass)."""
    network = MODELS[model]()
    return parameter_count(network), forward_flops(network)


def raise_if_failed(failed, then):
    """Raises UserError that names the runs that failed, if any have; `then`: what that means for the tables."""
    if failed:
        raise UserError(f"{len(failed)} failed: {'; '.join(failed)}. {then}; run again to try these again")
