"""Tables and the figure of ensemble.py, from its predictions.npz and run.json."""

import itertools

import numpy as np
import torch

from common import cli, plots, tables
from common.data import CLASSES
from common.support.translations import Text, label, text
from project3_wrn.analysis import study_tables

MEAN = "mean probability"
FIGURE = "How often two members of the ensemble disagree"
SIGNIFICANT = 0.05  # a p below this is more than chance explains
ANNOTATED = 20  # with more configurations the figure has no numbers


def write_results(out):
    """Write every table and figure from predictions.npz and run.json."""
    run_json, saved = cli.read_json(out / "run.json"), tables.load_arrays(out / "predictions.npz")
    members, val_accuracy, scale = run_json["members"], saved["val_accuracy"], run_json["scale"]
    test, methods, labels = (torch.from_numpy(saved[name]).long() for name in ("members", "methods", "test_labels"))
    methods = dict(zip(run_json["methods"], methods))
    groups, disagreement = group_by_config(members), pairwise_disagreement(test)
    test_accuracy = [accuracy(member, labels) for member in test]
    best = int(np.argmax(val_accuracy))
    compared = {method: compare(predictions, test[best], labels) for method, predictions in methods.items()}
    scores = {config: class_scores(test[indices], labels) for config, indices in groups.items()}
    scores[MEAN] = class_scores(methods[MEAN][None], labels)
    mean_disagreement = float(disagreement.sum() / (len(test) * (len(test) - 1)))
    plots.setup(scale=scale)

    by_config = disagreement_by_config(groups, disagreement).numpy()
    page = [
        *study_tables.stamp(run_json),
        finding(compared[MEAN], test_accuracy[best], len(members)),
        tables.figure("diversity.png", FIGURE, diversity_caption(list(groups), by_config, mean_disagreement)),
        text("## The methods"),
        method_table(test_accuracy[best], compared),
        method_note(members[best]),
        text("## The members"),
        member_note(run_json),
        member_table(groups, val_accuracy, test_accuracy),
        oracle_note(mean_disagreement, test, labels),
        text("## Complementarity by class"),
        complementarity(scores),
        *itertools.chain.from_iterable((title, class_table(scores, name)) for name, title in class_titles().items()),
    ]
    tables.write_markdown(out / "ensemble.md", text("Project 3: the networks together"), page, scale)
    tables.write_csv(
        out / "members.csv",
        [
            {
                **{name: member[name] for name in ("config", "seed", "folder", "epochs")},
                "val_accuracy": f"{val:.2f}",
                "test_accuracy": f"{value:.2f}",
            }
            for member, val, value in zip(members, val_accuracy, test_accuracy)
        ],
    )
    tables.write_csv(out / "classes.csv", class_rows(scores))
    write_numbers(out / "ensemble.json", test_accuracy[best], compared, scores, list(groups)[group_of(groups, best)])
    facts = (f"{len(members)} members", *study_tables.facts(run_json))
    draw_diversity(out / "diversity.png", list(groups), by_config, facts)


def accuracy(predictions, labels):
    """Return the percentage of predictions that are right."""
    return float((predictions == labels).double().mean() * 100)


def compare(predictions, other, labels):
    """Return what a method reaches, and its McNemar test against another: accuracy, difference, p."""
    value = accuracy(predictions, labels)
    return {"accuracy": value, "difference": value - accuracy(other, labels), "p": mcnemar(predictions, other, labels)}


def mcnemar(one, other, labels):
    """Return the p-value of McNemar's exact two-sided test that two sets of predictions (N,) are equally accurate.

    Of the images that only one of the two predicts correctly, each is then equally likely to be either's.
    """
    from scipy.stats import binomtest  # not at the top: --help would wait for it

    first, second = one == labels, other == labels
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def class_scores(predictions, labels):
    """Return {"precision", "recall", "F1": per cent (classes,), the mean over members} of predictions (M, N)."""
    from sklearn.metrics import precision_recall_fscore_support  # not at the top: --help would wait for it

    options = dict(labels=range(len(CLASSES)), zero_division=0)
    scores = [precision_recall_fscore_support(labels, member, **options)[:3] for member in predictions]
    return dict(zip(("precision", "recall", "F1"), 100 * np.mean(scores, 0)))


def write_numbers(path, best_accuracy, compared, scores, best_config):
    """Write ensemble.json: what the claims of section 3.2 are judged by."""
    names = {method: method.split(" (")[0].replace(" ", "_") for method in compared}
    cli.write_json(
        path,
        {
            "best_member": best_accuracy,
            **{names[method]: result["accuracy"] for method, result in compared.items()},
            **{f"p_{names[method]}": result["p"] for method, result in compared.items()},
            "macro_f1_best_member": float(scores[best_config]["F1"].mean()),
            "macro_f1_mean_probability": float(scores[MEAN]["F1"].mean()),
        },
    )


# --- the page ---


def finding(mean, best_accuracy, count):
    """Return the sentences on whether the mean probability is more accurate than the best member.

    mean: what `compare` returns of it. best_accuracy: that of the best member. count: members.
    """
    first = text(
        "**The mean probability of {count} members reaches a test accuracy of {accuracy:.2f}%, {points:.2f} points"
        " above the best member.**"
        if mean["difference"] > 0
        else "**The mean probability of {count} members reaches a test accuracy of {accuracy:.2f}%, which is not above"
        " the best member's {best:.2f}%.**",
        count=count,
        accuracy=mean["accuracy"],
        points=mean["difference"],
        best=best_accuracy,
    )
    second = text(
        "By McNemar's test the difference is more than chance explains (p = {p:.2g})."
        if mean["p"] < SIGNIFICANT
        else "By McNemar's test the difference cannot be told from chance (p = {p:.2g}).",
        p=mean["p"],
    )
    return tables.paragraph(first, second)


def diversity_caption(configs, disagreement, mean):
    """Return the sentence on which configurations differ most and least; of a single one, how much its seeds differ.

    disagreement: of `disagreement_by_config`. mean: that of two members.
    """
    pairs = list(itertools.combinations(range(len(configs)), 2))
    if not pairs:
        return text("Two members disagree on {mean:.2f}% of the test images on average.", mean=mean)
    low, high = (choose(pairs, key=lambda pair: disagreement[pair]) for choose in (min, max))
    return text(
        "{one} and {other} disagree most, on {most:.1f}% of the test images, and {third} and {fourth} least, on"
        " {least:.1f}%.",
        **{name: label(configs[index]) for name, index in zip(("one", "other", "third", "fourth"), (*high, *low))},
        most=disagreement[high],
        least=disagreement[low],
    )


def method_table(best_accuracy, compared):
    """Return one row for the best member and one per method, with its difference from that member and p."""
    first = {"method": "best member by validation", "test, %": f"{best_accuracy:.2f}"}
    return [
        {**first, "difference, points": tables.DASH, "p": tables.DASH},
        *(
            {
                "method": method,
                "test, %": f"{result['accuracy']:.2f}",
                "difference, points": tables.signed(result["difference"]),
                "p": f"{result['p']:.2g}",
            }
            for method, result in compared.items()
        ),
    ]


def method_note(member):
    """Return the sentences on which member is the best one, and what p is."""
    return tables.paragraph(
        text(
            "The best member by validation accuracy is {config} with seed {seed}.",
            config=label(member["config"]),
            seed=member["seed"],
        ),
        text(
            "p is the p-value of McNemar's exact test against this member: the probability that the images which"
            " only one of the two predicts correctly are split at least as unevenly between them, if both are equally"
            " accurate."
        ),
    )


def member_note(run_json):
    """Return the sentence on where the members come from."""
    members = run_json["members"]
    folders = dict.fromkeys(f"`{member['folder']}`" for member in members)
    return text(
        "The {count} members are finished runs of {folders}, each a separate training, with a validation"
        " accuracy within {within:g} points of the best.",
        count=len(members),
        folders=tables.list_texts([Text(name, name) for name in folders]),
        within=run_json["within"],
    )


def member_table(groups, val_accuracy, test_accuracy):
    """Return one row per configuration, with its accuracies over its seeds."""
    return [
        {
            "configuration": config,
            "number of seeds": len(indices),
            "validation, %": tables.mean_std([val_accuracy[index] for index in indices]),
            "test, %": tables.mean_std([test_accuracy[index] for index in indices]),
        }
        for config, indices in groups.items()
    ]


def oracle_note(mean_disagreement, test, labels):
    """Return the sentences on how often members disagree, and how often at least one is right."""
    return text(
        "Two members disagree on {mean:.2f}% of the test images on average. At least one is correct on {any:.2f}%,"
        " which no vote among them can exceed.",
        mean=mean_disagreement,
        any=oracle(test, labels),
    )


def class_titles():
    """Return the heading of each table by class."""
    return {
        "precision": text("### Precision, %, mean over the seeds"),
        "recall": text("### Recall, %, mean over the seeds"),
        "F1": text("### F1, %, mean over the seeds"),
    }


def class_table(scores, quantity):
    """Return one row per configuration and one of the mean probability; the best configuration of a class is bold."""
    means = np.array([values[quantity] for config, values in scores.items() if config != MEAN])
    rows = []
    for config, values in scores.items():
        best = values[quantity] == means.max(0)
        cells = [
            f"**{value:.1f}**" if bold and config != MEAN else f"{value:.1f}"
            for value, bold in zip(values[quantity], best)
        ]
        rows.append({"configuration": config, **dict(zip(CLASSES, cells)), "macro": f"{values[quantity].mean():.2f}"})
    return rows


def class_rows(scores):
    """Return one row per configuration and class, in per cent."""
    return [
        {
            "config": config,
            "class": name,
            **{quantity.lower(): f"{float(numbers[index]):.2f}" for quantity, numbers in values.items()},
        }
        for config, values in scores.items()
        for index, name in enumerate(CLASSES)
    ]


def complementarity(scores):
    """Return sentences on whether precision and recall of the members complement each other (3.2)."""
    configs = [config for config in scores if config != MEAN]
    precise, sensitive = (
        np.array([scores[config][quantity] for config in configs]).argmax(0) for quantity in ("precision", "recall")
    )
    imbalance = {name: float(np.abs(one["precision"] - one["recall"]).mean()) for name, one in scores.items()}
    best = max(configs, key=lambda config: float(scores[config]["F1"].mean()))
    sentences = [
        text(
            "In {count} of {all} classes the configuration with the highest precision is not the one with the highest"
            " recall.",
            count=int((precise != sensitive).sum()),
            all=len(CLASSES),
        ),
        text(
            "Precision and recall of a class differ by {together:.2f} points on average with the mean probability, and"
            " by {alone:.2f} with a single configuration.",
            together=imbalance[MEAN],
            alone=np.mean([imbalance[config] for config in configs]),
        ),
        text(
            "Macro F1 is {together:.2f} with the mean probability and {alone:.2f} with {best}, the best configuration.",
            together=scores[MEAN]["F1"].mean(),
            alone=scores[best]["F1"].mean(),
            best=label(best),
        ),
    ]
    wide = [config for config in configs if config.startswith("wrn")]
    if "vgg16_bn" in configs and wide:
        ahead = {
            quantity: int((sign * (scores["vgg16_bn"][quantity] - scores[wide[0]][quantity]) > 0).sum())
            for quantity, sign in (("precision", 1), ("recall", -1))
        }
        sentences.append(
            text(
                "In the report's example, {narrow} has the higher precision in {precision} classes and {wide} the"
                " higher recall in {recall}.",
                narrow=label("vgg16_bn"),
                wide=label(wide[0]),
                **ahead,
            )
        )
    return tables.paragraph(*sentences)


def oracle(test, labels):
    """Return the percentage of images that at least one member predicts correctly."""
    return float((test == labels).any(0).double().mean() * 100)


# --- which members differ ---


def group_by_config(members):
    """Return {configuration: indices of its seeds among the members}."""
    groups = {}
    for index, member in enumerate(members):
        groups.setdefault(member["config"], []).append(index)
    return groups


def group_of(groups, index):
    """Return the position of the configuration that the member `index` is of."""
    return next(position for position, indices in enumerate(groups.values()) if index in indices)


def pairwise_disagreement(predictions):
    """Return the percentage (M, M) of the images on which two members disagree."""
    return (predictions[:, None] != predictions).double().mean(-1) * 100


def disagreement_by_config(groups, disagreement):
    """Return the mean disagreement (configurations, configurations) of two different members, one of each.

    A configuration with one seed has 0 with itself.
    """

    def mean_between(rows, columns):
        values = [disagreement[i, j] for i in rows for j in columns if i != j]
        return sum(values) / len(values) if values else 0.0

    return torch.tensor([[mean_between(a, b) for b in groups.values()] for a in groups.values()])


def order_by_similarity(disagreement):
    """Return an order of the configurations (n,) that puts similar ones next to each other."""
    from scipy.cluster import hierarchy  # not at the top: --help would wait for it
    from scipy.spatial.distance import squareform

    if len(disagreement) < 3:
        return list(range(len(disagreement)))
    distances = squareform(disagreement - np.diag(np.diag(disagreement)), checks=False)
    return hierarchy.leaves_list(hierarchy.linkage(distances, "average", optimal_ordering=True)).tolist()


def draw_diversity(path, names, disagreement, facts=()):
    """Draw the percentage of test images on which two configurations disagree, as a triangle.

    The diagonal has the disagreement between seeds of one configuration, and is empty where there is one seed.
    """
    order = order_by_similarity(disagreement)
    names, values = [names[index] for index in order], disagreement[np.ix_(order, order)]
    hidden = np.triu(np.ones_like(values, bool), 1) | (np.eye(len(values), dtype=bool) & (values == 0))
    shown = np.ma.masked_array(values, hidden)
    side = 0.5 * len(names)
    figure, axes = plots.plt.subplots(figsize=(side + 4, side + 3), layout="constrained")
    image = axes.imshow(shown, cmap="cividis")
    middle = (shown.min() + shown.max()) / 2
    if len(names) <= ANNOTATED:
        for row, column in np.argwhere(~hidden):
            color = "white" if values[row, column] < middle else "black"
            number = f"{values[row, column]:.1f}"
            axes.text(column, row, number, ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.grid(False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.8, label="Test images that two members disagree on, %")
    seeds = ["the diagonal compares seeds"] if values.diagonal().any() else []
    plots.about(figure, FIGURE, *facts, *seeds)
    plots.save(figure, path)
