"""How fast are tasks 3 and 4 compared with what a student would write, on this machine, in one run?

    python benchmarks/assignment.py [--data DIR] [--rounds N] [--seconds S] [--device cpu|cuda] [--redraw]

The student's way is the official PyTorch tutorial's: torchvision's dataset and transforms, a DataLoader with two
workers, and a plain loop with loss.item(), one configuration after another. Ours is what the tasks run. The two take
turns, so that a machine that slows down slows both. Writes benchmarks/assignment.json and, with --redraw from that file
alone, assignment.md.
"""

import multiprocessing
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.measuring import describe_machine, in_memory_cifar, make_parser, repeat
from common import cli, data, sweep, tables
from common.support import machine
from common.support.errors import reading
from task3_hparams import main as task3
from task4_architectures import main as task4

EPOCHS = 5  # the epochs of every LeNet: their number does not change images per second
# the report's seven configurations of task 3, and the residual network of task 4
LENETS = {name: {**task3.BASE, **change, "epochs": EPOCHS} for name, change in list(task3.CONFIGS.items())[:7]}
RESNET = {"lightweight_resnet": {**task4.BASE, **task4.CONFIGS["lightweight_resnet"]}}
GROUPS = {"task 3, seven runs of LeNet, batch 4": LENETS, "task 4, LightweightResNet, batch 64": RESNET}
HYPERPARAMETERS = ("lr", "momentum", "weight_decay")
WARM_UP = 3  # steps that are not measured: they compile
COMPARED_STEPS = 200


class TutorialNet(nn.Module):
    """LeNet as section 3.2.2 of the report gives it."""

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


class Student:
    """Configurations trained one after another; each gets an equal share of the seconds of a turn."""

    def __init__(self, configs, train_set, device):
        from torchvision import transforms  # not at the top: --help would wait for it

        self.device, self.trainings = device, []
        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
        dataset = in_memory_cifar(train_set, transform)
        for config in configs.values():
            torch.manual_seed(0)
            lenet = config["model"] == "lenet"
            model = TutorialNet(config["dropout"]) if lenet else sweep.make_model(config, 0, "cpu")
            model.to(device)
            optimizer = torch.optim.SGD(model.parameters(), **{name: config[name] for name in HYPERPARAMETERS})
            loader = torch.utils.data.DataLoader(dataset, config["batch_size"], shuffle=True, num_workers=2)
            self.trainings.append((model, optimizer, loader))

    def turn(self, seconds):
        """Train for `seconds`; return images per second, without the start of the DataLoader's workers."""
        images = spent = 0
        for model, optimizer, loader in self.trainings:
            batches = repeat(loader)
            for _ in range(WARM_UP):
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
    """Configurations trained as `sweep.run` does: in one process per core, each with its own seed."""

    def __init__(self, configs, folder, device, precision):
        context = multiprocessing.get_context("spawn")
        count = machine.cores() if device == "cpu" else 1
        self.pipes = []
        for seed in range(count):
            ours, theirs = context.Pipe()
            arguments = (theirs, configs, folder, device, precision, seed)
            context.Process(target=_serve, args=arguments, daemon=True).start()
            theirs.close()  # so that the end of a process that fails is seen here
            self.pipes.append(ours)
        for pipe in self.pipes:
            pipe.recv()

    def turn(self, seconds):
        """Train for `seconds`; return images per second, added up over configurations and processes."""
        for pipe in self.pipes:
            pipe.send(seconds)
        return sum(pipe.recv() for pipe in self.pipes)

    def close(self):
        for pipe in self.pipes:
            pipe.send(None)


def _serve(pipe, configs, folder, device, precision, seed):
    torch.set_num_threads(1)
    train_set, _, _ = data.load("full", folder)
    learner, batches = make_learner(configs, train_set, torch.device(device), precision, seed)
    batch_size = next(iter(configs.values()))["batch_size"]
    batches = repeat(batches)
    for _ in range(WARM_UP):
        learner.step(*next(batches))
    pipe.send("ready")
    while (seconds := pipe.recv()) is not None:
        images, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            losses = learner.step(*next(batches))
            images += losses.numel() * batch_size
        losses.sum().item()  # waits for the device
        pipe.send(images / (time.perf_counter() - started))


def make_learner(configs, train_set, device, precision, seed):
    """Return the learner and batches that `sweep.run` trains these configurations with."""
    return sweep.make_learner(sweep.Job(configs, [seed]), train_set.to(device), device, precision)


def largest_loss_difference(train_set):
    """Return the largest difference between the losses of both ways: seven LeNets without dropout, the same batches."""
    configs = {name: {**config, "dropout": 0.0} for name, config in LENETS.items()}
    learner, batches = make_learner(configs, train_set, torch.device("cpu"), "fp32", 0)
    students = []
    for config in configs.values():
        torch.manual_seed(0)
        model = TutorialNet(0.0)
        optimizer = torch.optim.SGD(model.parameters(), **{name: config[name] for name in HYPERPARAMETERS})
        students.append((model, optimizer))
    largest = 0.0
    for _, (x, y) in zip(range(COMPARED_STEPS), batches):
        losses = learner.step(x, y)[0]
        for ours, (model, optimizer) in zip(losses, students):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[0]), y[0])
            loss.backward()
            optimizer.step()
            largest = max(largest, abs(loss.item() - ours.item()))
    return largest


def main():
    """Measure both ways, unless --redraw, and write the page."""
    parser = make_parser(__doc__, "data", "rounds", "device", "redraw")
    parser.add_argument("--seconds", type=cli.positive, default=20, metavar="S", help="length of a turn (default: 20)")
    args = parser.parse_args()
    if not args.redraw:
        cli.write_json(HERE / "assignment.json", measure(args))
    with reading(HERE):
        write_page(cli.read_json(HERE / "assignment.json"))


def measure(args):
    """Return the content of assignment.json."""
    device = machine.choose_device(args.device)
    precision = machine.choose_precision("auto", device)
    train_set, _, _ = data.load("full", args.data)
    measured = {}
    for group, configs in GROUPS.items():
        student, ours = Student(configs, train_set, device), Ours(configs, args.data, device, precision)
        measured[group] = []
        for number in range(args.rounds):
            rates = {"student": student.turn(args.seconds), "ours": ours.turn(args.seconds)}
            measured[group].append(rates)
            text = ", ".join(f"{name} {rate:.0f} images/s" for name, rate in rates.items())
            print(f"{group}, round {number + 1}: {text}", flush=True)
        ours.close()
    return {
        **describe_machine(device, precision),
        "seconds": args.seconds,
        "rounds": measured,
        "largest loss difference": largest_loss_difference(train_set),
    }


def write_page(document):
    """Write assignment.md: one row per group."""
    rows = []
    for group, rounds in document["rounds"].items():
        student, ours = ([rates[name] for rates in rounds] for name in ("student", "ours"))
        rows.append(
            {
                "what": group,
                "student, images/s": tables.mean_std(student, 0),
                "ours, images/s": tables.mean_std(ours, 0),
                "ratio": f"{sum(ours) / sum(student):.1f}",
            }
        )
    setting = (
        f"{document['machine']}, {document['cores']} cores, torch {document['torch']},"
        f" task 4 in {document['precision']}; {len(rounds)} rounds of {document['seconds']} s each, in turns."
    )
    check = (
        f"With dropout off, the losses of {COMPARED_STEPS} steps of all seven runs differ by at most"
        f" {document['largest loss difference']:.1e}."
    )
    title = "Speed of the assignment compared with a student's way"
    tables.write_markdown(HERE / "assignment.md", title, [setting, rows, check], "full", ("en",))
    print(tables.markdown(rows) + check)


if __name__ == "__main__":
    cli.entry_point(main)
