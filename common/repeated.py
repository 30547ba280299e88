"""The experiments that several tasks train, and the sentence that says why their numbers differ."""

from pathlib import Path

from common import cli, tables

# (task, folder below its outputs, configuration) of the same training
BASELINE = (
    ("task1_loss_curves", "", "baseline"),
    ("task2_regularization", "", "baseline"),
    ("task3_hparams", "", "baseline"),
)
TEN_EPOCHS = (("task3_hparams", "", "more_epochs"), ("task4_architectures", "batch_size", "lenet_batch_4"))


def compare(outputs: Path, experiment: tuple) -> str:
    """Return a sentence with the results of every task that has run `experiment`; empty where fewer than two have.

    outputs: the folder of outputs of one task; those of the others have the same name, in the folders next to its task.
    """
    found = {}
    for task, below, config in experiment:
        folder = outputs.parents[1] / task / outputs.name / below
        if (folder / "results.csv").exists():
            settings = cli.read_json(folder / "run.json")["configs"].get(config)
            rows = [row for row in tables.read_csv(folder / "results.csv") if row["config"] == config]
            found[f"`{config}` of task {task[4]}"] = (settings, [float(row["test_accuracy"]) for row in rows])
    found = {name: value for name, value in found.items() if value[1]}
    if len(found) < 2 or any(settings != next(iter(found.values()))[0] for settings, _ in found.values()):
        return ""
    numbers = tables.listed([f"{tables.mean_std(values)}% ({name})" for name, (_, values) in found.items()])
    seeds = list(zip(*(values for _, values in found.values())))
    largest = max(max(values) - min(values) for values in seeds)
    return (
        f"These are trainings of one configuration: {numbers}, mean ± standard deviation over seeds. "
        "They share initial weights and batches, seed by seed, and differ in what they were stacked with: stacks of "
        "different sizes round differently (and several seeds in one stack draw other dropout noise), and training "
        f"amplifies that. Seed by seed they differ by up to {largest:.2f} points, so they are samples of one "
        "distribution."
    )
