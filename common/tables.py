"""Histories on disk, and the tables made from them: CSV for programs, Markdown for readers.

`loss_history.npz` holds the arrays of common/training.py under the keys run/seed/field.
"""

import csv
import io
import zipfile
import zlib

import numpy as np

from common.support.errors import UserError
from common.support.files import atomic


def save_histories(path, histories, batches_of=0):
    """Write {(run, seed): history}; batch by batch for the seed `batches_of` only, epoch by epoch for all."""
    arrays = {}
    for (run, seed), history in histories.items():
        for field, values in history.items():
            if seed == batches_of or not field.startswith("batch_"):
                arrays[f"{run}/{seed}/{field}"] = values
    save_arrays(path, arrays)


def save_arrays(path, arrays):
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def load_histories(path):
    """What `save_histories` wrote. Raises UserError where there is none, or it is damaged or of another shape."""
    histories = {}
    for key, values in load_arrays(path).items():
        try:
            run, seed, field = key.rsplit("/", 2)
            histories.setdefault((run, int(seed)), {})[field] = values
        except ValueError as error:
            raise UserError(
                f"{path} has a field {key!r}, not run/seed/field; run the task without --redraw to write it again"
            ) from error
    return histories


def load_arrays(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}; run the task without --redraw first") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}); run the task without --redraw to write it again") from error


def last(history, field):
    return float(history[field][-1])


def result_rows(histories, scale):
    """One row a run and seed: what it had reached after its last epoch. Accuracy in per cent, losses in nats."""
    rows = []
    for (run, seed), history in histories.items():
        row = {"scale": scale, "config": run, "seed": seed, "test_accuracy": f"{last(history, 'test_accuracy'):.2f}"}
        row |= {"train_loss": f"{last(history, 'epoch_losses'):.4f}", "epochs": len(history["epoch_losses"])}
        row |= {
            "seconds": f"{history['seconds'].astype(float).sum():.1f}",
            "test_loss": f"{last(history, 'test_loss'):.4f}",
        }
        row |= {
            name: f"{last(history, name):.4f}"
            for name in ("weight_norm", "clean_train_loss", "clean_train_accuracy", "val_loss", "val_accuracy")
            if name in history
        }
        rows.append(row | {"diverged_step": int(history["diverged_step"])})
    return rows


def map_histories(histories, value):
    """{run: float array over its seeds} of value(history)."""
    values = {}
    for (run, _), history in histories.items():
        values.setdefault(run, []).append(float(value(history)))
    return {run: np.array(numbers) for run, numbers in values.items()}


def final_values(histories, field):
    """{run: float array over its seeds} of a field's last value."""
    return map_histories(histories, lambda history: last(history, field))


def total_seconds(histories):
    """{run: float array over its seeds} of seconds of training."""
    return map_histories(histories, lambda history: history["seconds"].astype(float).sum())


def summary_rows(histories, scale):
    """One row a run: number of seeds, mean and standard deviation over them."""
    fields = {
        "test_accuracy": "test_accuracy",
        "train_loss": "epoch_losses",
        "test_loss": "test_loss",
        "val_accuracy": "val_accuracy",
    }
    rows = {run: {"scale": scale, "config": run} for run, _ in histories}
    for name, field in fields.items():
        if any(field in history for history in histories.values()):
            for run, values in final_values(histories, field).items():
                rows[run] |= {
                    "seeds": len(values),
                    f"{name}_mean": f"{values.mean():.4f}",
                    f"{name}_std": f"{std(values):.4f}",
                }
    for run, values in total_seconds(histories).items():
        rows[run] |= {"seconds_mean": f"{values.mean():.1f}", "seconds_std": f"{std(values):.1f}"}
    return list(rows.values())


def std(values):
    """Sample standard deviation; 0 of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def half_width(values, confidence=0.95):
    """Half of the confidence interval of the values' mean, by Student's t; None where there is one value."""
    from scipy import stats  # which scikit-learn brings

    n = len(values)
    return float(stats.t.ppf((1 + confidence) / 2, n - 1) * std(values) / n**0.5) if n > 1 else None


def mean_std(values, digits=2):
    """Mean and standard deviation as text: 50.68 ± 0.41; the bare value where there is one seed."""
    values = np.asarray(values, float)
    return (
        f"{values.mean():.{digits}f} ± {std(values):.{digits}f}" if len(values) > 1 else f"{values.mean():.{digits}f}"
    )


def accuracies(path):
    """{run: float array over its seeds} of a results.csv's test accuracy."""
    values = {}
    for row in read_csv(path):
        values.setdefault(row["config"], []).append(float(row["test_accuracy"]))
    return {run: np.array(numbers) for run, numbers in values.items()}


def read_csv(path):
    """A table as a list of dicts of text, one a row."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}; run the task without --redraw first") from error


def write_csv(path, rows):
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def markdown(rows):
    """A Markdown table of rows that share their keys, the keys as its head."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(map(str, row.values())) + " |" for row in rows]) + "\n"


def write_markdown(path, title, sections, scale):
    """Write a page of `sections`: text as it is, lists of rows as tables. A quick run says so in its first line."""
    stamp = (
        []
        if scale == "full"
        else ["**QUICK**: trained for a moment on the embedded sample. These are not the report's experiment."]
    )
    body = [section.strip() if isinstance(section, str) else markdown(section).strip() for section in sections]
    write_text(path, "\n\n".join([f"# {title}", *stamp, *body]) + "\n")


def write_text(path, text):
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
