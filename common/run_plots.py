"""Panels that tasks draw from histories: curves over the epochs, final values, and training losses."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from common import metrics, plots, tables
from common.support.translations import Text, text

BAND = (5, 95)  # per cent of the batches
BAND_WINDOWS = 125  # windows of a run in which the band is measured
WIDE, NARROW = 3.2, 1.4  # points; a narrow dashed line on a wide solid one leaves both visible
REPORT = "The report"
REPORT_MARK = dict(facecolors="none", linewidths=1.6, s=70, zorder=5)


def facts(histories: tables.Histories, scale: str, *more: str) -> list[str]:
    """Return what `plots.about` states of a figure: `more`, the number of seeds, and the scale."""
    return [*more, plots.count(len({seed for _, seed in histories}), "seed"), f"{scale} scale"]


def spread(seeds: int) -> Text:
    """Return the clause of a caption that says what lines, bands and bars are."""
    if seeds == 1:
        return text("one seed")
    return text("mean ± standard deviation over {seeds} seeds", seeds=seeds)


def curves(axes: Axes, histories: tables.Histories, field: str, ylabel: str, styles: dict | None = None) -> None:
    """Draw one line per configuration over the epochs: the mean over its seeds, in a band of one standard deviation.

    styles: {configuration: arguments of Axes.plot}, by default plots.style. Solid lines are wide and lie below.
    """
    for position, config in enumerate(dict.fromkeys(config for config, _ in histories)):
        style = (styles or {}).get(config) or plots.style(position)
        values = by_epoch(histories, config, field)
        epochs = np.arange(1, values.shape[1] + 1)
        solid = style.get("linestyle", "-") == "-"
        look = {"linewidth": WIDE if solid else NARROW, "zorder": 2 if solid else 3, "markersize": 4} | style
        axes.plot(epochs, values.mean(0), **look, label=config)
        if len(values) > 1:
            spread = values.std(0, ddof=1)
            band = (values.mean(0) - spread, values.mean(0) + spread)
            axes.fill_between(epochs, *band, color=style["color"], alpha=0.15, linewidth=0)
    axes.set(xlabel="Epoch", ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def by_epoch(histories: tables.Histories, config: str, field: str) -> np.ndarray:
    """Return a field of a configuration as (seeds, epochs), NaN where a diverged run had stopped."""
    runs = [history[field].astype(float) for (name, _), history in histories.items() if name == config]
    longest = max(map(len, runs))
    return np.array([np.pad(run, (0, longest - len(run)), constant_values=np.nan) for run in runs])


def mark_report(axes: Axes, x: float | Sequence[float], y: float | Sequence[float], color="black", label=REPORT):
    """Draw numbers of the report as hollow marks."""
    axes.scatter(x, y, edgecolors=color, label=label, **REPORT_MARK)


def final_dots(
    axes: Axes, values: dict[str, np.ndarray], report: dict[str, float], xlabel: str, styles: dict | None = None
) -> None:
    """Draw one row per configuration: every seed, their mean with one standard deviation, and the report's number.

    styles: as of `curves`.
    """
    for row, (config, numbers) in enumerate(values.items()):
        color, mean = ((styles or {}).get(config) or plots.style(row))["color"], numbers.mean()
        axes.scatter(numbers, [row] * len(numbers), s=10, color=color, alpha=0.5)
        axes.errorbar(mean, row, xerr=tables.std(numbers), fmt="o", capsize=3, color=color)
        place = {"ha": "center", "va": "bottom", "fontsize": 8, "xytext": (0, 6), "textcoords": "offset points"}
        axes.annotate(f"{mean:.1f}", (mean, row), **place)
    rows = {config: row for row, config in enumerate(values) if config in report}
    mark_report(axes, [report[config] for config in rows], list(rows.values()))
    axes.set_yticks(range(len(values)), list(values))
    axes.set(xlabel=xlabel, ylim=(len(values) - 0.5, -0.7))
    axes.grid(axis="y", alpha=0)


def batch_losses(axes: Axes, positions: np.ndarray, losses: np.ndarray) -> None:
    """Draw the losses of all batches (steps,): the range of 90% of them, and their moving average every 100 batches.

    positions: where on the x axis each of them is.
    """
    if len(losses) < metrics.WINDOW:
        axes.plot(positions, losses, color="C3", linewidth=0.8, label="Batch loss")
        return
    window = max(metrics.WINDOW, len(losses) // BAND_WINDOWS)
    low, high = np.percentile(metrics.windows(losses, window), BAND, axis=1)
    centers = metrics.window_means(positions, window)
    axes.fill_between(centers, low, high, color="C5", alpha=0.35, linewidth=0, label="5% to 95% of the batch losses")
    label = f"Moving average of {metrics.WINDOW} batches"
    places, means = metrics.window_means(positions), metrics.window_means(losses)
    axes.plot(places, means, color="C0", linewidth=0.8, label=label)


def loss_figure(
    path: Path, history: dict[str, np.ndarray], title: str, about: Sequence[str], report: Sequence[float] = ()
) -> None:
    """Draw the losses of all batches, and the mean of every epoch next to the report's (assignment, section 3.1.3)."""
    figure, (upper, lower) = plots.plt.subplots(2, 1, figsize=(9, 8), layout="constrained")
    batch_losses(upper, history["batch_indices"], history["batch_losses"])
    upper.set(xlabel="Batch", ylabel="Training loss", title="Training loss per batch")
    upper.legend(loc="upper right")
    epochs = np.arange(1, len(history["epoch_losses"]) + 1)
    lower.plot(epochs, history["epoch_losses"], "o-", color="C0", label="Mean of the epoch")
    for epoch, loss in zip(epochs, history["epoch_losses"]):
        lower.annotate(f"{loss:.3f}", (epoch, loss), textcoords="offset points", xytext=(6, 8))
    known = min(len(report), len(epochs))
    if known:
        mark_report(lower, epochs[:known], report[:known])
    lower.set(xlabel="Epoch", ylabel="Mean training loss", title="Mean training loss per epoch", xticks=epochs)
    lower.legend(loc="upper right")
    lower.margins(x=0.1, y=0.2)
    plots.about(figure, title, *about)
    plots.save(figure, path)
