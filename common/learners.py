"""What `fit` trains: a Learner, or a StackedLearner of networks that differ in seed and hyperparameters, trained as one.

A batch of 4 through LeNet is a few microseconds of arithmetic under two hundred of overhead. A StackedLearner pays the overhead once
for all its members, and compiles forward, backward and update into one graph; every member computes what it would alone.
"""

import copy
import ctypes
import functools
import logging
import platform
import shutil
import sys
import time

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from common.support.errors import first_line


class Learner:
    """One network and its optimiser, in channels_last and, with `precision` bf16, autocast.

    loss: (logits (B, classes), labels (B,) or their probabilities (B, classes)) -> tensor ().
    """

    shape = ()

    def __init__(self, model, optimizer, *, loss=F.cross_entropy, precision="fp32", compiled=False):
        device = next(model.parameters()).device
        set_up(device)
        self.model = model.train()
        self.optimizer = optimizer
        self.loss = loss
        self.device_type = device.type
        self.precision = precision
        self._correct, self._total = 0, 0
        self._compiled, self._compiled_size = None, None
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]

    def set_lr(self, factor):
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def _forward(self, x, model=None):
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.precision == "bf16"):
            return (self.model if model is None else model)(x.contiguous(memory_format=torch.channels_last)).float()

    def compile(self, x, y):
        """Compile forward and backward for batches like this one, on a copy that shares the code; the seconds it took.

        Nothing of the training changes: neither weights nor random numbers. Where compiling fails one line says so.
        """
        started = time.perf_counter()
        if not can_compile(x.device):
            return 0.0
        try:
            with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
                self.loss(self._forward(x, torch.compile(copy.deepcopy(self.model), dynamic=False)), y).backward()
            if x.device.type == "cuda":
                torch.cuda.synchronize()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler that is there may still lack headers or a runtime
            _not_compiled(error)
            return 0.0
        self._compiled, self._compiled_size = torch.compile(self.model, dynamic=False), len(x)
        return time.perf_counter() - started

    def _training_logits(self, x):
        # a short last batch is not worth a compilation of its own
        return self._forward(x, self._compiled if len(x) == self._compiled_size else None)

    def step(self, x, y):
        """One update from images (B, 3, 32, 32) and labels (B,) or their probabilities (B, classes); the loss before it."""
        logits = self._training_logits(x)
        loss = self.loss(logits, y)
        self.backward_and_step(loss)
        self._track_accuracy(logits.detach(), y)
        return loss.detach()

    def backward_and_step(self, loss):
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _track_accuracy(self, logits, y):
        prediction = logits.argmax(1)
        # of a mixture, the share of the class that was named: 0.7 where 0.7 of the image is
        right = (prediction == y) if y.dim() == 1 else y.gather(1, prediction[:, None])
        self._correct, self._total = self._correct + right.sum(), self._total + len(y)

    def epoch_metrics(self):
        """Return the metrics of the last epoch, {name: tensor ()}, and reset them."""
        accuracy = self._correct / self._total * 100
        self._correct, self._total = 0, 0
        norm = torch.nn.utils.get_total_norm(self.model.parameters()).detach()
        return {"weight_norm": norm, "train_accuracy": accuracy}

    def logits(self, x):
        """Return logits (B, classes) in evaluation mode."""
        self.model.eval()
        logits = self._forward(x)
        self.model.train()
        return logits

    def weights(self):
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def load_weights(self, weights):
        self.model.load_state_dict(weights)

    def state_dict(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


class StackedLearner:
    """Networks of one architecture, shape (seeds, runs), trained together by SGD with momentum and L2.

    models: a list (seeds) of lists (runs) of networks without batch statistics; they may differ in dropout.
    lr, momentum, weight_decay: one value a run.
    compiled: compile the whole step for batches of `batch_size`, where a compiler is to be had.

    The runs of one seed in a stack see the same batches and draw the same dropout noise, so they differ in nothing but what
    CONFIGS says. That noise depends on which seeds are stacked together, hence on the number of processes.
    """

    def __init__(self, models, *, lr, momentum, weight_decay, batch_size, compiled=False):
        self.shape = (len(models), len(models[0]))
        device = next(models[0][0].parameters()).device
        set_up(device)
        parameters, buffers = stack_module_state([model for seed in models for model in seed])
        self.parameters = {name: value.detach().unflatten(0, self.shape) for name, value in parameters.items()}
        self.buffers = {name: value.unflatten(0, self.shape) for name, value in buffers.items()}
        self.velocities = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        self.base_lr = torch.tensor(lr, device=device)
        self.lr = self.base_lr.clone()
        self.momentum = torch.tensor(momentum, device=device)
        self.weight_decay = torch.tensor(weight_decay, device=device)
        self.batch_size = batch_size

        training = copy.deepcopy(models[0][0]).train()
        inference = copy.deepcopy(training).eval()

        def build_loss(parameters, buffers, x, y):
            return F.cross_entropy(functional_call(training, (parameters, buffers), (x,)), y)

        # inner: the runs of a seed share images and noise; outer: each seed has its own
        runs = vmap(grad_and_value(build_loss), in_dims=(0, 0, None, None), randomness="same")
        self._gradients = vmap(runs, randomness="different")
        forward = vmap(lambda p, b, x: functional_call(inference, (p, b), (x,)), in_dims=(0, 0, None))
        self._logits = vmap(forward, in_dims=(0, 0, None))
        self._compiled, self._proven = self._update, False
        if compiled and can_compile(device):
            mode = None
            if device.type == "cuda":
                # a step is one graph of kernels, launched at once; what it writes to must stay in place
                mode = "reduce-overhead"
                for value in (*self.parameters.values(), *self.velocities.values()):
                    torch._dynamo.mark_static_address(value, guard=False)
            self._compiled = torch.compile(self._update, dynamic=False, mode=mode)

    def set_lr(self, factor):
        self.lr = self.base_lr * factor

    def _update(self, parameters, velocities, buffers, lr, momentum, weight_decay, x, y):
        gradients, losses = self._gradients(parameters, buffers, x, y)
        for name, weight in parameters.items():
            of_run = (-1,) + (1,) * (weight.dim() - 2)
            gradient = gradients[name] + weight_decay.view(of_run) * weight
            velocities[name].mul_(momentum.view(of_run)).add_(gradient)
            weight.sub_(lr.view(of_run) * velocities[name])
        return losses

    def step(self, x, y):
        """One update from images (seeds, B, 3, 32, 32) and labels (seeds, B); the losses before it, (seeds, runs)."""
        # a short last batch is not worth a compilation of its own
        update = self._compiled if y.shape[-1] == self.batch_size else self._update
        hyperparameters = (self.lr, self.momentum, self.weight_decay)
        try:
            losses = update(self.parameters, self.velocities, self.buffers, *hyperparameters, x, y)
        except Exception as error:
            if update == self._update or self._proven or isinstance(error, torch.OutOfMemoryError):
                raise
            # A compiler that is there may still lack headers or a runtime. It fails before anything has been computed.
            _not_compiled(error)
            self._compiled = self._update
            return self.step(x, y)
        self._proven = self._proven or update == self._compiled
        return losses.clone()  # a graph's next launch writes to where these lie

    def logits(self, x):
        """Return logits (seeds, runs, B, classes) of images (B, 3, 32, 32) in evaluation mode."""
        return self._logits(self.parameters, self.buffers, x)

    def epoch_metrics(self):
        """Return the metrics of the last epoch: {name: tensor (seeds, runs)}."""
        return {"weight_norm": sum(value.flatten(2).square().sum(-1) for value in self.parameters.values()).sqrt()}

    def state_dict(self):
        return {"parameters": self.parameters, "velocities": self.velocities}

    def load_state_dict(self, state):
        for mine, theirs in ((self.parameters, state["parameters"]), (self.velocities, state["velocities"])):
            if {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in theirs.items()}:
                raise ValueError("its weights have other names or shapes")
            for name, value in mine.items():
                value.copy_(theirs[name])


class StackedBatches:
    """The batches of several seeds side by side: images (seeds, B, 3, 32, 32), labels (seeds, B)."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches[0])

    def __iter__(self):
        for parts in zip(*self.batches):
            x, y = zip(*parts)
            yield torch.stack(x), torch.stack(y)

    def state_dict(self):
        return [batches.state_dict() for batches in self.batches]

    def load_state_dict(self, states):
        for batches, state in zip(self.batches, states, strict=True):
            batches.load_state_dict(state)


def averaged_values(model):
    """What an average of a network is over: its parameters and its batch statistics, in place."""
    return [value for value in model.state_dict().values() if value.is_floating_point()]


def set_up(device):
    """What training on this device wants of torch and of the C library."""
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # fp32 is to mean fp32, not TF32
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()  # shapes stay the same
    elif device.type == "cpu":
        keep_freed_memory()


@functools.cache
def keep_freed_memory():
    """Have this process keep the memory it frees, where the C library is glibc.

    A convolutional network's step asks for the same hundreds of megabytes as the one before. glibc returns such blocks to the
    system, which then faults and clears every page anew: without that a step is up to a quarter faster, as
    benchmarks/project3.py measures.
    """
    if platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, -1)


def _not_compiled(error):
    print(f"not compiled, so slower: {first_line(error)}", file=sys.stderr, flush=True)


def can_compile(device):
    """Whether torch.compile has what it needs: Triton on CUDA, a C++ compiler on a CPU."""
    if device.type == "cuda":
        return True
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns of a CUDA toolkit without a GPU
    return device.type == "cpu" and any(map(shutil.which, ("g++", "clang++", "c++")))
