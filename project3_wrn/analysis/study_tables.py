"""What all studies share: results.csv, one row per run, the stamp of a short run, and sentences in both languages."""

import torch

from common import evaluation, plots, tables
from common.models import MODELS, forward_flops, parameter_count
from common.support.translations import Text, label, text

SHORT = "short run"  # of a study: not the report's epochs or network


def result_rows(results, test_labels, val_labels=None, more_columns=None):
    """Return one row per run: accuracies in per cent, seconds of training, and what `more_columns` adds.

    train_accuracy is that of the kept epoch's augmented batches, as in the report; clean_train_accuracy is that of the
    kept weights in evaluation mode.
    """
    rows = []
    for (config, seed), result in results.items():
        test_logits = torch.from_numpy(result["test_logits"]).float()
        row = {
            "config": config,
            "seed": seed,
            "test_accuracy": float(evaluation.accuracy(test_logits, test_labels)),
            "test_loss": float(evaluation.cross_entropy(test_logits, test_labels)),
        }
        if "val_logits" in result and val_labels is not None:
            row["val_accuracy"] = float(evaluation.accuracy(torch.from_numpy(result["val_logits"]), val_labels))
        best_epoch = int(result["kept_epoch"])
        rows.append(
            {
                **row,
                "epochs": len(result["epoch_losses"]),
                "best_epoch": best_epoch,
                "train_accuracy": float(result["train_accuracy"][best_epoch - 1]),
                "clean_train_accuracy": float(result["clean_train_accuracy"]),
                "seconds": tables.training_seconds(result),
                **(more_columns(test_logits, test_labels) if more_columns else {}),
            }
        )
    return rows


def write_result_rows(folder, rows, scale, shortened):
    """Write results.csv, with four decimals; its column `scale` says quick, short or full."""
    scale = "short" if shortened and scale == "full" else scale
    rounded = [{name: f"{v:.4f}" if isinstance(v, float) else v for name, v in row.items()} for row in rows]
    rounded = [{"scale": scale, **row} for row in rounded]
    tables.write_csv(folder / "results.csv", rounded)


def read_result_rows(folder):
    """Return the rows of results.csv: `scale` and `config` as text, the rest as numbers."""
    rows = tables.read_csv(folder / "results.csv")
    return [
        {name: value if name in ("scale", "config") else float(value) for name, value in row.items() if value}
        for row in rows
    ]


def run_facts(model, seeds, epochs, scale, shortened=False):
    """Return what the results of runs depend on, as texts for `plots.about`.

    model, epochs: None where the runs differ in them. seeds: their number, or a text that names the only one, such as
    "seed 0". shortened: this is not the report's network or number of epochs, although the scale is full.
    """
    if not isinstance(seeds, str):
        seeds = plots.count(seeds, "seed")
    length = [plots.count(epochs, "epoch")] if epochs else []
    return *([model] if model else ()), seeds, *length, SHORT if shortened else f"{scale} scale"


def facts(run_json):
    """Return the `run_facts` of a study; the baseline's network and epochs stand for its changes'."""
    runs = run_json.get("members") or list(run_json["configs"].values())
    runs = [run_json["configs"]["baseline"]] if "baseline" in run_json.get("configs", ()) else runs
    models, epochs = ({run[name] for run in runs} for name in ("model", "epochs"))
    (model,), (number,) = (values if len(values) == 1 else (None,) for values in (models, epochs))
    return run_facts(model, len(run_json["seeds"]), number, run_json["scale"], is_short(run_json))


def is_short(run_json):
    """Return whether a study at full scale had not the report's epochs or network."""
    return run_json["scale"] == "full" and bool(run_json.get("shortened"))


def stamp(run_json):
    """Return, as a list, the paragraph that marks the page of a short run; empty where it is not one."""
    if not is_short(run_json):
        return []
    return [
        text(
            "**SHORT RUN** ({facts}; on {device}): it does not have the report's epochs or network, so none of its"
            " numbers is comparable with the report's.",
            facts=label(", ".join(fact for fact in facts(run_json) if fact != SHORT)),
            device=run_json["device"],
        )
    ]


def bullets(sentences):
    """Return a list of one item per sentence."""
    return Text(*("\n".join(f"- {one[language]}" for one in sentences) for language in (0, 1)))


def percent_correct(scores, labels):
    """Return the percentage of images whose label has the highest of the scores (N, classes), in double precision."""
    return float((scores.argmax(-1) == labels).double().mean() * 100)


def values_per_config(rows, field):
    """Return {config: float array over its seeds} of a column."""
    return tables.group_by_config((row["config"], row[field]) for row in rows if field in row)


def model_size(model):
    """Return (parameters, FLOPs of a forward pass) of a network."""
    network = MODELS[model]()
    return parameter_count(network), forward_flops(network)
