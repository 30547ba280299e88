"""The files of a study: one per run, and what its tables and figures are made from."""

import dataclasses
import json

import numpy as np

from common import cli, data, tables
from common.support import checkpoints
from common.support.errors import UserError, reading
from project3_wrn.analysis import result_tables, study_tables
from project3_wrn.method import distributed
from project3_wrn.method.recipes import TEST_TIME_FIELDS

# all runs of one start share these settings; run.json has them too
SHARED_SETTINGS = ("scale", "precision", "convolutions", "processes")
# a result has these next to its history
ORIGIN = ("git_commit", "started")  # where and when a run was trained
NOT_HISTORY = ("test_logits", "val_logits", "clean_train_accuracy", "clean_train_loss", "settings", *ORIGIN)


def result_path(folder, config, seed):
    """Return where a run's result is."""
    return folder / "runs" / f"{config}-{seed}.npz"


def weights_path(folder, seed):
    """Return where main.py saves the weights of a network."""
    return folder / f"weights-{seed}.pt"


# --- the file of a run ---


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


def run_settings(model, recipe, seed, start, split=None):
    """Return the settings that a file or checkpoint must have to belong to this run.

    recipe: its fields. start: a dict with SHARED_SETTINGS, such as run.json. split: what the images that it holds out
    are called, where they are not those of the recipe's split.
    """
    shared = {name: start.get(name) for name in SHARED_SETTINGS}
    return {"model": model, **recipe, "seed": seed, **shared, **({"split": split} if split else {})}


def training_key(settings):
    """Return a text that two settings share if they are one training, whatever is done at test time."""
    return json.dumps(
        {name: settings[name] for name in sorted(settings) if name not in TEST_TIME_FIELDS}, sort_keys=True
    )


def saved_settings(path):
    """Return the settings of a run's file, without reading its other arrays; {} where it has none or is damaged."""
    try:
        settings = json.loads(str(tables.load_arrays(path, ["settings"])["settings"]))
    except (UserError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def find_run(run):
    """Return (folder, result) of a run that another script of the same outputs has trained with the same settings.

    Of main.py the committed files are enough, which a clone has without runs/. None where there is no such run.
    """
    wanted = json.loads(json.dumps(run.settings))
    for path in (*other_runs(run), *sorted(run.result.parents[2].glob("*/metrics.json"))):
        try:
            with reading(path.parent):
                if found := _load_same(path, run.seed, wanted):
                    return found
        except UserError as problem:  # the run is trained, as where there is none
            if distributed.is_main_process():
                print(f"left out: {problem}", flush=True)
    return None


def _load_same(path, seed, wanted):
    """Return (folder, result) of a run's file, or of the network of a metrics.json; None with other settings."""
    if path.suffix == ".npz":
        return (path.parents[1], tables.load_arrays(path)) if saved_settings(path) == wanted else None
    run_json = cli.read_json(path.parent / "run.json")
    if seed not in run_json["seeds"] or network_settings(run_json, seed) != wanted:
        return None
    return path.parent, load_network_run(path.parent, run_json, seed)


def find_weights(run):
    """Return the file of a run by main.py that is the same training, and whose weights it has saved, or None."""
    for path in other_runs(run):
        settings = saved_settings(path)
        same = settings and training_key(settings) == training_key(run.settings)
        if same and weights_path(path.parents[1], run.seed).exists():
            return path
    return None


def other_runs(run):
    """Return the files of all runs with the same seed in the other folders of the same outputs."""
    own = run.result.parents[1]
    return [path for path in sorted(own.parent.glob(f"*/runs/*-{run.seed}.npz")) if path.parents[1] != own]


def result_changes(result, settings):
    """Name the settings that a result was not made with, as `checkpoints.setting_changes` does; empty if none."""
    try:
        return checkpoints.setting_changes(json.loads(str(result["settings"])), settings)
    except (UserError, KeyError, ValueError):
        return "it was written by another version"


# --- the files of a study ---


def write_run_json(results, options, source, **facts):
    """Write run.json, with commit, start and seconds of every run: those of a study may be weeks apart."""
    runs = [
        {
            "config": config,
            "seed": seed,
            **{name: str(result[name]) for name in ORIGIN if name in result},
            "seconds": round(tables.training_seconds(result), 1),
        }
        for (config, seed), result in results.items()
    ]
    cli.write_run_json(options, source, processes=distributed.world_size(), runs=runs, **facts)


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
    study_tables.write_result_rows(options.out, rows, options.scale, shortened)


def save_network(configs, results, options, dataset):
    """Write what main.py makes its tables and figures from: metrics.json, loss_history.npz, logits.npz, run.json.

    configs: one configuration.
    """
    train_set, test_set, source = dataset
    ((model, recipe),) = configs.values()
    labels, arrays = {"test": test_set.labels}, {}
    if recipe.validation_split:
        train_indices, val_indices = data.train_val_split(train_set.labels)
        labels["val"] = train_set.labels[val_indices]
        arrays = {"train_indices": train_indices.numpy(), "val_indices": val_indices.numpy()}
    arrays.update({f"{name}_labels": values.numpy() for name, values in labels.items()})
    parameters, flops = study_tables.model_size(model)
    histories, metrics = {}, []
    for (config, seed), result in results.items():
        arrays.update({f"{seed}/{name}": result[f"{name}_logits"] for name in labels})
        histories[config, seed] = {name: values for name, values in result.items() if name not in NOT_HISTORY}
        entry = result_tables.metrics_entry(seed, result, labels)
        metrics.append({**entry, "parameters": parameters, "flops": flops})
    cli.write_json(options.out / "metrics.json", metrics)
    tables.save_histories(options.out / "loss_history.npz", histories, next(iter(histories)))
    tables.save_arrays(options.out / "logits.npz", arrays)
    write_run_json(results, options, source, model=model, recipe=dataclasses.asdict(recipe))


def load_results(folder, run_json):
    """Return {(config, seed): result} of the finished runs among the configurations and seeds in run.json."""
    results = {}
    for config, fields in run_json["configs"].items():
        recipe = {name: value for name, value in fields.items() if name != "model"}
        for seed in run_json["seeds"]:
            path = result_path(folder, config, seed)
            split = saved_settings(path).get("split") if path.exists() else None
            settings = run_settings(fields["model"], recipe, seed, run_json, split)
            if path.exists() and not result_changes(result := tables.load_arrays(path), settings):
                results[config, seed] = result
    return results


def network_settings(run_json, seed):
    """Return the settings of one run of main.py's outputs."""
    return run_settings(run_json["model"], run_json["recipe"], seed, run_json)


def load_network_logits(folder, model):
    """Return {(model, seed): {"test_logits": ..., "val_logits": ...}} of main.py's outputs."""
    results = {}
    for key, logits in tables.load_arrays(folder / "logits.npz").items():
        if "/" in key:
            seed, name = key.split("/")
            results.setdefault((model, int(seed)), {})[f"{name}_logits"] = logits
    return results


def load_network_run(folder, run_json, seed):
    """Return the result of one run from what main.py's tables and figures are made from; its losses per batch may lack.

    Its origin is that of the run, or of the folder where run.json lists no runs.
    """
    model = run_json["model"]
    (entry,) = [entry for entry in cli.read_json(folder / "metrics.json", list) if entry["seed"] == seed]
    listed = [one for one in run_json.get("runs", []) if one["seed"] == seed] or [run_json]
    return {
        **tables.load_histories(folder / "loss_history.npz", [model])[model, seed],
        **load_network_logits(folder, model)[model, seed],
        "clean_train_accuracy": np.array(entry["train_accuracy"], np.float32),
        "clean_train_loss": np.array(entry["train_loss"], np.float32),
        "settings": np.array(json.dumps(network_settings(run_json, seed))),
        **{name: np.array(listed[0][name]) for name in ORIGIN if listed[0].get(name)},
    }


def load_labels(scale, folder):
    """Return (validation labels, test labels, where the data came from) of this scale."""
    train_set, test_set, source = data.load(scale, folder)
    return train_set.labels[data.train_val_split(train_set.labels)[1]], test_set.labels, source
