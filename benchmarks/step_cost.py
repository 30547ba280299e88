"""How much time do L2 and dropout cost? Milliseconds per step of LeNet without, with one and with both.

    python benchmarks/step_cost.py [--device auto|cpu|cuda|mps] [--steps N]

The networks are those of task 2, with torch's own nn.Dropout, each trained alone in one thread; they take turns.
Writes the milliseconds of every round to task2_regularization/outputs/cost.json, from which
`python task2_regularization/main.py --redraw` takes them.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.measuring import make_parser
from common import cli, data, sweep, tables
from common.support import machine
from task2_regularization.main import BASE, COMPARED, CONFIGS, TASK

ROUNDS = 10


def step_costs(device, steps):
    """Return {configuration: milliseconds per step in each of ROUNDS rounds of `steps` steps}."""
    train_set = data.load("quick")[0].to(device)
    learners = {}
    for name in COMPARED:
        job = sweep.Job({name: {**BASE, **CONFIGS[name]}}, [0])
        batches = data.Batches(train_set, BASE["batch_size"], seed=0, stats=data.TUTORIAL_STATS)
        learner, batches = sweep.single_learner(job, [batches], device, "fp32")
        # ours costs more; it exists to be stacked
        learner.model.dropout = torch.nn.Dropout(job.shared["dropout"])
        learners[name] = learner, batches
    milliseconds = {name: [] for name in COMPARED}
    for _ in range(ROUNDS):
        for name, (learner, batches) in learners.items():
            prepared = [batch for _, batch in zip(range(steps), batches)]
            started = time.perf_counter()
            for x, y in prepared:
                loss = learner.step(x, y)
            loss.item()  # waits for the device
            milliseconds[name].append((time.perf_counter() - started) / len(prepared) * 1000)
    return milliseconds


def main():
    """Measure and write cost.json."""
    parser = make_parser(__doc__, "device")
    parser.add_argument("--steps", type=cli.positive, default=300, metavar="N", help="steps per round (default: 300)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    costs = step_costs(torch.device(machine.choose_device(args.device)), args.steps)
    for name, times in costs.items():
        print(f"{name}: {tables.mean_std(times)} ms per step")
    cli.write_json(TASK / "outputs" / "cost.json", costs)


if __name__ == "__main__":
    cli.entry_point(main)
