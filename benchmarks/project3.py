"""How fast is project 3 beside what a student would write, on this machine, in one run?

    python benchmarks/project3.py [--data DIR] [--rounds N] [--steps N] [--device cpu|cuda]

ResNet-18 by the report's recipe: the student's way (torchvision's dataset and transforms, the report's own Cutout, a DataLoader
with two workers, fp32, loss.item()) and ours take turns, so that a machine that slows down slows both. Then augmentation alone,
and fast94 beside the machine's own rate of matrix products. Writes benchmarks/project3.json and project3.md.
"""

import argparse
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import numpy as np
import torch
from torch import nn
from torchvision import datasets, transforms

from common import cli, data, download, tables
from common.learners import Network
from common.models import MODELS, forward_flops
from project3_wrn import fast
from project3_wrn.recipes import RECIPES, Recipe
from project3_wrn.train import loss_of, preparation

REPORT, FAST = Recipe(), RECIPES["fast94"]
MATRIX = 3072


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

    def batches(self):
        while True:
            yield from self.loader

    def step(self, x, y):
        x, y = x.to(self.device), y.to(self.device)
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()


class Ours:
    def __init__(self, model, recipe, train, device, precision):
        torch.manual_seed(0)
        network = MODELS[model]().to(device).to(memory_format=torch.channels_last)
        kind = fast.AlternatingFlips if recipe.fast else data.Batches
        self.loader = kind(train.to(device), recipe.batch_size, seed=0, **preparation(recipe, train))
        hyperparameters = {name: getattr(recipe, name) for name in ("lr", "momentum", "weight_decay")}
        sgd = torch.optim.SGD(network.parameters(), **hyperparameters, fused=True)
        options = {"loss": loss_of(recipe), "precision": precision, "compiled": True}
        if recipe.fast:
            steps = {"epoch_steps": len(self.loader)}
            self.learner = fast.Fast(network, fast.optimizer(network, recipe), **steps, **options)
        else:
            self.learner = Network(network, sgd, **options)

    def batches(self):
        while True:
            yield from self.loader

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


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def matmul_flops(device, precision):
    """Floating-point operations a second of a large square matrix product: the machine's practical ceiling."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(MATRIX, MATRIX, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * MATRIX**3 / best


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
    train, _ = data.load(download.find(options.data)[0])

    document = {"machine": cli.cpu_name() if device == "cpu" else torch.cuda.get_device_name(), "cores": cli.cores()}
    document |= {"torch": torch.__version__, "precision": precision, "git_commit": cli.git_commit(), "steps": steps}
    student, we = Student(train, device), Ours("resnet18", REPORT, train, device, precision)
    theirs, mine = student.batches(), we.batches()
    rate(student, theirs, 1, device), rate(we, mine, 2, device)  # workers start, the step is compiled
    document["resnet18"] = []
    for number in range(options.rounds):
        document["resnet18"].append(
            {"student": rate(student, theirs, steps, device), "ours": rate(we, mine, steps, device)}
        )
        print(f"ResNet-18, round {number + 1}: {document['resnet18'][-1]}", flush=True)
    del student, theirs, we, mine

    document["augmentation"] = augmentation_rate(train, device)
    quick = Ours("fast94", FAST, train, device, precision)
    batches = quick.batches()
    rate(quick, batches, 2, device)
    document["fast94"] = [rate(quick, batches, steps, device) for _ in range(options.rounds)]
    document["matmul_flops"] = matmul_flops(device, precision)
    document["fast94_flops_per_image"] = 3 * forward_flops(MODELS["fast94"]())  # backward is twice forward
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
    achieved = np.mean(document["fast94"]) * document["fast94_flops_per_image"]
    words = f"{document['machine']}, {document['cores']} cores, torch {document['torch']}, ours in {document['precision']}; {len(document['resnet18'])} rounds of {document['steps']} steps each, in turns. A ResNet-18 epoch of 45,000 images is {45_000 / np.mean(rates['student']):.0f} s in the student's way and {45_000 / np.mean(rates['ours']):.0f} s in ours."
    share = f"fast94 trains {tables.pm(document['fast94'], 0)} images/s: {achieved / 1e9:.0f} GFLOP/s, {100 * achieved / document['matmul_flops']:.0f}% of the {document['matmul_flops'] / 1e9:.0f} GFLOP/s that a {MATRIX}x{MATRIX} matrix product reaches here."
    tables.write_markdown(
        HERE / "project3.md", "Speed of project 3 beside a student's way", [words, rows, share], "full"
    )
    print(tables.markdown(rows) + share)


if __name__ == "__main__":
    cli.run(main)
