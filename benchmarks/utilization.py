"""How much of the machine does each training use, and where does the rest go?

    python benchmarks/utilization.py [--data DIR] [--device cpu|cuda] [--steps N] [--models NAME ...]

For each network, trained as its task trains it: images and floating-point operations a second, those as a share of what a large
matrix product reaches here, and what the step's time is spent on, by torch's profiler. Writes benchmarks/utilization.json and shares.md.
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.measuring import MATRIX, described, endless, matmul_flops, training_flops, wait
from common import cli, data, sweep, tables
from common.support import download, machine
from project3_wrn.method import train as project3
from project3_wrn.method.recipes import RECIPES, get_recipe
from task3_hparams.main import BASE, CONFIGS
from task4_architectures.main import BASE as BASE4
from task4_architectures.main import CONFIGS as RUNS4

NETWORKS = ("lenet", "lightweight_resnet", "resnet18", "wrn28_10", "fast94", "fast95", "fast96")
ON_A_CPU = ("lenet", "lightweight_resnet", "resnet18", "fast94")  # the others take minutes a step
LENET_SEEDS = 5
KINDS = {  # what a profiler's event counts as, by the first of these words in its name
    "fused by the compiler": ("triton", "compiled", "inductor", "graph_", "cpp_fused"),
    "convolutions and matrix products": (
        "conv",
        "winograd",
        "gemm",
        "mm",
        "matmul",
        "linear",
        "cutlass",
        "xmma",
        "implicit",
        "wgrad",
        "dgrad",
    ),
    "normalisation": ("batch_norm", "bn_", "layer_norm"),
    "pooling": ("pool",),
    "optimiser": ("sgd", "adam", "foreach", "multi_tensor"),
    "copies": ("copy", "memcpy", "to_copy", "index", "cat"),
}


def training_of(model, train, device, precision):
    """(learner, its batches without end, members trained at once, images a step of each member)."""
    if model in ("lenet", "lightweight_resnet"):
        lenets = {name: BASE | change | {"epochs": 5} for name, change in list(CONFIGS.items())[:7]}
        runs = lenets if model == "lenet" else {model: BASE4 | RUNS4[model]}
        job = {
            "names": list(runs),
            "configs": list(runs.values()),
            "seeds": list(range(LENET_SEEDS if model == "lenet" else 1)),
        }
        size = job["configs"][0]["batch_size"]
        batches = [data.Batches(train, size, seed=seed, stats=data.TUTORIAL_STATS) for seed in job["seeds"]]
        build = sweep.stack if model == "lenet" else sweep.network
        learner, batches = build(job, batches, device, precision)
        return learner, endless(batches), len(job["configs"]) * len(job["seeds"]), size
    # at full size, whose operations are counted
    recipe = dataclasses.replace(RECIPES.get(model) or get_recipe("report", model), low_res_epochs=0.0)
    learner, batches, _ = project3.build(
        model,
        recipe,
        0,
        train,
        precision=precision,
        convolutions=machine.choose_convolutions("auto", device.type, precision),
    )
    learner.compile(*batches.example())
    return learner, endless(batches), 1, recipe.batch_size


def measure(model, train, device, precision, steps):
    learner, batches, members, size = training_of(model, train, device, precision)
    batches = (batch for batch in batches if batch[0].shape[-4] == size)  # a short one is not compiled
    for _ in range(3):  # compiles
        learner.step(*next(batches))
    wait(device.type)
    started = time.perf_counter()
    for _ in range(steps):
        learner.step(*next(batches))
    wait(device.type)
    images = steps * size * members / (time.perf_counter() - started)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as profiled:
        for _ in range(max(1, steps // 5)):
            learner.step(*next(batches))
        wait(device.type)
    flops = training_flops(model)
    return {"images_per_second": images, "flops_per_second": images * flops, "spent": shares_of(profiled, device)}


def shares_of(profiled, device):
    """{kind of work: its share of the time, in per cent}."""
    times, on_cuda = {}, device.type == "cuda"
    for event in profiled.key_averages():
        if on_cuda and (event.device_type != DeviceType.CUDA or event.is_user_annotation):
            continue  # what launched a kernel, which is there itself
        spent = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        name = event.key.lower()
        kind = next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "everything else")
        times[kind] = times.get(kind, 0) + spent
    total = sum(times.values())
    return {kind: round(100 * times.get(kind, 0) / total, 1) for kind in (*KINDS, "everything else")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", choices=machine.DEVICES, default="auto")
    parser.add_argument("--steps", type=cli.positive, help="of each network (5 on a CPU, LeNet's 200; else 200)")
    parser.add_argument("--models", nargs="+", choices=NETWORKS, metavar="NAME")
    options = parser.parse_args()
    device = torch.device(machine.choose_device(options.device))
    precision = machine.choose_precision("auto", device.type)
    train = data.load(download.find(options.data)[0])[0].to(device)
    peak = matmul_flops(device, precision)

    document = described(device.type, precision) | {"matmul_flops": peak}
    rows, document["networks"] = [], {}
    for model in options.models or (ON_A_CPU if device.type == "cpu" else NETWORKS):
        steps = options.steps or (200 if device.type == "cuda" or model == "lenet" else 5)
        measured = document["networks"][model] = measure(model, train, device, precision, steps)
        rate = measured["flops_per_second"]
        row = {"network": model, "images/s": f"{measured['images_per_second']:,.0f}", "GFLOP/s": f"{rate / 1e9:,.1f}"}
        row |= {"of a matrix product's, %": f"{100 * rate / peak:.0f}"}
        rows.append(row | {f"{kind}, %": share for kind, share in measured["spent"].items()})
        print(tables.markdown(rows[-1:]), flush=True)
    words = f"{document['machine']}, {document['cores']} cores, torch {document['torch']}, LeNet in fp32 and the others in {precision}. A {MATRIX}x{MATRIX} matrix product reaches {peak / 1e9:,.0f} GFLOP/s. LeNet is task 3's seven runs with {LENET_SEEDS} seeds as one stack. The shares of time are those of the operations themselves, as torch's profiler names them."
    cli.write_json(HERE / "shares.json", document)
    tables.write_markdown(HERE / "shares.md", "How much of the machine each training uses", [words, rows], "full")


if __name__ == "__main__":
    cli.entry_point(main)
