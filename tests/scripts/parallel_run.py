"""Train LeNet for two epochs whose last batches are short, alone or as one of torchrun's processes; save the results.

python tests/scripts/parallel_run.py FILE
"""

import functools
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import data, training
from common.learners import Learner
from common.models import MODELS
from common.support.checkpoints import Checkpoint
from project3_wrn.method.distributed import DistributedLearner, is_main_process, process_group


def main(path):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train = data.load("quick")[0][:135]  # batches of 20, the last of 15: shares of 8 and 7
    model = MODELS["lenet"](dropout=0.0)
    batches = data.Batches(train, 20, seed=0, stats=data.CIFAR10_STATS)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with process_group("cpu"):
        loss = functools.partial(F.cross_entropy, label_smoothing=0.1)
        learner = (DistributedLearner if dist.is_initialized() else Learner)(model, sgd, loss=loss, precision="fp32")
        checkpoint = Checkpoint(path.with_suffix(".checkpoint"), read_only=not is_main_process())
        history = training.fit(learner, batches, 2, checkpoint=checkpoint)
        same = torch.cat([parameter.flatten() for parameter in model.parameters()])
        if dist.is_initialized():
            dist.all_reduce(same, dist.ReduceOp.MAX)
            assert torch.equal(same, torch.cat([parameter.flatten() for parameter in model.parameters()]))
        if is_main_process():
            kept = {name: torch.from_numpy(history[name]) for name in ("batch_losses", "train_accuracy")}
            torch.save({"weights": learner.weights(), **kept}, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
