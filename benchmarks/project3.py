"""How fast is project 3 next to what a student would write, and Winograd's convolutions next to direct ones?

    python benchmarks/project3.py [--data DIR] [--rounds N] [--steps N] [--device cpu|cuda] [--instructions native|avx2]

Each way of training has a process of its own, hence a memory of its own; the ways of a group take turns, so that a machine that
slows down slows all of them. The student's way is torchvision's dataset and transforms, the report's own Cutout, a DataLoader with
two workers, fp32 and loss.item(). `airbench94` is the published network and method that fast94 goes back to, run eagerly.

--instructions avx2 keeps a CPU that has more to AVX2 and fp32, as most laptops are. Then 200 steps of ResNet-18 are trained with
direct and with Winograd's convolutions, to compare their losses. Writes benchmarks/project3.json and project3.md.
"""

import argparse
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
from torchvision import datasets, transforms

from benchmarks.measuring import (
    AVX2,
    MATRIX,
    described,
    endless,
    in_a_process,
    matmul_flops,
    restrict,
    training_flops,
    wait,
)
from common import cli, data, learners, tables
from common.models import MODELS
from common.models.fast import FastNet
from common.support import download, machine, native
from common.winograd import SOURCE
from project3_wrn.method import fast
from project3_wrn.method.recipes import RECIPES, SMALL, Recipe, get_recipe
from project3_wrn.method.train import build, preparation

REPORT, FAST = Recipe(), RECIPES["fast94"]
AIRBENCH94 = dataclasses.replace(SMALL, epochs=8, batch_size=2000, validation_split=False)
GROUPS = {
    "cpu": {
        "resnet18": ("student", "direct", "winograd"),
        "wrn16_8": ("direct", "winograd"),
        "fast96": ("direct", "winograd"),
        "fast94": ("airbench94", "direct", "direct, small images", "winograd", "winograd, small images"),
    },
    "cuda": {"resnet18": ("student", "direct"), "fast94": ("airbench94", "direct", "direct, small images")},
}
BATCH_SIZES = {"wrn16_8": 128}  # of the report's 256, whose step takes a CPU half a minute
LOSS_STEPS = 200
LOSS_RECIPE = dataclasses.replace(REPORT, batch_size=64, lr=0.01)  # at 0.1, early steps amplify any rounding


class StudentCutout:
    """Section 1.2 of the report: one image at a time, in numpy."""

    def __call__(self, image):
        height, width = image.size(1), image.size(2)
        mask = np.ones((height, width), np.float32)
        y, x, half = np.random.randint(height), np.random.randint(width), REPORT.cutout // 2
        mask[
            np.clip(y - half, 0, height) : np.clip(y + half, 0, height),
            np.clip(x - half, 0, width) : np.clip(x + half, 0, width),
        ] = 0
        return image * torch.from_numpy(mask).expand_as(image)


class StudentCifar(datasets.CIFAR10):
    """torchvision's dataset, item by item its own code, on images that are in memory already."""

    def __init__(self, images):
        self.data = images.images.permute(0, 2, 3, 1).numpy()
        self.targets = images.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(*data.CIFAR10_STATS),
                StudentCutout(),
            ]
        )
        self.target_transform = None


class Student:
    def __init__(self, train, device):
        torch.manual_seed(0)
        self.device, self.model = device, MODELS["resnet18"]().to(device)
        hyperparameters = {name: getattr(REPORT, name) for name in ("lr", "momentum", "weight_decay")}
        self.optimizer = torch.optim.SGD(self.model.parameters(), **hyperparameters)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=REPORT.label_smoothing)
        self.loader = torch.utils.data.DataLoader(StudentCifar(train), REPORT.batch_size, shuffle=True, num_workers=2)

    def step(self, x, y):
        x, y = x.to(self.device), y.to(self.device)
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()


class Airbench94:
    """The published airbench94_muon (arXiv 2404.00498's repository): eager, direct convolutions, memory as PyTorch manages it."""

    def __init__(self, train, device, precision):
        learners.keep_freed_memory = lambda: None
        torch.manual_seed(0)
        model = FastNet((64, 256, 256), depth=2, classes=10).to(device, memory_format=torch.channels_last)
        self.loader = fast.AlternatingFlips(train, AIRBENCH94.batch_size, seed=0, **preparation(AIRBENCH94, train))
        optimizer = fast.optimizer(model, AIRBENCH94)
        self.learner = fast.Fast(model, optimizer, whitening_steps=75, precision=precision)
        self.step = self.learner.step


class Ours:
    """A network by its own recipe. Of fast94, whose first passes are over small images, either those or the others."""

    def __init__(self, model, convolutions, train, device, precision):
        convolutions, _, small = convolutions.partition(", ")
        recipe = RECIPES[model] if model in RECIPES else get_recipe("report", model)
        recipe = dataclasses.replace(recipe, batch_size=BATCH_SIZES.get(model, recipe.batch_size))
        self.learner, self.loader, _ = build(
            model, recipe, 0, train.to(device), precision=precision, convolutions=convolutions
        )
        self.facts = {"compile_seconds": self.learner.compile(*self.loader.example()) if device == "cuda" else 0.0}
        if model == "fast94":
            self.facts |= {"steps": self.loader.steps, "low_res_steps": self.loader.low_res_steps}
            self.loader.low_res_steps = float("inf") if small else 0
        self.step = self.learner.step


def rate(way, batches, steps, device):
    """Return images per second over `steps` steps."""
    images, started = 0, time.perf_counter()
    for _ in range(steps):
        x, y = next(batches)
        way.step(x, y)
        images += len(y)
    wait(device)
    return images / (time.perf_counter() - started)


def make(model, name, train, device, precision):
    if name == "student":
        return Student(train, device)
    if name == "airbench94":
        return Airbench94(train.to(device), device, precision)
    return Ours(model, name, train, device, precision)


def turns(model, names, rounds, steps, start):
    """Return {name: {"rates": images per second in each round, "peak_memory_gb", facts}} of ways that take turns."""
    context = multiprocessing.get_context("spawn")
    pipes, results = {}, {}
    with contextlib.ExitStack() as stack:
        for name in names:
            pipes[name], theirs = context.Pipe()
            stack.callback(pipes[name].close)  # which ends its process
            # not a daemon: the student's DataLoader has processes too
            context.Process(target=_serve, args=(theirs, model, name, *start)).start()
            theirs.close()  # so that the end of a process that fails is seen here
            results[name] = pipes[name].recv() | {"rates": []}
        for number in range(rounds):
            for name, pipe in pipes.items():
                pipe.send(steps)
                speed, results[name]["peak_memory_gb"] = pipe.recv()
                results[name]["rates"].append(speed)
            speeds = ", ".join(f"{name} {result['rates'][-1]:.1f}" for name, result in results.items())
            print(f"{model}, round {number + 1} of {rounds}, images/s: {speeds}", flush=True)
    return results


def _serve(pipe, model, name, folder, device, precision, instructions):
    restrict(instructions)
    way = make(model, name, data.load(folder)[0], device, precision)
    batches = endless(way.loader)
    rate(way, batches, 2, device)
    pipe.send(getattr(way, "facts", {}))
    with contextlib.suppress(EOFError):
        while True:
            pipe.send((rate(way, batches, pipe.recv(), device), machine.peak_memory_gb(device)))


def losses(folder, convolutions, instructions):
    """Return the training losses of LOSS_STEPS steps of ResNet-18 by LOSS_RECIPE."""
    restrict(instructions)
    learner, batches, _ = build("resnet18", LOSS_RECIPE, 0, data.load(folder)[0], convolutions=convolutions)
    batches = endless(batches)
    return [float(learner.step(*next(batches))) for _ in range(LOSS_STEPS)]


def augmentation_rates(folder, device):
    """Return images per second of our augmentation and of the student's transforms in one process, without a network."""
    train = data.load(folder)[0]
    there = train.to(device)
    ours = iter(data.Batches(there, REPORT.batch_size, seed=0, **preparation(REPORT, there)))
    student, rates = StudentCifar(train), {}
    next(ours)
    started = time.perf_counter()
    images = sum(len(y) for (_, y), _ in zip(ours, range(60)))
    wait(device)
    rates["ours"] = images / (time.perf_counter() - started)
    started = time.perf_counter()
    for index in range(2000):
        student[index]
    rates["student"] = 2000 / (time.perf_counter() - started)
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=cli.positive, default=3)
    parser.add_argument("--steps", type=cli.positive, help="of each turn (4 on a CPU, else 50)")
    parser.add_argument("--device", choices=machine.DEVICES, default="auto")
    parser.add_argument("--instructions", choices=("native", "avx2"), default="native")
    options = parser.parse_args()
    device = machine.choose_device(options.device)
    precision = machine.choose_precision("auto" if options.instructions == "native" else "fp32", device)
    steps = options.steps or (4 if device == "cpu" else 50)
    if options.instructions == "avx2":
        os.environ.update(AVX2)  # which the processes below start with
    folder = str(download.find(options.data)[0])
    start = (folder, device, precision, options.instructions)

    winograd = device == "cpu" and precision == "fp32"
    if winograd:
        native.load(SOURCE)  # else there is nothing to compare
    document = described(device, precision) | {"instructions": options.instructions, "steps": steps}
    document["matmul_flops"] = in_a_process(matmul_flops, device, precision)
    document["augmentation"] = in_a_process(augmentation_rates, folder, device)
    document["ways"] = {}
    for model, names in GROUPS["cuda" if device == "cuda" else "cpu"].items():
        names = [name for name in names if winograd or not name.startswith("winograd")]
        document["ways"][model] = turns(model, names, options.rounds, steps, start)
    if winograd:
        document["losses"] = {
            how: in_a_process(losses, folder, how, options.instructions) for how in ("direct", "winograd")
        }
    cli.write_json(HERE / "project3.json", document)
    write_page(document)


def median(way):
    return float(np.median(way["rates"]))


def write_page(document):
    """Write project3.md from project3.json's content: one row per network, then what the bars are about in sentences."""
    rows, peak = [], document["matmul_flops"]
    for model, ways in document["ways"].items():
        row = {"network": model}
        for name in ("student", "airbench94", "direct", "winograd"):
            row[f"{name}, images/s"] = f"{median(ways[name]):.1f}" if name in ways else ""
        best = ways.get("winograd", ways["direct"])
        row["winograd : direct"] = f"{median(best) / median(ways['direct']):.2f}" if "winograd" in ways else ""
        row["GFLOP/s, counted as direct"] = f"{median(best) * training_flops(model) / 1e9:.0f}"
        row["of a matrix product's"] = f"{median(best) * training_flops(model) / peak:.2f}"
        row["peak memory, direct, GB"] = ways["direct"]["peak_memory_gb"]
        row["winograd, GB"] = ways["winograd"]["peak_memory_gb"] if "winograd" in ways else ""
        row["compiling, s"] = f"{best['compile_seconds']:.0f}"
        rows.append(row)
    sections = [setting(document), rows, resnet_sentence(document), airbench_sentence(document)]
    sections += [loss_sentence(document)] if "losses" in document else []
    tables.write_markdown(HERE / "project3.md", "Speed of project 3", sections, "full")
    print(tables.markdown(rows) + "\n".join(sections[2:]))


def setting(document):
    rounds = len(next(iter(document["ways"]["resnet18"].values()))["rates"])
    kept = ", kept to AVX2" if document["instructions"] == "avx2" else ""
    return (
        f"{document['machine']}{kept}, {document['cores']} cores, torch {document['torch']}, {document['precision']};"
        f" medians of {rounds} rounds of {document['steps']} steps each, in turns."
        f" A {MATRIX}x{MATRIX} matrix product reaches {document['matmul_flops'] / 1e9:.0f} GFLOP/s here."
    )


def resnet_sentence(document):
    ways, alone = document["ways"]["resnet18"], document["augmentation"]
    student, ours = median(ways["student"]), median(ways.get("winograd", ways["direct"]))
    return (
        f"ResNet-18's step by the report's recipe is {ours / student:.2f} times as fast as the student's: an epoch of 45,000"
        f" images takes {45_000 / ours:.0f} s, the student's {45_000 / student:.0f} s. Augmentation alone runs at"
        f" {alone['ours']:.0f} images/s, the student's at {alone['student']:.0f}."
    )


def airbench_sentence(document):
    ways = document["ways"]["fast94"]
    images = AIRBENCH94.epochs * 50_000
    published = images / median(ways["airbench94"])
    how = "winograd" if "winograd" in ways else "direct"
    whole, small = ways[how], ways[f"{how}, small images"]
    steps, low_res_steps = whole["steps"], whole["low_res_steps"]
    ours = FAST.batch_size * (low_res_steps / median(small) + (steps - low_res_steps) / median(whole))
    return (
        f"fast94 trains {steps} steps of {FAST.batch_size} images, {low_res_steps} of them with small images at"
        f" {median(small):.0f} images/s, in {ours:.0f} s; airbench94 trains on {images:,} images in {published:.0f} s."
        f" That is {ours / published:.2f} of its time; compiling takes {whole['compile_seconds']:.0f} s more."
    )


def loss_sentence(document):
    direct, winograd = (np.array(document["losses"][how]) for how in ("direct", "winograd"))
    first = {steps: np.abs(winograd[:steps] / direct[:steps] - 1).max() for steps in (1, 10, LOSS_STEPS)}
    last = {how: np.mean(values[-20:]) for how, values in (("direct", direct), ("winograd", winograd))}
    return (
        f"{LOSS_STEPS} steps of ResNet-18 in batches of {LOSS_RECIPE.batch_size} at a learning rate of {LOSS_RECIPE.lr}: the losses differ by {first[1]:.0e} in the first"
        f" step, {first[10]:.0e} within ten and {first[LOSS_STEPS]:.0e} within all; the last twenty average"
        f" {last['direct']:.4f} with direct and {last['winograd']:.4f} with Winograd's convolutions."
    )


if __name__ == "__main__":
    cli.entry_point(main)
