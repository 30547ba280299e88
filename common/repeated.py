"""The experiments that several tasks train, and the paragraph that says why their numbers differ."""

from pathlib import Path

from common import cli, tables
from common.support.translations import Text, label, text

# (task, folder below its outputs, configuration) of the same training
BASELINE = (
    ("task1_loss_curves", "", "baseline"),
    ("task2_regularization", "", "baseline"),
    ("task3_hparams", "", "baseline"),
)
TEN_EPOCHS = (("task3_hparams", "", "more_epochs"), ("task4_architectures", "batch_size", "lenet_batch_4"))


def section(outputs: Path, *experiments: tuple) -> list[Text]:
    """Return the section of a page that compares `experiments` across tasks; [] where there is nothing to compare."""
    paragraphs = [found for experiment in experiments if (found := compare(outputs, experiment))]
    if not paragraphs:
        return []
    why = text(
        "The runs of one seed share initial weights and batches, but each task stacks them with other runs. "
        "This changes the rounding and, with several seeds in one stack, the dropout noise. "
        "Training amplifies such differences: the results are samples of one distribution."
    )
    return [text("## The same training in other tasks"), *paragraphs, why]


def compare(outputs: Path, experiment: tuple) -> Text | None:
    """Return a sentence with the results of every task that has run `experiment`; None where fewer than two have.

    outputs: the folder of outputs of one task; those of the others have the same name, in the folders next to its task.
    """
    settings, values, results = [], [], []
    for task, below, config in experiment:
        folder = outputs.parents[1] / task / outputs.name / below
        if (folder / "results.csv").exists():
            rows = [row for row in tables.read_csv(folder / "results.csv") if row["config"] == config]
            if rows:
                settings.append(cli.read_json(folder / "run.json")["configs"].get(config))
                values.append([float(row["test_accuracy"]) for row in rows])
                result = tables.mean_std(values[-1])
                results.append(text("{result}% ({name}, task {task})", result=result, name=label(config), task=task[4]))
    if len(results) < 2 or any(other != settings[0] for other in settings):
        return None
    largest = max(max(seed) - min(seed) for seed in zip(*values))
    return text(
        "One configuration was trained in several tasks: {results}. One seed differs by up to {largest:.2f} points.",
        results=tables.list_texts(results),
        largest=largest,
    )
