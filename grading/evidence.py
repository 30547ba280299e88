"""Our numbers: what a term of a claim's `field` is in the committed outputs or in the code.

A `field` is an expression of + - * /, min(...) and max(...) over terms. A term is `name` or `name[key=value,...]`:
    test_accuracy[config=baseline]         a column of a CSV file, of the rows with these values, one per seed
    correlation[x=train_loss,y=test_accuracy]    Pearson's, over the rows of each seed
    epoch_losses[config=baseline,epoch=2]  an array of a history after an epoch; -1 is the last, `kept` the one whose
                                           weights were kept, `min` and `max` the extreme. Without config: of any
    roughness[config=baseline]             a number of a history
    swing[of=val_loss,from=1,to=20]        the mean absolute change of an array from one epoch to the next
    epochs_to[config=low_lr,accuracy=35]   the first epoch of a history with this test accuracy; infinity if none has it
    best_epoch                             a key of a JSON file; a list has the rounds of a measurement
    recall[class=cat]                      a quantity of SCORES, of a logits.npz
    parameters[model=lenet]                with a module of common/ as file: one of FACTS, computed from the code
"""

import ast
import functools
import operator
import re

import numpy as np

from common import cli, metrics, tables
from common.support.errors import reading
from grading.facts import FACTS
from grading.scores import SCORES
from grading.strings import MEMBERS, SHORT_RUN, format_seeds

TERM = re.compile(r"[A-Za-z_]\w*(?:\[[^\]]*\])?")
FUNCTIONS = {"min": np.minimum, "max": np.maximum}
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
STUDIES = ("compare_models", "batch_epoch_grid", "improvements", "ensemble", "label_audit")
NO_GPU = ("ensemble",)  # studies that train nothing
SEVERAL_SEEDS = " --seeds 3"  # one run has no interval
# folders of project 3 whose command trains several seeds anyway, or none
ENOUGH_SEEDS = ("improvements", "ensemble", "label_audit", "fast94", "fast95")


class NotRun(Exception):
    """No full run has written this file yet. The text is the command that writes it."""


def read_values(files, field, needs_gpu=False):
    """Return the field's values, a float array with one entry per seed that all of its terms have.

    files: one file, or several whose rows or histories are read together.

    Raises:
        NotRun: no full run has written a file, or none on a GPU where one is needed.
        UserError: a file is damaged.
        ValueError: the files have no such field.
    """
    terms = find_terms(field)
    if is_code(files[0]):
        return np.atleast_1d(evaluate(field, {term: compute_fact(term) for term in terms})).astype(float)
    for file in files:
        path = cli.ROOT / file
        run = read_run(path.parent)
        if not path.exists() or run.get("scale") != "full" or run.get("shortened"):
            raise NotRun(command_for_verdict(file, needs_gpu))
        if needs_gpu and run.get("device_type") != "cuda":
            raise NotRun(command_for_verdict(file, needs_gpu))
    return read_field([cli.ROOT / file for file in files], field)


def short_files(files):
    """Return where a shortened run has what these files have."""
    return tuple(file.replace("/outputs/", "/outputs_short/") for file in files)


def read_short(files, field):
    """Return the values of a shortened run and what it was, (array, Text); None where there is no such run."""
    paths = [cli.ROOT / file for file in files]
    runs = [read_run(path.parent) for path in paths]
    if not all(path.exists() for path in paths) or not all(run.get("scale") == "full" for run in runs):
        return None
    try:
        values = read_field(paths, field)
    except ValueError:  # it was written before this quantity was
        return None
    return values, describe_run(runs[0], len(values))


def read_run(folder):
    return cli.read_json(folder / "run.json") if (folder / "run.json").exists() else {}


def describe_run(run, seeds):
    """Return what a shortened run trained: network and epochs of its first configuration or its first member."""
    members = run.get("members", [])
    first = members[0] if members else next(iter(run["configs"].values()))
    count = MEMBERS.format(count=len(members)) if members else format_seeds(seeds)
    return SHORT_RUN.format(model=first["model"], epochs=first["epochs"], count=count)


def read_field(paths, field):
    """Return the field's values in files of one kind, a float array over seeds.

    Raises:
        ValueError: the files have no such field.
    """
    with reading(paths[0].parent):
        look_up = reader_of(paths)
        values = {term: look_up(term) for term in find_terms(field)}
    seeds = sorted(set.intersection(*map(set, values.values())))
    if not seeds:
        missing = [term for term in values if not values[term]]
        raise ValueError(f"{paths[0].name} has no {', '.join(missing) or 'seed with all of ' + field}")
    return evaluate(
        field, {term: np.array([by_seed[seed] for seed in seeds], float) for term, by_seed in values.items()}
    )


def reader_of(paths):
    """Return the function that looks a term up in the files: term -> {seed: value}."""
    if paths[0].name == "logits.npz":
        return functools.partial(look_up_scores, load_once(paths[0], tables.load_arrays))
    if paths[0].suffix == ".npz":
        histories = {}
        for path in paths:
            histories.update(load_once(path, tables.load_histories))
        return functools.partial(look_up_history, histories)
    rows = []
    for path in paths:
        found = load_once(path, tables.read_csv if path.suffix == ".csv" else read_rounds)
        rows += found if isinstance(found, list) else [found]
    return functools.partial(look_up_rows, rows)


def read_rounds(path):
    """Return the rows of a JSON file: one object, or a list of them."""
    return cli.read_json(path, (dict, list))


def load_once(path, load):
    """Load a file; the same file is read from memory the next time."""
    return _load(path, load, path.stat().st_mtime_ns, path.stat().st_size)


@functools.lru_cache(maxsize=32)
def _load(path, load, *_version):
    return load(path)


def look_up_rows(rows, term):
    """Return {seed: value} of a term in the rows of a table; a row that names no seed has its position instead."""
    name, wanted = split_term(term)
    if name == "correlation":
        return correlations(rows, **wanted)
    matches = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
    values = {}
    for position, row in enumerate(matches):
        value = row.get(name)
        if isinstance(value, list):
            values.update({(row.get("seed", position), place): float(v) for place, v in enumerate(value)})
        elif value not in (None, ""):
            values[row.get("seed", position)] = float(value)
    return values


def correlations(rows, x, y):
    """Return {seed: Pearson's correlation of two columns over the seed's rows}."""
    pairs = {}
    for row in rows:
        if x in row and y in row:
            pairs.setdefault(row["seed"], []).append((float(row[x]), float(row[y])))
    return {seed: np.corrcoef(np.transpose(points))[0, 1] for seed, points in pairs.items()}


def look_up_history(histories, term):
    """Return {seed: value} of a term in histories; NaN where training ended before the epoch, so it never agrees."""
    name, wanted = split_term(term)
    chosen = wanted.pop("config", None)
    arguments = {{"from": "first", "to": "last"}.get(key, key): value for key, value in wanted.items()}
    quantity = QUANTITIES.get(name, functools.partial(at_epoch, name=name))
    values = {
        seed: quantity(history, **arguments)
        for (config, seed), history in histories.items()
        if chosen in (None, config)
    }
    return {seed: value for seed, value in values.items() if value is not None}


def epochs_to(history, accuracy):
    """Return the first epoch, from 1, whose test accuracy is at least `accuracy` per cent; infinity where none is.

    None without a test accuracy.
    """
    if "test_accuracy" not in history:
        return None
    return metrics.epochs_to_reach(history["test_accuracy"], float(accuracy))


def swing(history, of, first, last):
    """Return the mean absolute change of an array from one epoch to the next; None without the array."""
    if of not in history:
        return None
    changes = np.abs(np.diff(history[of][int(first) - 1 : int(last)]))
    return changes.mean() if len(changes) else np.nan


def at_epoch(history, name, epoch=None):
    """Return an array's value after an epoch: a number from 1, -1 for the last, `kept`, `min` or `max`.

    An array without epochs has one value. None without the array.
    """
    if name not in history:
        return None
    values = history[name]
    if epoch is None:
        return float(values)
    if epoch in FUNCTIONS:
        return FUNCTIONS[epoch].reduce(values)
    number = int(history["kept_epoch"]) if epoch == "kept" else int(epoch)
    if number < 0:
        return values[number]
    return values[number - 1] if number <= len(values) else np.nan


QUANTITIES = {"epochs_to": epochs_to, "swing": swing}  # of a history


def look_up_scores(arrays, term):
    """Return {seed: value} of a term in the test logits of a network's seeds."""
    name, arguments = split_term(term)
    if name not in SCORES:
        return {}
    labels = arrays["test_labels"]
    seeds = [key.removesuffix("/test") for key in arrays if key.endswith("/test")]
    return {seed: SCORES[name](arrays[f"{seed}/test"], labels, **arguments) for seed in seeds}


def is_code(file):
    return file.startswith("common.")


def is_benchmark(file):
    """Return whether a file has the rounds of a benchmark, not the seeds of a training."""
    return file.endswith("cost.json")


def command_for(file, needs_gpu=False):
    """Return the command that writes a file or folder of outputs."""
    task, _, name, *_ = [*file.split("/"), ""]
    cuda = " --device cuda" if needs_gpu else ""
    if is_benchmark(file):
        return "python benchmarks/step_cost.py"
    if name in ("batch_size", "ablations"):
        return f"python {task}/{name}.py --scale full{cuda}"
    if task != "project3_wrn":
        return f"python {task}/main.py --scale full{cuda}"
    if name in STUDIES:
        return f"python {task}/{name}.py --scale full{'' if name in NO_GPU else ' --device cuda'}"
    return f"python {task}/main.py --model {name} --scale full"


def command_for_verdict(file, needs_gpu=False):
    """Return the command that writes a file with enough seeds for a verdict."""
    command, (task, _, name, *_) = command_for(file, needs_gpu), [*file.split("/"), "", ""]
    return command + (SEVERAL_SEEDS if task == "project3_wrn" and name not in ENOUGH_SEEDS else "")


def find_terms(expression):
    return [term for term in dict.fromkeys(TERM.findall(expression)) if term not in FUNCTIONS]


def evaluate(expression, values):
    """Evaluate an expression, given {term: number or array}.

    Raises:
        ValueError: it is not an expression of + - * /, min and max over terms.
    """
    names = {term: f"t{place}" for place, term in enumerate(find_terms(expression))}
    variables = {name: values[term] for term, name in names.items()}

    def compute(node):
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
            return OPERATIONS[type(node.op)](compute(node.left), compute(node.right))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and node.args:
            return functools.reduce(FUNCTIONS[node.func.id], map(compute, node.args))
        if isinstance(node, ast.Name) and node.id in variables:
            return variables[node.id]
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return node.value
        raise ValueError(f"{expression!r} is more than terms, + - * /, min and max")

    try:
        text = TERM.sub(lambda match: names.get(match[0], match[0]), expression)
        return compute(ast.parse(text, mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"{expression!r} is not an expression") from error


def split_term(term):
    """Split `name[key=value,...]` into its name and a dict."""
    name, _, inside = term.rstrip("]").partition("[")
    return name, dict(part.split("=", 1) for part in inside.split(",") if part)


@functools.cache
def compute_fact(term):
    name, arguments = split_term(term)
    if name not in FACTS:
        raise ValueError(f"no fact is called {name}")
    return FACTS[name](**arguments)
