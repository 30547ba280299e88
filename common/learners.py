"""What `fit` trains: a Learner, one network, or a StackedLearner, several networks trained together.

Of the time that a batch of 4 takes through LeNet, a few microseconds are arithmetic and two hundred are overhead. A
StackedLearner, whose members differ in seed and hyperparameters, pays the overhead once for all of them; it can compile
forward, backward and update together. Each member gets the same result as if it were trained alone.

On CUDA a whole step can be replayed as one graph of kernels (common/cuda_graph.py). For that, what a step changes stays
in place: counts, learning rates, averages.
"""

import copy
import ctypes
import functools
import logging
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from common.cuda_graph import StepGraphs
from common.data import Batches
from common.support.errors import first_line, out_of_memory

# what the message of a failed compilation says where gcc or Python's headers are not installed
MISSING_COMPILER = ("C compiler", "CppCompileError", "InvalidCxxCompiler", "No such file or directory", "Python.h")


class Trainable(Protocol):
    """The interface of a learner: what `fit` calls, and `logits` for evaluation.

    With early stopping `fit` also calls weights() and load_weights(weights), which a Learner has.
    """

    shape: tuple[int, ...]  # () of one network, (seeds, configurations) of a stack
    device: torch.device
    resumes_within_epochs: bool  # whether state_dict, called between two steps of an epoch, has all that they change

    def set_lr(self, factor: float) -> None:
        """Set every learning rate to `factor` times its initial value."""

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Take one step; return the losses before it, a detached tensor of `shape` on the device."""

    def weight_norm(self) -> torch.Tensor:
        """Return the square root of the sum of all squared parameters, of `shape`."""

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
    in_update: whether `after_step` does the same after every step but the first, in tensors that stay in place. Then it
        is part of the update and of its CUDA graph, and `step` is not counted up in replayed steps.
    """

    average: torch.nn.Module | None = None
    in_update = False

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
    """One network and its optimizer, in channels_last and, with `precision` "bf16" or "fp16", autocast.

    loss: (logits (B, classes), labels (B,) or their probabilities (B, classes)) -> tensor (). A loss with an attribute
        `needs_features` that is true is called with the last feature maps (B, C, h, w) as a third argument.
    precision: with "fp16" the loss is scaled so that small gradients do not become 0 (torch.amp.GradScaler).
    compiled: compile forward and backward, at the first batch of each image size. Full batches only: a short last batch
        is not worth a compilation of its own. Where compiling fails, one line says so and training is not compiled. A
        loss that needs features is never compiled.
    graph: replay the update of a full batch as one CUDA graph. The optimizer must be fused.
    hooks: called around every update, in this order; after it first those that are `in_update`.
    """

    shape = ()
    resumes_within_epochs = True

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        loss: Callable[..., torch.Tensor] = F.cross_entropy,
        precision: str = "fp32",
        compiled: bool = False,
        graph: bool = False,
        hooks: Sequence[Hook] = (),
    ):
        self.device = next(model.parameters()).device
        set_up(self.device)
        self.model = model.train()
        self.optimizer = optimizer
        self.loss = loss
        self.needs_features = getattr(loss, "needs_features", False)
        self.precision = precision
        self.scaler = torch.amp.GradScaler(self.device.type) if precision == "fp16" else None
        self.compiled = compiled and not self.needs_features
        self.hooks = hooks
        self.steps = 0  # updates so far
        self._correct, self._total = torch.zeros((), device=self.device), 0
        self._compiled_model, self._compiled_shapes = None, set()
        self._compiling_failed, self._compile_seconds, self._full_batch = False, 0.0, 0
        self._graphs = StepGraphs() if graph else None
        # a graph reads the learning rates where it was captured
        self._rates = [torch.zeros((), device=self.device) for _ in optimizer.param_groups] if graph else None
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        self._prepare_optimizer()
        self.set_lr(1.0)
        for hook in hooks:
            hook.attach(self)

    def set_lr(self, factor: float) -> None:
        for number, group in enumerate(self.optimizer.param_groups):
            self.set_group_lr(number, group["initial_lr"] * factor)

    def _prepare_optimizer(self):
        """Make Adam count its steps where a graph can; SGD has no such setting."""
        for group in self.optimizer.param_groups:
            if self._graphs and "capturable" in group:
                group["capturable"] = True

    def set_group_lr(self, number: int, lr: float) -> None:
        """Set the learning rate of one of the optimizer's groups."""
        self.optimizer.param_groups[number]["lr"] = self._rates[number].fill_(lr) if self._rates else lr

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Take one step with images (B, 3, H, W) and labels (B,) or their probabilities; return the loss before it."""
        for hook in self.hooks:
            hook.before_step(self, self.steps)
        self._full_batch = self._full_batch or len(x)  # only the last batch of a pass may be short
        if len(x) < self._full_batch:
            loss = self._update(x, y)
        else:
            if self.compiled and not self._compiling_failed and x.shape not in self._compiled_shapes:
                self._compile(x, y)
            loss = self._graphs(self._update, x, y) if self._graphs else self._update(x, y)
        self.steps += 1
        self._total += len(y)
        for hook in self.hooks:
            if not hook.in_update:
                hook.after_step(self, self.steps)
        return loss

    def _update(self, x, y):
        """Take one step, without the hooks that are not part of it: all that a CUDA graph holds."""
        loss, logits = self._training_loss(x, y)
        self.backward_and_step(loss)
        for hook in self.hooks:
            if hook.in_update:
                hook.after_step(self, self.steps + 1)
        self._track_accuracy(logits.detach(), y)
        return loss.detach()

    def _training_loss(self, x, y):
        if not self.needs_features:
            logits = self._forward(x, self._compiled_model if x.shape in self._compiled_shapes else self.model)
            return self.loss(logits, y), logits
        with self._autocast():
            features = self.model.forward_features(x.contiguous(memory_format=torch.channels_last))
            logits = self.model.forward_head(features).float()
        return self.loss(logits, y, features), logits

    def _compile(self, x, y):
        """Compile forward and backward for batches like this one, or note that it failed.

        It works on a copy that shares the compiled code, so no weight of the training changes.
        """

        def compile_copy():
            self.loss(self._forward(x, torch.compile(copy.deepcopy(self.model), dynamic=False)), y).backward()

        seconds = try_compiling(compile_copy, self.device)
        if seconds is None:
            self._compiling_failed = True
            return
        self._compile_seconds += seconds
        if self._compiled_model is None:
            self._compiled_model = torch.compile(self.model, dynamic=False)
        self._compiled_shapes.add(x.shape)

    def _autocast(self):
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32")

    def _forward(self, x, model):
        with self._autocast():
            return model(x.contiguous(memory_format=torch.channels_last)).float()

    def backward_and_step(self, loss: torch.Tensor) -> None:
        """Update the weights by the gradients of `loss`."""
        self.optimizer.zero_grad()
        if self.scaler is None:
            loss.backward()
            self.optimizer.step()
            return
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)  # skipped where a gradient is not finite
        self.scaler.update()

    def _track_accuracy(self, logits, y):
        prediction = logits.argmax(1)
        # for mixed labels, count the share of the predicted class: 0.7 where it has 0.7 of the image
        correct = (prediction == y) if y.dim() == 1 else y.gather(1, prediction[:, None])
        self._correct += correct.sum()

    def weight_norm(self) -> torch.Tensor:
        return torch.nn.utils.get_total_norm(self.model.parameters()).detach()

    def epoch_metrics(self) -> dict[str, torch.Tensor | float]:
        """Return the metrics of the last epoch, tensors () and seconds; reset them."""
        metrics = {
            "weight_norm": self.weight_norm(),
            "train_accuracy": self._correct / self._total * 100,
        }
        if self.compiled or self._graphs:
            metrics["compile_seconds"] = _take_compile_seconds(self)
        self._correct.zero_()
        self._total = 0
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
            "full_batch": self._full_batch,
            "counts": {"correct": self._correct, "total": self._total},  # of the epoch so far
            "hooks": [hook.state_dict() for hook in self.hooks],
            **({"scaler": self.scaler.state_dict()} if self.scaler else {}),
        }

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._prepare_optimizer()
        for number, group in enumerate(self.optimizer.param_groups):
            self.set_group_lr(number, float(group["lr"]))
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
        self.steps, self._full_batch = int(state["steps"]), int(state["full_batch"])
        self._correct.copy_(state["counts"]["correct"])
        self._total = int(state["counts"]["total"])
        for hook, saved in zip(self.hooks, state["hooks"], strict=True):
            hook.load_state_dict(saved)


class StackedLearner:
    """Networks of one architecture, shape (seeds, configurations), trained together by SGD with momentum and L2.

    models: a list (seeds) of lists (configurations) of networks without batch statistics; they may differ in dropout.
    lr, momentum, weight_decay: one value per configuration.
    compiled: compile the whole step for batches of `batch_size`, where a compiler is available.
    graph: replay the whole step for batches of `batch_size` as one CUDA graph.

    The configurations of one seed in a stack see the same batches and draw the same dropout noise, so they differ in
    nothing but their hyperparameters. That noise depends on which seeds are stacked together.
    """

    resumes_within_epochs = True

    def __init__(
        self,
        models: list[list[torch.nn.Module]],
        *,
        lr: list[float],
        momentum: list[float],
        weight_decay: list[float],
        batch_size: int,
        compiled: bool = False,
        graph: bool = False,
    ):
        self.shape = (len(models), len(models[0]))
        self.device = device = next(models[0][0].parameters()).device
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
        self.compiled = compiled
        self._full_update = None if compiled else self._update
        self._compile_seconds = 0.0
        self._graphs = StepGraphs() if graph else None

    def set_lr(self, factor: float) -> None:
        torch.mul(self.base_lr, factor, out=self.lr)  # a graph reads it where it was captured

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
        if y.shape[-1] != self.batch_size:  # a short last batch is not worth a compilation of its own
            return self._take(self._update, x, y)
        if self._full_update is None:
            self._compile(x, y)
        return self._graphs(self._take_full, x, y) if self._graphs else self._take_full(x, y)

    def _take_full(self, x, y):
        return self._take(self._full_update, x, y)

    def _take(self, update, x, y):
        hyperparameters = (self.lr, self.momentum, self.weight_decay)
        return update(self.parameters, self.velocities, self.buffers, *hyperparameters, x, y)

    def _compile(self, x, y):
        """Compile the update, or fall back to the one that is not compiled. No weight of the training changes."""
        update = torch.compile(self._update, dynamic=False)
        copies = [{name: value.clone() for name, value in old.items()} for old in (self.parameters, self.velocities)]
        arguments = (*copies, self.buffers, self.lr, self.momentum, self.weight_decay, x, y)
        seconds = try_compiling(lambda: update(*arguments), self.device)
        self._full_update = self._update if seconds is None else update
        self._compile_seconds += seconds or 0.0

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (*shape, B, classes) of images (B, 3, 32, 32) in evaluation mode."""
        return self._logits(self.parameters, self.buffers, x)

    def epoch_metrics(self) -> dict[str, torch.Tensor | float]:
        """Return the metrics of the last epoch, tensors (*shape) and seconds; reset the seconds."""
        return {"weight_norm": self.weight_norm(), "compile_seconds": _take_compile_seconds(self)}

    def weight_norm(self) -> torch.Tensor:
        return sum(value.flatten(2).square().sum(-1) for value in self.parameters.values()).sqrt()

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
        # torch refuses to mix its old interface to TF32 with the new one: nothing here may read cudnn.allow_tf32
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


def _take_compile_seconds(learner):
    """Return the seconds of compiling and capturing since the last call."""
    seconds = learner._compile_seconds + (learner._graphs.take_seconds() if learner._graphs else 0.0)
    learner._compile_seconds = 0.0
    return seconds


def try_compiling(function: Callable[[], object], device: torch.device) -> float | None:
    """Call `function`, which compiles something, and return its seconds; None, with one line printed, where it fails.

    Random numbers do not change, and steps that are still running are not part of the seconds.
    """
    if not can_compile(device):
        return None
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    try:
        with torch.random.fork_rng([device] if on_cuda else []), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")  # real fp32 is meant
            function()
        if on_cuda:
            torch.cuda.synchronize(device)
    except Exception as error:  # an installed compiler may still lack headers or a runtime
        if out_of_memory(error):
            raise
        print(f"not compiled, so slower: {first_line(error)}{_missing_compiler(error)}", file=sys.stderr, flush=True)
        return None
    return time.perf_counter() - started


def _missing_compiler(error):
    """Return what to install where an error says that a compiler or one of its files is missing, else ""."""
    text = f"{type(error).__name__}: {error}"
    if "triton" in text.lower() and platform.system() == "Windows":
        return "; `pip install triton-windows` makes it faster"
    if any(sign in text for sign in MISSING_COMPILER) and platform.system() == "Linux":
        return "; `apt install gcc g++ python3-dev`, or your system's like, makes it faster"
    return ""


def can_compile(device: torch.device) -> bool:
    """Return whether torch.compile has what it needs: Triton on CUDA, a C++ compiler on a CPU."""
    if device.type == "cuda":
        return True
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns of a CUDA toolkit without a GPU
    return device.type == "cpu" and any(map(shutil.which, ("g++", "clang++", "c++")))
