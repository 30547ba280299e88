"""Histories on disk, and the tables made from them: CSV for programs, Markdown for readers.

A file of histories holds the arrays of common/training.py under the keys configuration/seed/field. In code it is
{(configuration, seed): {field: array}}.
"""

import csv
import io
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from common.support.errors import Fields, UserError, first_line, out_of_memory, reading, unreadable
from common.support.files import atomic
from common.support.translations import Text, label, text, translate

Histories = dict[tuple[str, int], dict[str, np.ndarray]]
Measured = dict[str, dict[tuple[str, int], float]]
# columns that results.csv has where a history has such a field; what summary.csv averages over seeds, {column: field}
OPTIONAL = ("weight_norm", "clean_train_loss", "clean_train_accuracy", "val_loss", "val_accuracy")
AVERAGED = {
    "test_accuracy": "test_accuracy",
    "train_loss": "epoch_losses",
    "test_loss": "test_loss",
    "val_accuracy": "val_accuracy",
}
REPORT_KEYS = ("batch_losses", "epoch_losses", "batch_indices")  # of loss_history.npz (assignment, section 3.1.1)
PREDICTED = "report in our 95% interval"  # the column of `is_predicted`
DASH = "–"  # an empty cell: the report states no such number, or it does not apply
ROUNDING = 1e-4  # our accuracies are float32
QUICK = text("**QUICK**: a run on the embedded sample; its numbers are not comparable with the report's.")
INTERVAL = text("The 95% interval is a prediction interval: with a probability of 95%, one more training falls in it.")


def save_histories(path: Path, histories: Histories, plain: tuple[str, int] | None = None) -> None:
    """Write histories: the arrays per epoch of every run, those per batch of one seed's runs.

    plain: (configuration, seed) of the run that is also saved under the report's three keys alone, REPORT_KEYS; its
        seed is the one whose losses per batch are saved. None for no losses per batch.
    """
    arrays = {key: histories[plain][key] for key in REPORT_KEYS} if plain else {}
    for (config, seed), history in histories.items():
        for field, values in history.items():
            if (plain and seed == plain[1]) or not field.startswith("batch_"):
                arrays[f"{config}/{seed}/{field}"] = values
    save_arrays(path, arrays)


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as an .npz file, whole or not at all."""
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def load_histories(path: Path, configs: Iterable[str] = ()) -> Histories:
    """Return what `save_histories` wrote.

    Raises:
        UserError: the file is missing, damaged, has other keys, or has no run of one of `configs`.
    """
    histories = {}
    for key, values in load_arrays(path).items():
        if key in REPORT_KEYS:
            continue
        try:
            config, seed, field = key.rsplit("/", 2)
            histories.setdefault((config, int(seed)), Fields(path))[field] = values
        except ValueError as error:
            raise unreadable(path, f"a field {key!r} is not configuration/seed/field") from error
    if missing := [name for name in configs if name not in {config for config, _ in histories}]:
        raise UserError(f"{path} has no run of {', '.join(missing)}; run the task without --redraw to train it")
    return histories


def load_arrays(path: Path, names: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file, or those of `names`, as Fields.

    Raises:
        UserError: the file is missing or damaged, lacks one of these names, or holds other objects.
    """
    try:
        # numpy would take a single array, and would advise to load a pickle
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            return Fields(path, {name: file[name] for name in names or file.files})
    except Exception as error:  # damage shows in as many ways as there are bytes
        if out_of_memory(error):
            raise
        raise unreadable(path, error if isinstance(error, OSError) else first_line(error)) from error


def last(history: dict[str, np.ndarray], field: str) -> float:
    """Return the last value of a field."""
    return float(history[field][-1])


def write_results(out: Path, histories: Histories, scale: str, measured: Measured | None = None) -> None:
    """Write results.csv, one row per run, and summary.csv, one row per configuration, into the folder `out`.

    measured: more columns, for the runs that have a value: {column: {(configuration, seed): value}}.
    """
    write_csv(out / "results.csv", result_rows(histories, scale, measured))
    write_csv(out / "summary.csv", summary_rows(histories, scale, measured))


def result_rows(histories: Histories, scale: str, measured: Measured | None = None) -> list[dict]:
    """Return one row per run with its values after the last epoch: accuracies in per cent, losses in nats."""
    measured = measured or {}
    return [
        {
            "scale": scale,
            "config": config,
            "seed": seed,
            "test_accuracy": f"{last(history, 'test_accuracy'):.2f}",
            "train_loss": f"{last(history, 'epoch_losses'):.4f}",
            "epochs": len(history["epoch_losses"]),
            "seconds": f"{training_seconds(history):.1f}",
            "test_loss": f"{last(history, 'test_loss'):.4f}",
            **{name: f"{last(history, name):.4f}" for name in OPTIONAL if name in history},
            "diverged_step": int(history["diverged_step"]),
            **{name: f"{values[config, seed]:.4g}" for name, values in measured.items() if (config, seed) in values},
        }
        for (config, seed), history in histories.items()
    ]


def summary_rows(histories: Histories, scale: str, measured: Measured | None = None) -> list[dict]:
    """Return one row per configuration: number of seeds, and mean and standard deviation over them.

    Of the columns of `measured`, whose values may be infinite, the median.
    """
    rows = {config: {"scale": scale, "config": config} for config, _ in histories}
    for name, field in AVERAGED.items():
        if any(field in history for history in histories.values()):
            for config, values in final_values(histories, field).items():
                rows[config]["seeds"] = len(values)
                rows[config][f"{name}_mean"] = f"{values.mean():.4f}"
                rows[config][f"{name}_std"] = f"{std(values):.4f}"
    for config, values in total_seconds(histories).items():
        rows[config]["seconds_mean"] = f"{values.mean():.1f}"
        rows[config]["seconds_std"] = f"{std(values):.1f}"
    for column, by_run in (measured or {}).items():
        for config, values in map_histories(by_run, float).items():
            rows[config][f"{column}_median"] = f"{np.median(values):.4g}"
    return list(rows.values())


def group_by_config(pairs: Iterable[tuple[str, float]]) -> dict[str, np.ndarray]:
    """Return {configuration: float array of its values, in their order} from pairs (configuration, value)."""
    values = {}
    for config, value in pairs:
        values.setdefault(config, []).append(float(value))
    return {config: np.array(numbers) for config, numbers in values.items()}


def map_histories(histories: Histories | dict, value: Callable) -> dict[str, np.ndarray]:
    """Apply `value` to every history, or to whatever else is kept per run; return {configuration: array over seeds}."""
    return group_by_config((config, value(history)) for (config, _), history in histories.items())


def final_values(histories: Histories, field: str) -> dict[str, np.ndarray]:
    """Return the last value of a field, {configuration: float array over its seeds}."""
    return map_histories(histories, lambda history: last(history, field))


def total_seconds(histories: Histories) -> dict[str, np.ndarray]:
    """Return the seconds of training, {configuration: float array over its seeds}."""
    return map_histories(histories, training_seconds)


def training_seconds(history: dict[str, np.ndarray]) -> float:
    """Return the seconds of training of a run, over all its epochs."""
    return float(history["seconds"].astype(float).sum())


def std(values: Sequence[float]) -> float:
    """Return the sample standard deviation; 0 of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def half_width(values: Sequence[float], confidence: float = 0.95) -> float | None:
    """Return half of the confidence interval of the mean, by Student's t; None of a single value."""
    from scipy import stats  # not at the top: --help would wait for it (scikit-learn depends on it)

    n = len(values)
    return float(stats.t.ppf((1 + confidence) / 2, n - 1) * std(values) / n**0.5) if n > 1 else None


def prediction_half_width(values: Sequence[float], confidence: float = 0.95) -> float | None:
    """Return half of the interval in which one more value of the same distribution lies; None of a single value.

    By Student's t it is t s sqrt(1 + 1/n) around the mean of n values.
    """
    half = half_width(values, confidence)  # t s sqrt(1/n)
    return None if half is None else half * (len(values) + 1) ** 0.5


def excludes_zero(differences: Sequence[float]) -> bool:
    """Return whether the 95% confidence interval of the mean difference excludes 0; False for a single difference."""
    half = half_width(differences)
    return half is not None and bool(abs(np.mean(differences)) > half)


def prediction_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return the ends of the prediction interval; both are infinite for a single value."""
    half = prediction_half_width(values, confidence)
    mean = float(np.mean(values))
    return (-np.inf, np.inf) if half is None else (mean - half, mean + half)


def is_predicted(number: float | None, values: Sequence[float]) -> str:
    """Return whether a number of the report lies in the 95% prediction interval of our values: yes, no, or a dash.

    The dash stands where there is no such number, or a single value.
    """
    if number is None or len(values) < 2:
        return DASH
    low, high = prediction_interval(values)
    return "yes" if low - ROUNDING <= number <= high + ROUNDING else "no"


def predicted_cell(number: float | None, values: Sequence[float]) -> Text | str:
    """Return what `is_predicted` returns in both languages."""
    answer = is_predicted(number, values)
    return {"yes": Text("yes", "是"), "no": Text("no", "否")}.get(answer, answer)


def fixed(value: float, digits: int = 2) -> str:
    """Format a number with separated thousands, without a negative zero."""
    return f"{round(float(value), digits) + 0.0:,.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """Format a difference with its sign, without a negative zero."""
    return f"{round(float(value), digits) + 0.0:+.{digits}f}"


def mean_std(values: Sequence[float], digits: int = 2) -> str:
    """Format mean and standard deviation, as 50.68 ± 0.41; only the mean where the deviation rounds to 0."""
    values = np.asarray(values, float)
    mean, spread = fixed(values.mean(), digits), fixed(std(values), digits)
    return f"{mean} ± {spread}" if spread.strip("0.") else mean


def spread_note(seeds: int) -> Text:
    """Return the sentence that says what the values of a page are."""
    if seeds == 1:
        return text("All values are those of one seed.")
    return text(
        "Values are mean ± standard deviation over {seeds} seeds; a deviation that rounds to 0 is left out.",
        seeds=seeds,
    )


def listed(names: Sequence[str]) -> str:
    """Join names as in a sentence: a, b and c."""
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def list_texts(items: Iterable[Text]) -> Text:
    """Join texts as in a sentence, in each language."""
    english, chinese = zip(*items)
    return Text(listed(english), "、".join(chinese))


def paragraph(*sentences: Text | str) -> Text:
    """Join sentences in each language; an empty one is left out."""
    sentences = [sentence for sentence in sentences if sentence]
    return Text(" ".join(sentence.en for sentence in sentences), "".join(sentence.zh for sentence in sentences))


def named(config: str) -> Text:
    """Return what a configuration is called, and its name in the code and in CSV files."""
    return text("{name} (`{config}`)", name=label(config), config=config)


def accuracies(path: Path) -> dict[str, np.ndarray]:
    """Return the test accuracies of a results.csv, {configuration: float array over its seeds}."""
    with reading(path.parent):
        return group_by_config((row["config"], float(row["test_accuracy"])) for row in read_csv(path))


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return a table as one dict of text per row.

    Raises:
        UserError: the file cannot be read, or is not CSV.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [Fields(path, row) for row in csv.DictReader(file, restval="")]
    except (OSError, ValueError, csv.Error) as error:
        raise unreadable(path, error) from error


def write_csv(path: Path, rows: list[dict]) -> None:
    """Write rows as CSV; a value that a row lacks is left empty."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def markdown(rows: list[dict]) -> str:
    """Format rows that share their keys as a Markdown table, the keys as its head."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(map(str, row.values())) + " |" for row in rows]) + "\n"


def figure(name: str, title: str | Text, caption: Text) -> Text:
    """Return the lines of a page that show a figure of its folder, in each language its own version.

    title: what the figure shows. caption: one sentence, what a reader should see in it.
    """
    title = title if isinstance(title, Text) else Text(title, translate(title, "zh"))
    return Text(
        f"![{title.en}]({name})\n\n*{caption.en}*",
        f"![{title.zh}]({name.replace('.png', '.zh.png')})\n\n*{caption.zh}*",
    )


def write_markdown(
    path: Path,
    title: str | Text,
    sections: list[str | Text | list[dict]],
    scale: str,
    languages: tuple[str, ...] = ("en", "zh"),
) -> None:
    """Write a page: in English to `path`, in Chinese next to it (x.zh.md). The page of a quick run is marked as one.

    sections: texts, and lists of rows, which become tables. A str is the same in both languages; the labels in the
        heads and cells of tables are translated.
    """
    for language in languages:
        body = [f"# {in_language(title, language)}", *([] if scale == "full" else [getattr(QUICK, language)])]
        body += [format_section(section, language).strip() for section in sections if section]
        place = path if language == "en" else path.with_suffix(f".{language}{path.suffix}")
        write_text(place, "\n\n".join(body) + "\n")


def format_section(section: str | Text | list[dict], language: str) -> str:
    """Return a section of a page in a language, "en" or "zh"."""
    if not isinstance(section, list):
        return in_language(section, language)
    rows = [{name_in(key, language): name_in(value, language) for key, value in row.items()} for row in section]
    return markdown(rows)


def in_language(content: str | Text, language: str) -> str:
    """Return a text in a language; a str is the same in all."""
    return getattr(content, language) if isinstance(content, Text) else content


def name_in(content: object, language: str) -> str:
    """Return the head or the content of a table's cell in a language, the labels in it translated."""
    return getattr(content, language) if isinstance(content, Text) else translate(str(content), language)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
