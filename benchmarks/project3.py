"""How fast is project 3 beside what a student would write, on this machine, in one run?

    python benchmarks/project3.py [--data DIR] [--rounds N] [--steps N] [--device cpu|cuda]

ResNet-18 by the report's recipe: the student's way (torchvision's dataset and transforms, the report's own Cutout, a DataLoader
with two workers, fp32, loss.item()) and ours take turns, each in a process of its own, so that a machine that slows down slows
both. Then augmentation alone; and fast94, with the memory that a step frees kept or given back to the system, beside the
machine's own rate of matrix products. Writes benchmarks/project3.json and project3.md.
"""

import argparse
import contextlib
import multiprocessing
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import numpy as np
import torch
from torch import nn
from torchvision import datasets, transforms

from benchmarks.machine import MATRIX, described, endless, matmul_flops, training_flops, wait
from common import cli, data, download, learners, tables
from common.models import MODELS
from project3_wrn.recipes import RECIPES, Recipe
from project3_wrn.train import build, preparation

REPORT, FAST = Recipe(), RECIPES["fast94"]


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
    """torchvision's dataset, item by item its own code, on images that are already here."""

    def __init__(self, images):
        self.data = images.images.permute(0, 2, 3, 1).numpy()
        self.targets = images.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(*data.PIXEL),
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


class Ours:
    def __init__(self, model, recipe, train, device, precision):
        self.learner, self.loader, _ = build(model, recipe, 0, train.to(device), precision=precision)
        self.learner.compile(*self.loader.example())

    def step(self, x, y):
        return self.learner.step(x, y)


def rate(way, batches, steps, device):
    """Images a second of `steps` steps."""
    images, started = 0, time.perf_counter()
    for _ in range(steps):
        x, y = next(batches)
        way.step(x, y)
        images += len(y)
    wait(device)
    return images / (time.perf_counter() - started)


def way_of(name, train, device, precision):
    if name == "student":
        return Student(train, device)
    if name == "given back":
        learners.keep_freed_memory = lambda: None
    model, recipe = ("resnet18", REPORT) if name == "ours" else ("fast94", FAST)
    return Ours(model, recipe, train, device, precision)


def turns(names, rounds, steps, folder, device, precision):
    """[{name: images a second}], a dict a round, of ways that take turns; each has a process, hence a memory, of its own."""
    context = multiprocessing.get_context("spawn")
    rates, pipes = [], {}
    with contextlib.ExitStack() as stack:
        for name in names:
            pipes[name], theirs = context.Pipe()
            stack.callback(pipes[name].close)  # which ends its process
            # not a daemon: the student's DataLoader has processes too
            context.Process(target=_serve, args=(theirs, name, folder, device, precision)).start()
            theirs.close()  # so that the end of a process that fails is seen here
            pipes[name].recv()  # workers have started, the step is compiled
        for number in range(rounds):
            rates.append({})
            for name, pipe in pipes.items():
                pipe.send(steps)
                rates[-1][name] = pipe.recv()
            told = ", ".join(f"{name} {value:.1f}" for name, value in rates[-1].items())
            print(f"round {number + 1} of {rounds}, images/s: {told}", flush=True)
    return rates


def _serve(pipe, name, folder, device, precision):
    way = way_of(name, data.load(folder)[0], device, precision)
    batches = endless(way.loader)
    rate(way, batches, 2, device)
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(rate(way, batches, pipe.recv(), device))


def augmentation_rate(train, device):
    """Images a second of ours and of the student's transforms in one process, model aside."""
    ours = iter(data.Batches(train.to(device), REPORT.batch_size, seed=0, **preparation(REPORT, train)))
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
    parser.add_argument("--device", choices=cli.DEVICES, default="auto")
    options = parser.parse_args()
    device = cli.choose_device(options.device)
    precision = cli.choose_precision("auto", device)
    steps = options.steps or (4 if device == "cpu" else 50)
    folder, _ = download.find(options.data)
    measure = lambda *names: turns(names, options.rounds, steps, str(folder), device, precision)

    document = described(device, precision) | {"steps": steps}
    document["resnet18"] = measure("student", "ours")
    document["augmentation"] = augmentation_rate(data.load(folder)[0], device)
    document["fast94"] = measure("kept", "given back")
    document["matmul_flops"] = matmul_flops(device, precision)
    document["fast94_flops_per_image"] = training_flops("fast94")
    cli.write_json(HERE / "project3.json", document)
    page(document)


def page(document):
    rates = {who: [turn[who] for turn in document["resnet18"]] for who in ("student", "ours")}
    alone = document["augmentation"]
    rows = [
        {"what": "ResNet-18, the report's recipe, whole step"}
        | {f"{who}, images/s": tables.pm(values, 0) for who, values in rates.items()}
        | {"ratio": f"{sum(rates['ours']) / sum(rates['student']):.1f}"},
        {"what": "its augmentation alone, one process"}
        | {f"{who}, images/s": f"{alone[who]:.0f}" for who in ("student", "ours")}
        | {"ratio": f"{alone['ours'] / alone['student']:.1f}"},
    ]
    kept, given_back = ([turn[how] for turn in document["fast94"]] for how in ("kept", "given back"))
    achieved = np.mean(kept) * document["fast94_flops_per_image"]
    words = f"{document['machine']}, {document['cores']} cores, torch {document['torch']}, ours in {document['precision']}; {len(document['resnet18'])} rounds of {document['steps']} steps each, in turns. A ResNet-18 epoch of 45,000 images is {45_000 / np.mean(rates['student']):.0f} s in the student's way and {45_000 / np.mean(rates['ours']):.0f} s in ours."
    share = f"fast94 trains {tables.pm(kept, 0)} images/s ({tables.pm(given_back, 0)} where freed memory goes back to the system): {achieved / 1e9:.0f} GFLOP/s, {100 * achieved / document['matmul_flops']:.0f}% of the {document['matmul_flops'] / 1e9:.0f} GFLOP/s that a {MATRIX}x{MATRIX} matrix product reaches here."
    tables.write_markdown(
        HERE / "project3.md", "Speed of project 3 beside a student's way", [words, rows, share], "full"
    )
    print(tables.markdown(rows) + share)


if __name__ == "__main__":
    cli.run(main)
