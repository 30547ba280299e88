"""What `fit` trains: a Learner, one network, or a StackedLearner, several networks trained together.

Of the time that a batch of 4 takes through LeNet, a few microseconds are arithmetic and two hundred are overhead. A
StackedLearner, whose members differ in seed and hyperparameters, pays the overhead once for all of them, and compiles
forward, backward and update into one graph. Each member gets the same result as if it were trained alone.
"""

import copy
import ctypes
import functools
import logging
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from common.data import Batches
from common.support.errors import first_line, out_of_memory


class Trainable(Protocol):
    """The interface of a learner: what `fit` calls, and `logits` for evaluation.

    With early stopping `fit` also calls weights() and load_weights(weights), which a Learner has.
    """

    shape: tuple[int, ...]  # () of one network, (seeds, configurations) of a stack

    def set_lr(self, factor: float) -> None:
        """Set every learning rate to `factor` times its initial value."""

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Take one step; return the losses before it, a detached tensor of `shape` on the device."""

    def epoch_metrics(self) -> dict[str, torch.Tensor | float]:
        """Return the metrics of the last epoch, values of `shape` or (), and reset them."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (*shape, B, classes) of images (B, 3, H, W) in evaluation mode."""

    def state_dict(self) -> dict:
        """Return all that a training needs to be resumed, as tensors, numbers, lists and dicts."""

    def load_state_dict(self, state: dict) -> None:
        """Take what `state_dict` returned; raise any exception where it belongs to another network."""


class Hook:
    """What a Learner does around its updates; a subclass overrides the methods that it needs.

    average: a network that is evaluated and saved instead of the trained one, or None.
    """

    average: torch.nn.Module | None = None

    def attach(self, learner: "Learner") -> None:
        """Prepare for this learner, before its first step."""

    def before_step(self, learner: "Learner", step: int) -> None:
        """Act before an update; step: the number of updates so far."""

    def after_step(self, learner: "Learner", step: int) -> None:
        """Act after an update; step: the number of updates so far, this one included."""

    def state_dict(self) -> dict:
        """Return what a resumed training needs of this hook."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Take what `state_dict` returned."""


class Learner:
    """One network and its optimizer, in channels_last and, with `precision` "bf16", autocast.

    loss: (logits (B, classes), labels (B,) or their probabilities (B, classes)) -> tensor (). A loss with an attribute
        `needs_features` that is true is called with the last feature maps (B, C, h, w) as a third argument.
    compiled: compile forward and backward, at the first batch of each image size. Full batches only: a short last batch
        is not worth a compilation of its own. Where compiling fails, one line says so and training is not compiled. A
        loss that needs features is never compiled.
    hooks: called around every update, in this order.
    """

    shape = ()

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        loss: Callable[..., torch.Tensor] = F.cross_entropy,
        precision: str = "fp32",
        compiled: bool = False,
        hooks: Sequence[Hook] = (),
    ):
        device = next(model.parameters()).device
        set_up(device)
        self.model = model.train()
        self.optimizer = optimizer
        self.loss = loss
        self.needs_features = getattr(loss, "needs_features", False)
        self.device_type = device.type
        self.precision = precision
        self.compiled = compiled and not self.needs_features
        self.hooks = hooks
        self.steps = 0  # updates so far
        self._correct, self._total = 0, 0
        self._compiled_model, self._compiled_shapes = None, set()
        self._compiling_failed, self._compile_seconds, self._full_batch = False, 0.0, 0
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        for hook in hooks:
            hook.attach(self)

    def set_lr(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Take one step with images (B, 3, H, W) and labels (B,) or their probabilities; return the loss before it."""
        for hook in self.hooks:
            hook.before_step(self, self.steps)
        loss, logits = self._training_loss(x, y)
        self.backward_and_step(loss)
        self.steps += 1
        for hook in self.hooks:
            hook.after_step(self, self.steps)
        self._track_accuracy(logits.detach(), y)
        return loss.detach()

    def _training_loss(self, x, y):
        if not self.needs_features:
            logits = self._forward(x, self._training_model(x, y))
            return self.loss(logits, y), logits
        with self._autocast():
            features = self.model.forward_features(x.contiguous(memory_format=torch.channels_last))
            logits = self.model.forward_head(features).float()
        return self.loss(logits, y, features), logits

    def _training_model(self, x, y):
        """Return the network to train this batch with: the compiled one for a full batch, else the network itself."""
        self._full_batch = self._full_batch or len(x)  # only the last batch of a pass may be short
        wanted = self.compiled and not self._compiling_failed and len(x) == self._full_batch
        if wanted and x.shape not in self._compiled_shapes:
            self._compile_seconds += self._compile(x, y)
        return self._compiled_model if x.shape in self._compiled_shapes else self.model

    def _compile(self, x: torch.Tensor, y: torch.Tensor) -> float:
        """Compile forward and backward for batches like this one; return the seconds that it takes.

        It works on a copy that shares the compiled code, so nothing of the training changes: neither weights nor random
        numbers. Where compiling fails, one line says so.
        """
        if not can_compile(x.device):
            self._compiling_failed = True
            return 0.0
        if x.device.type == "cuda":
            torch.cuda.synchronize()  # steps that are still running are not part of compiling
        started = time.perf_counter()
        try:
            with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
                self.loss(self._forward(x, torch.compile(copy.deepcopy(self.model), dynamic=False)), y).backward()
            if x.device.type == "cuda":
                torch.cuda.synchronize()
        except Exception as error:  # an installed compiler may still lack headers or a runtime
            if out_of_memory(error):
                raise
            _print_not_compiled(error)
            self._compiling_failed = True
            return 0.0
        if self._compiled_model is None:
            self._compiled_model = torch.compile(self.model, dynamic=False)
        self._compiled_shapes.add(x.shape)
        return time.perf_counter() - started

    def _autocast(self):
        return torch.autocast(self.device_type, torch.bfloat16, enabled=self.precision == "bf16")

    def _forward(self, x, model):
        with self._autocast():
            return model(x.contiguous(memory_format=torch.channels_last)).float()

    def backward_and_step(self, loss: torch.Tensor) -> None:
        """Update the weights by the gradients of `loss`."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _track_accuracy(self, logits, y):
        prediction = logits.argmax(1)
        # for mixed labels, count the share of the predicted class: 0.7 where it has 0.7 of the image
        correct = (prediction == y) if y.dim() == 1 else y.gather(1, prediction[:, None])
        self._correct, self._total = self._correct + correct.sum(), self._total + len(y)

    def epoch_metrics(self) -> dict[str, torch.Tensor | float]:
        """Return the metrics of the last epoch, tensors () and, of a compiled learner, seconds; reset them."""
        metrics = {
            "weight_norm": torch.nn.utils.get_total_norm(self.model.parameters()).detach(),
            "train_accuracy": self._correct / self._total * 100,
        }
        if self.compiled:
            metrics["compile_seconds"] = self._compile_seconds
        self._correct, self._total, self._compile_seconds = 0, 0, 0.0
        return metrics

    @property
    def evaluated_model(self) -> torch.nn.Module:
        """Return the network that is evaluated and saved: a hook's average where there is one, else the trained one."""
        averages = [hook.average for hook in self.hooks if hook.average is not None]
        return averages[-1] if averages else self.model

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes) in evaluation mode."""
        model = self.evaluated_model
        model.eval()
        logits = self._forward(x, model)
        self.model.train()
        return logits

    def weights(self) -> dict[str, torch.Tensor]:
        """Return a copy of the evaluated network's state_dict."""
        return {name: value.detach().clone() for name, value in self.evaluated_model.state_dict().items()}

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Set the evaluated network to what `weights` returned."""
        self.evaluated_model.load_state_dict(weights)

    def state_dict(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "hooks": [hook.state_dict() for hook in self.hooks],
        }

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = int(state["steps"])
        for hook, saved in zip(self.hooks, state["hooks"], strict=True):
            hook.load_state_dict(saved)


class StackedLearner:
    """Networks of one architecture, shape (seeds, configurations), trained together by SGD with momentum and L2.

    models: a list (seeds) of lists (configurations) of networks without batch statistics; they may differ in dropout.
    lr, momentum, weight_decay: one value per configuration.
    compiled: compile the whole step for batches of `batch_size`, where a compiler is available.

    The configurations of one seed in a stack see the same batches and draw the same dropout noise, so they differ in
    nothing but their hyperparameters. That noise depends on which seeds are stacked together, hence on the number of
    processes.
    """

    def __init__(
        self,
        models: list[list[torch.nn.Module]],
        *,
        lr: list[float],
        momentum: list[float],
        weight_decay: list[float],
        batch_size: int,
        compiled: bool = False,
    ):
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

        def compute_loss(parameters, buffers, x, y):
            return F.cross_entropy(functional_call(training, (parameters, buffers), (x,)), y)

        def compute_logits(parameters, buffers, x):
            return functional_call(inference, (parameters, buffers), (x,))

        # inner: the configurations of a seed share images and noise; outer: each seed has its own
        configurations = vmap(grad_and_value(compute_loss), in_dims=(0, 0, None, None), randomness="same")
        self._gradients = vmap(configurations, randomness="different")
        forward = vmap(compute_logits, in_dims=(0, 0, None))
        self._logits = vmap(forward, in_dims=(0, 0, None))
        self._compiled, self._proven, self._compile_seconds = self._update, False, 0.0
        if compiled and can_compile(device):
            mode = None
            if device.type == "cuda":
                # a step is one graph of kernels, launched at once; what it writes to must stay in place
                mode = "reduce-overhead"
                for value in (*self.parameters.values(), *self.velocities.values()):
                    torch._dynamo.mark_static_address(value, guard=False)
            self._compiled = torch.compile(self._update, dynamic=False, mode=mode)

    def set_lr(self, factor: float) -> None:
        self.lr = self.base_lr * factor

    def _update(self, parameters, velocities, buffers, lr, momentum, weight_decay, x, y):
        gradients, losses = self._gradients(parameters, buffers, x, y)
        for name, weight in parameters.items():
            per_configuration = (-1,) + (1,) * (weight.dim() - 2)
            gradient = gradients[name] + weight_decay.view(per_configuration) * weight
            velocities[name].mul_(momentum.view(per_configuration)).add_(gradient)
            weight.sub_(lr.view(per_configuration) * velocities[name])
        return losses

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Take one step with images (seeds, B, 3, 32, 32), labels (seeds, B); return the losses before it (*shape)."""
        # a short last batch is not worth a compilation of its own
        update = self._compiled if y.shape[-1] == self.batch_size else self._update
        hyperparameters = (self.lr, self.momentum, self.weight_decay)
        started = time.perf_counter()
        try:
            losses = update(self.parameters, self.velocities, self.buffers, *hyperparameters, x, y)
        except Exception as error:
            if update == self._update or self._proven or out_of_memory(error):
                raise
            # An installed compiler may still lack headers or a runtime. It fails before anything has been computed.
            _print_not_compiled(error)
            self._compiled = self._update
            return self.step(x, y)
        if update != self._update and not self._proven:  # the first step of a compiled update compiles it
            self._proven, self._compile_seconds = True, time.perf_counter() - started
        return losses.clone()  # the next launch of a graph overwrites their memory

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (*shape, B, classes) of images (B, 3, 32, 32) in evaluation mode."""
        return self._logits(self.parameters, self.buffers, x)

    def epoch_metrics(self) -> dict[str, torch.Tensor]:
        """Return the metrics of the last epoch: {name: tensor (*shape)}."""
        norms = sum(value.flatten(2).square().sum(-1) for value in self.parameters.values()).sqrt()
        metrics = {"weight_norm": norms, "compile_seconds": self._compile_seconds}
        self._compile_seconds = 0.0
        return metrics

    def state_dict(self) -> dict:
        return {"parameters": self.parameters, "velocities": self.velocities}

    def load_state_dict(self, state: dict) -> None:
        for mine, theirs in ((self.parameters, state["parameters"]), (self.velocities, state["velocities"])):
            if {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in theirs.items()}:
                raise ValueError("its weights have other names or shapes")
            for name, value in mine.items():
                value.copy_(theirs[name])


class StackedBatches:
    """The batches of several seeds side by side: images (seeds, B, 3, 32, 32), labels (seeds, B)."""

    def __init__(self, batches: list[Batches]):
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches[0])

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for parts in zip(*self.batches):
            x, y = zip(*parts)
            yield torch.stack(x), torch.stack(y)

    def state_dict(self) -> list[dict]:
        return [batches.state_dict() for batches in self.batches]

    def load_state_dict(self, states: list[dict]) -> None:
        for batches, state in zip(self.batches, states, strict=True):
            batches.load_state_dict(state)


def set_up(device: torch.device) -> None:
    """Set torch and the C library up for training on this device."""
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # real fp32, not TF32
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()  # shapes stay the same
    elif device.type == "cpu":
        keep_freed_memory()


@functools.cache
def keep_freed_memory() -> None:
    """Make this process keep the memory it frees, where the C library is glibc.

    Every step of a convolutional network allocates the same hundreds of megabytes. glibc returns such blocks to the
    system, which then faults and clears every page anew: without that a step is up to a quarter faster, as
    benchmarks/project3.py measures.
    """
    if platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, -1)


def _print_not_compiled(error):
    print(f"not compiled, so slower: {first_line(error)}", file=sys.stderr, flush=True)


def can_compile(device: torch.device) -> bool:
    """Return whether torch.compile has what it needs: Triton on CUDA, a C++ compiler on a CPU."""
    if device.type == "cuda":
        return True
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns of a CUDA toolkit without a GPU
    return device.type == "cpu" and any(map(shutil.which, ("g++", "clang++", "c++")))
