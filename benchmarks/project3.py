"""How fast is project 3 compared with what a student would write, and Winograd's convolutions with direct ones?

    python benchmarks/project3.py [--data DIR] [--rounds N] [--steps N] [--device cpu|cuda] [--instructions native|avx2]
        [--redraw]

Each way of training has its own process, hence its own memory. The ways of a group take turns, so that a machine that
slows down slows all of them. The student's way is torchvision's dataset and transforms, the report's own Cutout, a
DataLoader with two workers, fp32 and loss.item(). `airbench94` is the published network and method that fast94 goes
back to, run eagerly.

--instructions avx2 keeps a CPU with more instructions to AVX2 and fp32, which most laptops have. In fp32 on a CPU, 200
steps of ResNet-18 are also trained with direct and with Winograd's convolutions, to compare their losses. Writes
benchmarks/project3.json and, with --redraw from that file alone, project3.md.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import numpy as np
import torch
from torch import nn

from benchmarks.measuring import (
    AVX2,
    describe_machine,
    in_memory_cifar,
    make_parser,
    repeat,
    restrict_instructions,
    run_in_new_process,
    synchronize,
    training_flops,
)
from common import cli, data, learners, tables, winograd
from common.models import MODELS
from common.models.fast import FastNet
from common.support import machine, native, plan
from common.support.cifar_files import TRAIN_IMAGES
from common.support.errors import reading
from project3_wrn.method import fast
from project3_wrn.method.hooks import WhiteningBias
from project3_wrn.method.recipes import RECIPES, SMALL, Recipe, get_recipe
from project3_wrn.method.train import Backend, build, preparation

REPORT, FAST94 = Recipe(), RECIPES["fast94"]
AIRBENCH94 = dataclasses.replace(SMALL, epochs=8, batch_size=2000, validation_split=False)
AIRBENCH94_WHITENING_STEPS = 75
GROUPS = {
    "cpu": {
        "resnet18": ("student", "direct", "winograd"),
        "wrn16_8": ("direct", "winograd"),
        "fast96": ("direct", "winograd"),
        "fast94": ("airbench94", "direct", "direct, small images", "winograd", "winograd, small images"),
    },
    "cuda": {"resnet18": ("student", "direct"), "fast94": ("airbench94", "direct", "direct, small images")},
}
BATCH_SIZES = {"wrn16_8": 128}  # instead of the report's 256, whose step takes a CPU half a minute
STEPS = {"cpu": 4, "cuda": 50}  # the default number of steps of each turn
WARM_UP = 2  # steps that are not measured: they compile
LOSS_STEPS = 200
LOSS_RECIPE = dataclasses.replace(REPORT, batch_size=64, lr=0.01)  # at 0.1, early steps amplify any rounding
AUGMENTED_BATCHES, AUGMENTED_IMAGES = 60, 2000  # by ours, and by the student's transforms


class StudentCutout:
    """Cutout as in section 1.2 of the report: one image at a time, in numpy."""

    def __call__(self, image):
        height, width = image.size(1), image.size(2)
        mask = np.ones((height, width), np.float32)
        row, column, half = np.random.randint(height), np.random.randint(width), REPORT.cutout // 2
        rows = slice(np.clip(row - half, 0, height), np.clip(row + half, 0, height))
        columns = slice(np.clip(column - half, 0, width), np.clip(column + half, 0, width))
        mask[rows, columns] = 0
        return image * torch.from_numpy(mask).expand_as(image)


def student_dataset(dataset):
    """Return a dataset with the student's transforms."""
    from torchvision import transforms  # not at the top: --help would wait for it

    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(*data.CIFAR10_STATS),
            StudentCutout(),
        ]
    )
    return in_memory_cifar(dataset, transform)


class Student:
    """ResNet-18 by the report's recipe, as the PyTorch tutorial writes a training loop."""

    def __init__(self, train_set, device):
        torch.manual_seed(0)
        self.device, self.model = device, MODELS["resnet18"]().to(device)
        hyperparameters = {name: getattr(REPORT, name) for name in ("lr", "momentum", "weight_decay")}
        self.optimizer = torch.optim.SGD(self.model.parameters(), **hyperparameters)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=REPORT.label_smoothing)
        dataset = student_dataset(train_set)
        self.loader = torch.utils.data.DataLoader(dataset, REPORT.batch_size, shuffle=True, num_workers=2)

    def step(self, x, y):
        x, y = x.to(self.device), y.to(self.device)
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def facts(self):
        return {}


def leave_memory():
    """Leave freed memory to the C library, as PyTorch does."""


class Airbench94:
    """airbench94_muon as published (arXiv 2404.00498's repository): eager, with direct convolutions."""

    def __init__(self, train_set, device, precision):
        learners.keep_freed_memory = leave_memory  # in this process only
        torch.manual_seed(0)
        model = FastNet((64, 256, 256), depth=2, classes=10).to(device, memory_format=torch.channels_last)
        options = preparation(AIRBENCH94, train_set)
        self.loader = fast.AlternatingFlips(train_set, AIRBENCH94.batch_size, seed=0, **options)
        hooks = (WhiteningBias(AIRBENCH94_WHITENING_STEPS),)
        learner = learners.Learner(model, fast.optimizer(model, AIRBENCH94), precision=precision, hooks=hooks)
        self.step = learner.step

    def facts(self):
        return {}


class Ours:
    """A network by its own recipe. fast94's first epochs have small images; this trains either those or the others."""

    def __init__(self, model, convolutions, small, train_set, device, precision):
        recipe = RECIPES[model] if model in RECIPES else get_recipe("report", model)
        recipe = dataclasses.replace(recipe, batch_size=BATCH_SIZES.get(model, recipe.batch_size))
        backend = Backend(precision, convolutions, compiled=device == "cuda")
        self.learner, self.loader, _ = build(model, recipe, 0, train_set, backend)
        self.step = self.learner.step
        self.steps = {}
        if model == "fast94":
            self.steps = {"steps": self.loader.steps, "low_res_steps": self.loader.low_res_steps}
            self.loader.low_res_steps = float("inf") if small else 0

    def facts(self):
        """Return the seconds of compiling, after the first steps, and for fast94 the steps of a whole training."""
        return {"compile_seconds": self.learner.epoch_metrics().get("compile_seconds", 0.0), **self.steps}


def make_way(model, name, train_set, device, precision):
    """Return what trains `model` in the way called `name`."""
    if name == "student":
        return Student(train_set, device)
    train_set = train_set.to(device)
    if name == "airbench94":
        return Airbench94(train_set, device, precision)
    convolutions, _, small = name.partition(", ")
    return Ours(model, convolutions, bool(small), train_set, device, precision)


def measure_rate(way, batches, steps, device):
    """Return images per second over `steps` steps."""
    images, started = 0, time.perf_counter()
    for _ in range(steps):
        x, y = next(batches)
        way.step(x, y)
        images += len(y)
    synchronize(device)
    return images / (time.perf_counter() - started)


def take_turns(model, names, rounds, steps, start):
    """Return {name: {"rates": images per second in each round, "peak_memory_gb", facts}} of ways that take turns."""
    context = multiprocessing.get_context("spawn")
    pipes, results = {}, {}
    with contextlib.ExitStack() as stack:
        for name in names:
            pipes[name], theirs = context.Pipe()
            stack.callback(pipes[name].close)  # this ends its process
            # not a daemon: the student's DataLoader has processes too
            context.Process(target=_serve, args=(theirs, model, name, *start)).start()
            theirs.close()  # so that the end of a process that fails is seen here
            results[name] = {**pipes[name].recv(), "rates": []}
        for number in range(rounds):
            for name, pipe in pipes.items():
                pipe.send(steps)
                rate, results[name]["peak_memory_gb"] = pipe.recv()
                results[name]["rates"].append(rate)
            rates = ", ".join(f"{name} {result['rates'][-1]:.1f}" for name, result in results.items())
            print(f"{model}, round {number + 1} of {rounds}, images/s: {rates}", flush=True)
    return results


def _serve(pipe, model, name, folder, device, precision, instructions):
    restrict_instructions(instructions)
    way = make_way(model, name, data.load("full", folder)[0], device, precision)
    batches = repeat(way.loader)
    measure_rate(way, batches, WARM_UP, device)
    pipe.send(way.facts())
    with contextlib.suppress(EOFError):
        while True:
            pipe.send((measure_rate(way, batches, pipe.recv(), device), machine.peak_memory_gb(device)))


def train_losses(folder, convolutions, instructions):
    """Return the training losses of LOSS_STEPS steps of ResNet-18 by LOSS_RECIPE."""
    restrict_instructions(instructions)
    backend = Backend(convolutions=convolutions)
    learner, batches, _ = build("resnet18", LOSS_RECIPE, 0, data.load("full", folder)[0], backend)
    batches = repeat(batches)
    return [float(learner.step(*next(batches))) for _ in range(LOSS_STEPS)]


def augmentation_rates(folder, device):
    """Return images per second of our augmentation and of the student's, in one process and without a network."""
    train_set = data.load("full", folder)[0]
    on_device = train_set.to(device)
    batches = iter(data.Batches(on_device, REPORT.batch_size, seed=0, **preparation(REPORT, on_device)))
    next(batches)
    started = time.perf_counter()
    images = sum(len(y) for (_, y), _ in zip(batches, range(AUGMENTED_BATCHES)))
    synchronize(device)
    ours = images / (time.perf_counter() - started)
    student = student_dataset(train_set)
    started = time.perf_counter()
    for index in range(AUGMENTED_IMAGES):
        student[index]
    return {"ours": ours, "student": AUGMENTED_IMAGES / (time.perf_counter() - started)}


def main():
    """Measure every way, unless --redraw, and write the page."""
    parser = make_parser(__doc__, "data", "rounds", "device", "instructions", "redraw")
    steps_help = "steps of each turn (default: 4 on a CPU, 50 on CUDA)"
    parser.add_argument("--steps", type=cli.positive, metavar="N", help=steps_help)
    args = parser.parse_args()
    if not args.redraw:
        cli.write_json(HERE / "project3.json", measure(args))
    with reading(HERE):
        write_page(cli.read_json(HERE / "project3.json"))


def measure(args):
    """Return the content of project3.json."""
    device = machine.choose_device(args.device)
    precision = machine.choose_precision("auto" if args.instructions == "native" else "fp32", device)
    kind = "cpu" if device == "cpu" else "cuda"
    steps = args.steps or STEPS[kind]
    if args.instructions == "avx2":
        os.environ.update(AVX2)  # the processes below start with it
    data.load("full", args.data)  # downloads it, before several processes read it
    start = (args.data, device, precision, args.instructions)
    with_winograd = device == "cpu" and precision == "fp32"
    if with_winograd:
        native.load(winograd.SOURCE)  # an error, if it cannot be compiled: then there is nothing to compare
    document = {
        **describe_machine(device, precision),
        "instructions": args.instructions,
        "steps": steps,
        "matmul_flops": run_in_new_process(machine.matmul_flops, device, precision),
        "augmentation": run_in_new_process(augmentation_rates, args.data, device),
        "ways": {},
    }
    for model, names in GROUPS[kind].items():
        names = [name for name in names if with_winograd or not name.startswith("winograd")]
        document["ways"][model] = take_turns(model, names, args.rounds, steps, start)
    if with_winograd:
        document["losses"] = {
            name: run_in_new_process(train_losses, args.data, name, args.instructions)
            for name in ("direct", "winograd")
        }
    return document


def median(way):
    """Return the median images per second of a way's rounds."""
    return float(np.median(way["rates"]))


def write_page(document):
    """Write project3.md: one row per network, then sentences."""
    rows = [table_row(document, model) for model in document["ways"]]
    sections = [setting(document), rows, resnet_sentence(document), airbench_sentence(document)]
    if "losses" in document:
        sections.append(loss_sentence(document))
    tables.write_markdown(HERE / "project3.md", "Speed of project 3", sections, "full", ("en",))
    print(tables.markdown(rows) + "\n".join(sections[2:]))


def table_row(document, model):
    """Return the table's row of a network."""
    ways = document["ways"][model]
    direct = ways["direct"]
    best = ways.get("winograd", direct)
    flops = median(best) * training_flops(model)
    rates = {
        f"{name}, images/s": f"{median(ways[name]):.1f}" if name in ways else ""
        for name in ("student", "airbench94", "direct", "winograd")
    }
    return {
        "network": model,
        **rates,
        "winograd : direct": f"{median(best) / median(direct):.2f}" if "winograd" in ways else "",
        "GFLOP/s, counted as direct": f"{flops / 1e9:.0f}",
        "of a matrix product's": f"{flops / document['matmul_flops']:.2f}",
        "peak memory, direct, GB": direct["peak_memory_gb"],
        "winograd, GB": best["peak_memory_gb"] if "winograd" in ways else "",
        "compiling, s": f"{best['compile_seconds']:.0f}",
    }


def setting(document):
    """Return the sentences on machine, rounds and the ceiling."""
    rounds = len(document["ways"]["resnet18"]["direct"]["rates"])
    limit = ", kept to AVX2" if document["instructions"] == "avx2" else ""
    size = machine.MATRIX
    return (
        f"{document['machine']}{limit}, {document['cores']} cores, torch {document['torch']}, {document['precision']};"
        f" medians of {rounds} rounds of {document['steps']} steps each, in turns."
        f" A {size}x{size} matrix product reaches {document['matmul_flops'] / 1e9:.0f} GFLOP/s here."
    )


def resnet_sentence(document):
    """Return the sentences that compare ResNet-18 with the student's."""
    ways, augmentation = document["ways"]["resnet18"], document["augmentation"]
    student, ours = median(ways["student"]), median(ways.get("winograd", ways["direct"]))
    images, *_ = plan.image_counts("full", validation=True)
    return (
        f"ResNet-18's step by the report's recipe is {ours / student:.2f} times as fast as the student's:"
        f" an epoch of {images:,} images takes {images / ours:.0f} s,"
        f" the student's {images / student:.0f} s."
        f" Augmentation alone runs at {augmentation['ours']:.0f} images/s,"
        f" the student's at {augmentation['student']:.0f}."
    )


def airbench_sentence(document):
    """Return the sentences that compare fast94 with airbench94."""
    ways = document["ways"]["fast94"]
    images = AIRBENCH94.epochs * TRAIN_IMAGES
    published = images / median(ways["airbench94"])
    convolutions = "winograd" if "winograd" in ways else "direct"
    large, small = ways[convolutions], ways[f"{convolutions}, small images"]
    steps, low_res_steps = large["steps"], large["low_res_steps"]
    ours = FAST94.batch_size * (low_res_steps / median(small) + (steps - low_res_steps) / median(large))
    return (
        f"fast94 trains {steps} steps of {FAST94.batch_size} images, {low_res_steps} of them with small images at"
        f" {median(small):.0f} images/s, in {ours:.0f} s; airbench94 trains on {images:,} images in {published:.0f} s."
        f" That is {ours / published:.2f} of its time; compiling takes {large['compile_seconds']:.0f} s more."
    )


def loss_sentence(document):
    """Return the sentence that compares the losses with direct and with Winograd's convolutions."""
    direct, winograds = (np.array(document["losses"][name]) for name in ("direct", "winograd"))
    first, ten, whole = (np.abs(winograds[:steps] / direct[:steps] - 1).max() for steps in (1, 10, LOSS_STEPS))
    return (
        f"{LOSS_STEPS} steps of ResNet-18 in batches of {LOSS_RECIPE.batch_size} at a learning rate of"
        f" {LOSS_RECIPE.lr}: the losses differ by {first:.0e} in the first step, {ten:.0e} within ten and {whole:.0e}"
        f" within all; the last twenty average {direct[-20:].mean():.4f} with direct"
        f" and {winograds[-20:].mean():.4f} with Winograd's convolutions."
    )


if __name__ == "__main__":
    cli.entry_point(main)
