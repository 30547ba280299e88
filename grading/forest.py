"""The forest plot of the READMEs: the report's test accuracy next to ours, one line per run."""

from common import plots
from grading.strings import FOREST_FACTS, FOREST_TITLE, PAGE

ROW, MARGIN, WIDTH = 0.23, 1.3, 9.5  # inches
NUMBERS = 101  # where the numbers stand, on the axis of 0 to 100%
COLORS = {True: "C2", False: "C3", None: "C0"}  # whether the report's numbers lie in our interval


def draw(path, groups):
    """Write the plot in both languages. groups: {title: Rows} of summary.forest."""
    plots.setup()
    lines = [line for title, rows in groups.items() for line in ((title, None), *((row.name, row) for row in rows))]
    labels = {True: PAGE["inside"], False: PAGE["outside"], None: PAGE["no_number"]}
    figure, axes = plots.plt.subplots(figsize=(WIDTH, ROW * len(lines) + MARGIN), layout="constrained")
    for place, (_, row) in enumerate(lines):
        if row is None:
            axes.axhspan(place - 0.5, place + 0.5, color="0.93")
            continue
        look = {"color": COLORS[row.agrees], "label": labels[row.agrees].en}
        if row.interval:
            axes.hlines(place, *row.interval, linewidth=2.5, **look)
        if len(row.ours):
            axes.plot(row.ours.mean(), place, "o", color=look["color"], markersize=5)
        for value in row.reported:
            axes.plot(value, place, "o", color="black", fillstyle="none", markersize=7, label=PAGE["reported"].en)
        ours = row.text if len(row.ours) else PAGE["not_run"].en
        axes.annotate(ours, (NUMBERS, place), va="center", annotation_clip=False)
    axes.set_yticks(range(len(lines)), [name.en for name, _ in lines])
    axes.set(xlim=(0, 100), ylim=(len(lines) - 0.5, -0.5), xlabel="Test accuracy, %")
    axes.grid(visible=False, axis="y")
    plots.legend(figure)
    plots.about(figure, FOREST_TITLE.en, FOREST_FACTS.en)
    texts = (
        FOREST_TITLE,
        FOREST_FACTS,
        PAGE["reported"],
        PAGE["not_run"],
        *labels.values(),
        *(name for name, _ in lines),
    )
    # the title has empty lines for the facts below it
    plots.save(figure, path, {text.en: text.zh for text in texts} | {f"{FOREST_TITLE.en}\n": f"{FOREST_TITLE.zh}\n"})
