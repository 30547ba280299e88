"""How fast are tasks 3 and 4 beside what a student would write, on this machine, in one run?

    python benchmarks/assignment.py [--data DIR] [--rounds N] [--seconds S] [--device cpu|cuda]

The student's way is the official PyTorch tutorial's: torchvision's dataset and transforms, a DataLoader with two workers, one
plain loop with loss.item() after another. Ours is what the tasks run. The two take turns, so that a machine that slows down
slows both. Writes benchmarks/assignment.json and assignment.md.
"""

import argparse
import multiprocessing
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import torch
import torch.nn.functional as F
from torch import nn
from torchvision import datasets, transforms

from benchmarks.measuring import described, endless
from common import cli, data, sweep, tables
from common.support import download, machine
from task3_hparams.main import BASE, CONFIGS
from task4_architectures.main import BASE as BASE4
from task4_architectures.main import CONFIGS as RUNS4

SEVEN = {
    name: BASE | change | {"epochs": 5} for name, change in list(CONFIGS.items())[:7]
}  # length is no part of speed
RESNET = {"lightweight_resnet": BASE4 | RUNS4["lightweight_resnet"]}
COMPARED_STEPS = 200


class TutorialNet(nn.Module):
    """LeNet as the report's section 3.2.2 gives it."""

    def __init__(self, dropout):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(x.size()[0], -1)
        x = self.dropout(F.relu(self.fc1(x)))
        return self.fc3(F.relu(self.fc2(x)))


class TutorialCifar(datasets.CIFAR10):
    """torchvision's dataset, item by item its own code, on images that are already here."""

    def __init__(self, images):
        self.data = images.images.permute(0, 2, 3, 1).numpy()
        self.targets = images.labels.tolist()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
        self.target_transform = None


class Student:
    """One run after another; a turn trains all of them for an equal share of its seconds."""

    def __init__(self, runs, train, device):
        self.device, self.trainings = device, []
        for run in runs.values():
            torch.manual_seed(0)
            model = TutorialNet(run["dropout"]) if run["model"] == "lenet" else sweep.make_model(run, 0, "cpu")
            model.to(device)
            optimizer = torch.optim.SGD(
                model.parameters(), lr=run["lr"], momentum=run["momentum"], weight_decay=run["weight_decay"]
            )
            loader = torch.utils.data.DataLoader(TutorialCifar(train), run["batch_size"], shuffle=True, num_workers=2)
            self.trainings.append((model, optimizer, loader))

    def turn(self, seconds):
        """Images a second of `seconds` of training, the starting of workers left out."""
        images = spent = 0
        for model, optimizer, loader in self.trainings:
            batches = endless(loader)
            for _ in range(3):
                self.step(model, optimizer, *next(batches))
            started = time.perf_counter()
            while time.perf_counter() - started < seconds / len(self.trainings):
                images += self.step(model, optimizer, *next(batches))
            spent += time.perf_counter() - started
        return images / spent

    def step(self, model, optimizer, x, y):
        x, y = x.to(self.device), y.to(self.device)
        optimizer.zero_grad()
        loss = nn.CrossEntropyLoss()(model(x), y)
        loss.backward()
        optimizer.step()
        loss.item()
        return len(y)


class Ours:
    """As `study` trains: a process a core, each with a seed of its own."""

    def __init__(self, runs, folder, device, precision):
        context = multiprocessing.get_context("spawn")
        count = machine.cores() if device == "cpu" else 1
        self.pipes = []
        for seed in range(count):
            mine, theirs = context.Pipe()
            context.Process(target=_ours, args=(theirs, runs, folder, device, precision, seed), daemon=True).start()
            theirs.close()  # so that the end of a process that fails is seen here
            self.pipes.append(mine)
        self.ready = [pipe.recv() for pipe in self.pipes]

    def turn(self, seconds):
        for pipe in self.pipes:
            pipe.send(seconds)
        return sum(pipe.recv() for pipe in self.pipes)

    def close(self):
        for pipe in self.pipes:
            pipe.send(None)


def _ours(pipe, runs, folder, device, precision, seed):
    torch.set_num_threads(1)
    learner, batches = ours(runs, data.load(folder)[0], torch.device(device), precision, seed)
    batches = endless(batches)
    for _ in range(3):  # compiles
        learner.step(*next(batches))
    pipe.send("ready")
    while (seconds := pipe.recv()) is not None:
        images, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            losses = learner.step(*next(batches))
            images += losses.numel() * learner_batch(runs)
        losses.sum().item()  # wait for the device
        pipe.send(images / (time.perf_counter() - started))


def learner_batch(runs):
    return next(iter(runs.values()))["batch_size"]


def ours(runs, train, device, precision, seed):
    """The learner and batches that `study` would train these runs with."""
    train = train.to(device)
    job = {"names": list(runs), "configs": list(runs.values()), "seeds": [seed], "epochs": 5}
    batches = [data.Batches(train, learner_batch(runs), seed=seed, stats=data.TUTORIAL_STATS)]
    build = sweep.stacked_learner if sweep.stackable(job["configs"][0]["model"]) else sweep.single_learner
    return build(job, batches, device, precision)


def same_losses(train):
    """Largest difference between the losses of both ways over the first steps of the seven runs, dropout off, same batches."""
    without = {name: run | {"dropout": 0.0} for name, run in SEVEN.items()}
    learner, batches = ours(without, train, torch.device("cpu"), "fp32", 0)
    students = []
    for run in without.values():
        torch.manual_seed(0)
        model = TutorialNet(0.0)
        hyperparameters = {name: run[name] for name in ("lr", "momentum", "weight_decay")}
        students.append((model, torch.optim.SGD(model.parameters(), **hyperparameters)))
    worst = 0.0
    for _, (x, y) in zip(range(COMPARED_STEPS), batches):
        losses = learner.step(x, y)[0]
        for mine, (model, optimizer) in zip(losses, students):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[0]), y[0])
            loss.backward()
            optimizer.step()
            worst = max(worst, abs(loss.item() - mine.item()))
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=cli.positive, default=3)
    parser.add_argument("--seconds", type=cli.positive, default=20, help="of each turn")
    parser.add_argument("--device", choices=machine.DEVICES, default="auto")
    options = parser.parse_args()
    device = machine.choose_device(options.device)
    precision = machine.choose_precision("auto", device)
    folder, _ = download.find(options.data)
    train, _ = data.load(folder)

    document = described(device, precision) | {"rounds": {}}
    for name, runs in (
        ("task 3, seven runs of LeNet, batch 4", SEVEN),
        ("task 4, LightweightResNet, batch 64", RESNET),
    ):
        student, we = Student(runs, train, device), Ours(runs, str(folder), device, precision)
        rounds = []
        for number in range(options.rounds):
            rounds.append({"student": student.turn(options.seconds), "ours": we.turn(options.seconds)})
            print(
                f"{name}, round {number + 1}: "
                + ", ".join(f"{who} {rate:.0f} images/s" for who, rate in rounds[-1].items())
            )
        we.close()
        document["rounds"][name] = rounds
    document["largest loss difference"] = same_losses(train)

    rows = []
    for name, rounds in document["rounds"].items():
        rates = {who: [turn[who] for turn in rounds] for who in ("student", "ours")}
        ratio = sum(rates["ours"]) / sum(rates["student"])
        rows.append(
            {"what": name}
            | {f"{who}, images/s": tables.mean_std(values, 0) for who, values in rates.items()}
            | {"ratio": f"{ratio:.1f}"}
        )
    words = f"{document['machine']}, {document['cores']} cores, torch {document['torch']}, task 4 in {precision}; {options.rounds} rounds of {options.seconds} s each, in turns."
    check = f"With dropout off, the losses of {COMPARED_STEPS} steps of all seven runs differ by {document['largest loss difference']:.1e} at most."
    cli.write_json(HERE / "assignment.json", document)
    tables.write_markdown(
        HERE / "assignment.md", "Speed of the assignment beside a student's way", [words, rows, check], "full"
    )
    print(tables.markdown(rows) + check)


if __name__ == "__main__":
    cli.entry_point(main)
