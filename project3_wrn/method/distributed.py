"""Data-parallel training by PyTorch's own DDP: `torchrun --nproc_per_node=N project3_wrn/main.py`.

Each process prepares the same global batch from the same generator and trains on its own share of it, so that N
processes compute what one would, except for batch statistics and the hardest-examples loss: those are of a process's
share. The main process's statistics are the ones that are saved. Dropout draws the same mask in every process, for
different images.
"""

import contextlib
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from common.learners import Learner
from common.support.errors import UserError


@contextlib.contextmanager
def process_group(device):
    """Join the other processes that torchrun has started, if any; yield this process's GPU, or `device`."""
    if not started_by_torchrun():
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=torch.device(device))
    else:
        dist.init_process_group("gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def started_by_torchrun():
    """Return whether torchrun, or something like it, started this process. Some clusters set some of these for all."""
    return all(name in os.environ for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"))


def is_main_process():
    """Return whether this process is the one that writes and prints."""
    return int(os.environ["RANK"]) == 0 if started_by_torchrun() else True


def world_size():
    """Return how many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if started_by_torchrun() else 1


def barrier():
    """Wait until all processes have arrived here."""
    if dist.is_initialized():
        dist.barrier()


def broadcast_from_main(metrics):
    """Return {name: tensor} with the main process's values in all processes.

    They must stop early at the same epoch, however their devices round.
    """
    if dist.is_initialized():
        for value in metrics.values():
            dist.broadcast(value, 0)
    return metrics


class DistributedLearner(Learner):
    """A Learner that trains on its process's share of every global batch, without hooks and not compiled."""

    resumes_within_epochs = False  # each process counts the correct images of its own share

    def __init__(self, model, optimizer, *, loss, precision):
        super().__init__(model, optimizer, loss=loss, precision=precision)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._shared = DistributedDataParallel(model)

    def step(self, x, y):
        """Take one step with the global batch; return the loss of all of it before the step."""
        if len(x) < self.world_size:
            raise UserError(
                f"a batch of {len(x)} images cannot be shared by {self.world_size} processes; "
                "choose another --batch-size"
            )
        share, labels = x[self.rank :: self.world_size], y[self.rank :: self.world_size]
        logits = self._forward(share, self._shared)
        # DDP takes the mean of the gradients, and shares of a short batch may differ in size
        loss = self.loss(logits, labels) * (len(share) * self.world_size / len(x))
        self.backward_and_step(loss)
        self._track_accuracy(logits.detach(), labels)
        self._total += len(labels)
        total = loss.detach() / self.world_size
        dist.all_reduce(total)
        return total

    def epoch_metrics(self):
        counts = torch.stack([self._correct, torch.full_like(self._correct, self._total)]).float()
        dist.all_reduce(counts)
        self._correct, self._total = counts
        for buffer in self.model.buffers():
            dist.broadcast(buffer, 0)
        return super().epoch_metrics()
