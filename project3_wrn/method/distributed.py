"""Data-parallel training by PyTorch's own DDP: `torchrun --nproc_per_node=N project3_wrn/main.py`.

Each process prepares the same global batch from the same generator and trains on its own share of it, so that N processes
compute what one would, but for batch statistics and the hardest-examples loss: those are of a process's share. The first process's
statistics are the ones kept. Dropout draws the same mask in every process, for other images.
"""

import contextlib
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from common.learners import Learner
from common.support.errors import UserError


@contextlib.contextmanager
def processes(device):
    """Join the others that torchrun has started, if any. Yields the device of this process: its own GPU, or `device`."""
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def first():
    """Whether this process is the one that writes and speaks."""
    return int(os.environ.get("RANK", 0)) == 0


def count():
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def wait():
    """Until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def broadcast_from_main(measured):
    """{name: tensor}, the first process's for all: they must stop early at the same epoch, whatever a device rounds."""
    if dist.is_initialized():
        for value in measured.values():
            dist.broadcast(value, 0)
    return measured


class DistributedLearner(Learner):
    def __init__(self, model, optimizer, **options):
        super().__init__(model, optimizer, **options)
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._shared = DistributedDataParallel(model)

    def step(self, x, y):
        """One update from the global batch; the loss of all of it before."""
        if len(x) < self.world:
            raise UserError(
                f"a batch of {len(x)} images cannot be shared by {self.world} processes; choose another --batch-size"
            )
        mine, labels = x[self.rank :: self.world], y[self.rank :: self.world]
        logits = self._forward(mine, self._shared)
        # DDP takes the mean of the gradients, and shares of a short batch may differ in size
        loss = self.loss(logits, labels) * (len(mine) * self.world / len(x))
        self.backward_and_step(loss)
        self._track_accuracy(logits.detach(), labels)
        total = loss.detach() / self.world
        dist.all_reduce(total)
        return total

    def epoch_metrics(self):
        counts = torch.stack([self._correct, torch.full_like(self._correct, self._total)]).float()
        dist.all_reduce(counts)
        self._correct, self._total = counts
        for buffer in self.model.buffers():
            dist.broadcast(buffer, 0)
        return super().epoch_metrics()
