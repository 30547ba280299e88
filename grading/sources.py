"""Where a claim's measured value comes from: fields of the committed outputs, and facts of the code.

A field is an expression of +, -, *, / over terms like `test_accuracy[config=baseline]`; a term is a column of a CSV file with the
rows to take, an array of a history with run and epoch (-1 the last), or a key of a JSON file. Values are one a seed.
"""

import ast
import operator
import re

import numpy as np

from common import cli, tables

TERM = re.compile(r"[A-Za-z_]\w*(?:\[[^\]]*\])?")
OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
STUDIES = ("compare_models", "batch_epoch_grid", "improvements", "ensemble", "label_audit")


class NotRun(Exception):
    """No full run has written this file yet. Its text is the command that would."""


def evaluate(expression, value_of):
    """The expression with each term replaced by value_of(term): a number or an array.

    Raises ValueError where it is no such expression.
    """
    terms = {}
    named = TERM.sub(lambda match: terms.setdefault(match[0], f"t{len(terms)}"), expression)
    values = {name: value_of(term) for term, name in terms.items()}

    def of(node):
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
            return OPERATIONS[type(node.op)](of(node.left), of(node.right))
        if isinstance(node, ast.Name):
            return values[node.id]
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return node.value
        raise ValueError(f"{expression!r} is more than terms and + - * /")

    try:
        return of(ast.parse(named, mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"{expression!r} cannot be read") from error


def measured(file, field, on_a_gpu=False):
    """Float array of the field's values, one a seed that all of its terms have.

    Raises:
        NotRun: there is no such file of a full run, on a GPU where that is asked for.
        UserError: it is damaged.
        ValueError: the file has no such field.
    """
    if file.startswith("common."):
        return np.atleast_1d(evaluate(field, fact)).astype(float)
    path = cli.ROOT / file
    folder = path.parent
    if not path.exists() or not (folder / "run.json").exists():
        raise NotRun(command(file))
    run = cli.read_json(folder / "run.json")
    if run.get("scale") != "full" or run.get("shortened"):
        raise NotRun(command(file))
    if on_a_gpu and run.get("device_type") != "cuda":
        raise NotRun(command(file).removesuffix(" --device cuda") + " --device cuda")
    read = {".csv": from_csv, ".npz": from_history, ".json": from_json}[path.suffix](path)
    of_term = {term: read(term) for term in TERM.findall(field)}
    seeds = set.intersection(*map(set, of_term.values()))
    if not seeds:
        raise ValueError(f"{path.name} has no seed with all of {field}")
    return evaluate(field, lambda term: np.array([of_term[term][seed] for seed in sorted(seeds)], float))


def command(file):
    """What makes this file."""
    task, _, name, *_ = [*file.split("/"), ""]
    if task != "project3_wrn":
        return f"python {task}/main.py --scale full"
    if name in STUDIES:
        return f"python project3_wrn/{name}.py --scale full{'' if name == 'ensemble' else ' --device cuda'}"
    return f"python project3_wrn/main.py --model {name} --scale full"


def parted(term):
    """`name[key=value,...]` as its name and the dict in its brackets."""
    name, _, inside = term.rstrip("]").partition("[")
    return name, dict(part.split("=", 1) for part in inside.split(",") if part)


def from_csv(path):
    """term -> {seed: value}; so are the others below. Where no seed is named, its place stands for it."""
    rows = tables.read_csv(path)

    def value_of(term):
        name, wanted = parted(term)
        found = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
        if not found or name not in found[0]:
            raise ValueError(f"{path.name} has no {term}")
        return {row.get("seed", place): float(row[name]) for place, row in enumerate(found)}

    return value_of


def from_history(path):
    histories = tables.load_histories(path)

    def value_of(term):
        name, wanted = parted(term)
        epoch = int(wanted["epoch"])
        of_run = {
            seed: history[name]
            for (run, seed), history in histories.items()
            if run == wanted["config"] and name in history
        }
        if not of_run:
            raise ValueError(f"{path.name} has no {term}")
        # a training that stopped early has no such epoch: not a number, so nothing is reproduced
        return {
            seed: values[epoch - 1 if epoch > 0 else epoch] if epoch <= len(values) else np.nan
            for seed, values in of_run.items()
        }

    return value_of


def from_json(path):
    document = cli.read_json(path)
    entries = document if isinstance(document, list) else [document]

    def value_of(term):
        try:
            return {entry.get("seed", place): float(entry[term]) for place, entry in enumerate(entries)}
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path.name} has no {term}") from error

    return value_of


def fact(term):
    """A property of the data or of the networks, taken from the code itself."""
    name, wanted = parted(term)
    if name not in FACTS:
        raise ValueError(f"no fact is called {name}")
    return FACTS[name](**wanted)


def network(model):
    from common.models import MODELS

    return MODELS[model]()


def _records(ending):
    """Images in the official files of these names: an official file is 10,000 records, and MD5s say that ours are they."""
    from common import data

    return 10_000 * sum(name.endswith(ending) for name in data.FILES)


def split_size():
    import torch

    from common import data

    return len(data.split(torch.arange(50_000) % len(data.CLASSES))[1])


def dropout_factor():
    """What Dropout(0.5) multiplies what it keeps by."""
    import torch

    from common.models.dropout import Dropout

    return float(Dropout(0.5)(torch.ones(1000)).max())


def weight_decay_penalty():
    """The penalty whose gradient SGD's weight_decay is, in units of weight_decay * w ** 2."""
    import torch

    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0, weight_decay=0.01)
    weight.grad = torch.zeros(1)
    optimizer.step()
    return (1 - weight.item()) / (2 * 0.01)


def smoothed_target():
    """What nn.CrossEntropyLoss(label_smoothing=0.1) wants the true one of ten classes' probability to be, from its gradient."""
    import torch

    logits = torch.zeros(1, 10, requires_grad=True)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0]), label_smoothing=0.1).backward()
    return 0.1 - logits.grad[0, 0].item()  # the gradient is softmax less target


def parameters(model):
    from common.models import parameter_count

    return parameter_count(network(model))


def flops(model):
    from common.models import forward_flops

    return forward_flops(network(model))


def convolutions(model):
    from torch import nn

    return sum(isinstance(module, nn.Conv2d) for module in network(model).modules())


def torchvision_resnet18_flops():
    from torchvision.models import resnet18

    from common.models import forward_flops

    return forward_flops(resnet18())


def linear_share(model):
    """Of a network's parameters, those of its fully connected layers."""
    from torch import nn

    from common.models import parameter_count

    modules = network(model)
    linear = [module for module in modules.modules() if isinstance(module, nn.Linear)]
    return sum(map(parameter_count, linear)) / parameter_count(modules)


def stem_ratio():
    """Parameters of LightweightResNet's stem over those of torchvision's ResNet-18's (convolution and batch norm)."""
    from torchvision.models import resnet18

    from common.models import parameter_count

    theirs = resnet18()
    ours = network("lightweight_resnet").stem
    return parameter_count(ours) / (parameter_count(theirs.conv1) + parameter_count(theirs.bn1))


def _last_cosine_lr():
    from common.training import cosine

    return 0.1 * cosine(99, 100)


FACTS = {
    "images": lambda: _records(".bin"),
    "test_images": lambda: _records("test_batch.bin"),
    "validation_images": split_size,
    "dropout_factor": dropout_factor,
    "weight_decay_penalty": weight_decay_penalty,
    "smoothed_target": smoothed_target,
    "parameters": parameters,
    "linear_share": linear_share,
    "torchvision_resnet18_flops": torchvision_resnet18_flops,
    "flops": flops,
    "convolutions": convolutions,
    "head_parameters": lambda model: sum(parameter.numel() for parameter in network(model).fc.parameters()),
    "stem_ratio": stem_ratio,
    "last_cosine_lr": _last_cosine_lr,
}
