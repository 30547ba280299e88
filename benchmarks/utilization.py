"""How much of the machine does each training use, and what is the rest of the time spent on?

    python benchmarks/utilization.py [--data DIR] [--device cpu|cuda] [--steps N] [--models NAME ...] [--redraw]

Each network is trained as its task trains it. The table has images and floating-point operations per second, the latter
also as a share of what a large matrix product reaches here, and what a step's time is spent on, by torch's profiler.
Writes benchmarks/utilization.json and, with --redraw from that file alone, utilization.md.
"""

import dataclasses
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.assignment import LENETS, RESNET
from benchmarks.measuring import describe_machine, make_parser, repeat, synchronize, training_flops
from common import cli, data, sweep, tables
from common.support import machine
from common.support.errors import reading
from project3_wrn.method import train as project3
from project3_wrn.method.recipes import RECIPES, get_recipe

JOBS = {"lenet": sweep.Job(LENETS, list(range(5))), "lightweight_resnet": sweep.Job(RESNET, [0])}
NETWORKS = (*JOBS, "resnet18", "wrn28_10", "fast94", "fast95", "fast96")
ON_A_CPU = (*JOBS, "resnet18", "fast94")  # the others take minutes per step
WARM_UP = 3  # steps that are not measured: they compile
STEPS = {"slow": 5, "fast": 200}  # the default: for a convolutional network on a CPU, and for all others
PROFILED = 5  # a fifth as many steps as are measured are profiled afterwards
OTHER = "everything else"
KINDS = {  # a profiler's event counts as the first kind of which a part of its name is listed
    "fused by the compiler": ("triton", "compiled", "inductor", "graph_", "cpp_fused"),
    "convolutions and matrix products": (
        *("conv", "winograd", "gemm", "mm", "matmul", "linear", "cutlass", "xmma", "implicit", "wgrad", "dgrad"),
    ),
    "normalization": ("batch_norm", "bn_", "layer_norm"),
    "pooling": ("pool",),
    "optimizer": ("sgd", "adam", "foreach", "multi_tensor"),
    "copies": ("copy", "memcpy", "to_copy", "index", "cat"),
}


def make_learner(model, train_set, device, precision):
    """Return (learner, batches, networks trained at once, batch size) as the network's task trains it."""
    if model in JOBS:
        job = JOBS[model]
        learner, batches = sweep.make_learner(job, train_set, device, precision)
        return learner, batches, job.members, job.shared["batch_size"]
    # images of the full size, whose operations are counted
    recipe = dataclasses.replace(RECIPES.get(model) or get_recipe("report", model), low_res_epochs=0.0)
    convolutions = machine.choose_convolutions("auto", device.type, precision)
    backend = project3.Backend(precision, convolutions, compiled=device.type == "cuda")
    learner, batches, _ = project3.build(model, recipe, 0, train_set, backend)
    return learner, batches, 1, recipe.batch_size


def measure(model, train_set, device, precision, steps):
    """Return images and FLOP per second of a network's training, and the shares of its time."""
    learner, batches, members, batch_size = make_learner(model, train_set, device, precision)
    # a short batch is not compiled
    full_batches = (batch for batch in repeat(batches) if batch[0].shape[-4] == batch_size)
    train_steps(learner, full_batches, WARM_UP, device)
    seconds = train_steps(learner, full_batches, steps, device)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as profiler:
        train_steps(learner, full_batches, max(1, steps // PROFILED), device)
    rate = steps * batch_size * members / seconds
    return {
        "images_per_second": rate,
        "flops_per_second": rate * training_flops(model),
        "spent": time_shares(profiler, device),
    }


def train_steps(learner, batches, steps, device):
    """Train for `steps` steps; return the seconds until the device has finished them."""
    started = time.perf_counter()
    for _ in range(steps):
        learner.step(*next(batches))
    synchronize(device.type)
    return time.perf_counter() - started


def time_shares(profiler, device):
    """Return each kind's share of the profiled time, in per cent."""
    times, on_cuda = dict.fromkeys((*KINDS, OTHER), 0), device.type == "cuda"
    for event in profiler.key_averages():
        if on_cuda and (event.device_type != DeviceType.CUDA or event.is_user_annotation):
            continue  # an event that launches a kernel: the kernel is an event of its own
        name = event.key.lower()
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), OTHER)
        times[kind] += event.self_device_time_total if on_cuda else event.self_cpu_time_total
    total = sum(times.values())
    return {kind: round(100 * spent / total, 1) for kind, spent in times.items()}


def main():
    """Measure the networks, unless --redraw, and write the page."""
    parser = make_parser(__doc__, "data", "device", "redraw")
    steps_help = "steps of each network (default: 200; on a CPU 5, of LeNet 200)"
    parser.add_argument("--steps", type=cli.positive, metavar="N", help=steps_help)
    models_help = f"networks to train, of {', '.join(NETWORKS)} (default: all; on a CPU {', '.join(ON_A_CPU)})"
    parser.add_argument("--models", nargs="+", choices=NETWORKS, metavar="NAME", help=models_help)
    args = parser.parse_args()
    if not args.redraw:
        cli.write_json(HERE / "utilization.json", measure_all(args))
    with reading(HERE):
        write_page(cli.read_json(HERE / "utilization.json"))


def measure_all(args):
    """Return the content of utilization.json."""
    device = torch.device(machine.choose_device(args.device))
    precision = machine.choose_precision("auto", device.type)
    train_set = data.load("full", args.data)[0].to(device)
    document = {
        **describe_machine(device.type, precision),
        "matmul_flops": machine.matmul_flops(device, precision),
        "networks": {},
    }
    for model in args.models or (ON_A_CPU if device.type == "cpu" else NETWORKS):
        steps = args.steps or STEPS["slow" if device.type == "cpu" and model != "lenet" else "fast"]
        document["networks"][model] = measure(model, train_set, device, precision, steps)
        print(tables.markdown([table_row(document, model)]), flush=True)
    return document


def table_row(document, model):
    """Return the table's row of a network."""
    measured = document["networks"][model]
    rate = measured["flops_per_second"]
    return {
        "network": model,
        "images/s": f"{measured['images_per_second']:,.0f}",
        "GFLOP/s": f"{rate / 1e9:,.1f}",
        "of a matrix product's, %": f"{100 * rate / document['matmul_flops']:.0f}",
        **{f"{kind}, %": share for kind, share in measured["spent"].items()},
    }


def write_page(document):
    """Write utilization.md: one row per network."""
    size = machine.MATRIX
    setting = (
        f"{document['machine']}, {document['cores']} cores, torch {document['torch']},"
        f" LeNet in fp32 and the others in {document['precision']}."
        f" A {size}x{size} matrix product reaches {document['matmul_flops'] / 1e9:,.0f} GFLOP/s."
        f" LeNet is task 3's seven configurations with {len(JOBS['lenet'].seeds)} seeds as one stack."
        " The shares of time are those of the operations themselves, as torch's profiler names them."
    )
    sections = [setting, [table_row(document, model) for model in document["networks"]]]
    tables.write_markdown(
        HERE / "utilization.md", "How much of the machine each training uses", sections, "full", ("en",)
    )


if __name__ == "__main__":
    cli.entry_point(main)
