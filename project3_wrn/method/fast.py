"""The fast recipes' way of training, after Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU (arXiv 2404.00498).

It has a frozen patch whitening, a triangular learning rate, a large one for the biases of the batch norms, alternating
flips, and either Muon, which needs fewer images, or SGD with Lookahead. Its numbers are in
project3_wrn/method/recipes.py, its networks in common/models/fast.py. Where fast94 differs, it follows
github.com/hiverge/cifar10-speedrun (2025).
"""

import itertools
import math

import torch
import torch.nn.functional as F

from common.data import Batches
from common.models.fast import LOGITS_SCALE, RECORD_SCALE

BIAS_LR = 64  # with SGD, the biases have this many times the others' learning rate
# with SGD, the learning rate is for this many examples per step: the step of a summed loss grows with the batch
LR_FOR = 1024
# The published heads of Muon's networks begin with a standard deviation of 1 and divide their logits by 256, ours by 9:
# the same logits come from weights that are smaller by this factor, with gradients that are as much larger.
HEAD = LOGITS_SCALE / RECORD_SCALE


def triangular_schedule(step, steps, start=0.2, peak_at=0.23, end=0.07):
    """Return the factor of a step: linear from `start` to 1 at `peak_at` of all steps, then to `end` (section 3.2)."""
    peak = int(peak_at * steps)
    if step < peak:
        return start + (1 - start) * step / peak
    return 1 - (1 - end) * (step - peak) / (steps - peak)


def optimizer(model, recipe):
    """Return the recipe's optimizer; the whitening's bias is alone in the last group."""
    named = dict(model.named_parameters())
    whitening = [named.pop("whitening.bias")]
    norms = [named.pop(name) for name in list(named) if "norms" in name]
    if recipe.optimizer == "muon":
        return _muon(named, norms, whitening, recipe)
    lr = recipe.lr * recipe.batch_size / LR_FOR
    plain = {"lr": lr, "weight_decay": recipe.weight_decay}
    biases = {"lr": lr * BIAS_LR, "weight_decay": recipe.weight_decay / BIAS_LR}
    groups = [{"params": list(named.values()), **plain}, {"params": norms, **biases}, {"params": whitening, **plain}]
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=True, fused=whitening[0].is_cuda)


def _muon(named, norms, whitening, recipe):
    numbers = recipe.fast
    filters = [named.pop(name) for name in list(named) if "convs" in name]
    # the loss is a mean over the batch: its gradients are smaller than those of the published sum by the batch size
    biases, head = (
        {
            "lr": lr * recipe.batch_size,
            "weight_decay": recipe.weight_decay / lr,
            "momentum": numbers.sgd_momentum,
            "orthogonal": False,
        }
        for lr in (numbers.bias_lr, numbers.head_lr * HEAD**2)
    )
    orthogonal = {
        "lr": recipe.lr,
        "weight_decay": recipe.weight_decay * recipe.batch_size * numbers.decay_filters,
        "orthogonal": True,
        "coefficients": (numbers.linear, numbers.cubic, numbers.quintic),
        "eps": numbers.eps / recipe.batch_size,
        "norm_every": numbers.norm_every,
    }
    groups = [
        {"params": filters, **orthogonal},
        {"params": list(named.values()), **head},
        {"params": norms, **biases},
        {"params": whitening, **biases},
    ]
    return Muon(groups, momentum=recipe.momentum, nesterov=True, fused=whitening[0].is_cuda)


class Muon(torch.optim.SGD):
    """SGD whose groups marked `orthogonal` move by orthogonal matrices instead, at a constant norm of their weights.

    A filter bank (channels, ...) is treated as a matrix with one row per channel; its norm is reset to the square root
    of its channels every `norm_every` steps. Weight decay is decoupled from the gradient. Jordan et al., Muon (2024),
    as in the repository's airbench94_muon. torch.optim.Muon accepts matrices only, and always computes in bf16, which
    most CPUs emulate.

    Steps are counted on the device, and the norm is computed in all of them: then a CUDA graph can hold the update.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._step_supports_amp_scaling = False  # of SGD's part only

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"] if group["orthogonal"] else ():
                state, momentum = self.state[weight], group["momentum"]
                if not state:
                    state.update(momentum_buffer=torch.zeros_like(weight), steps=torch.zeros((), device=weight.device))
                velocity = state["momentum_buffer"]
                velocity.mul_(momentum).add_(weight.grad)
                direction = (weight.grad + momentum * velocity).flatten(1)
                update = newton_schulz(direction, group["coefficients"], group["eps"]).view(weight.shape)
                state["steps"] += 1
                due = state["steps"] % group["norm_every"] == 0
                weight.mul_(torch.where(due, len(weight) ** 0.5 / weight.norm(), 1.0))
                weight.sub_(group["lr"] * update).mul_(1 - group["lr"] * group["weight_decay"])
                weight.grad = None  # so that SGD leaves it alone
        super().step()


def newton_schulz(matrix, coefficients, eps, steps=3):
    """Return roughly the nearest orthogonal matrix to `matrix` (rows, columns).

    Its singular values lie between about 0.5 and 1.5. This is Newton and Schulz's iteration with the quintic of Jordan
    et al. (2024): odd polynomials of a matrix change its singular values only.
    """
    if len(matrix) > matrix.shape[1]:
        return newton_schulz(matrix.T, coefficients, eps, steps).T
    linear, cubic, quintic = coefficients
    x = matrix / (matrix.norm() + eps)
    for _ in range(steps):
        square = x @ x.T
        x = linear * x + (cubic * square + quintic * square @ square) @ x
    return x


class AlternatingFlips(Batches):
    """Batches whose images are mirrored at random in the first pass and then in every second one (section 3.6).

    So an image and its mirror image alternate; the same one never comes in two successive passes.

    passes: the length of a training, which may be a fraction: then the last pass ends early. 0: there is no end.
    drop_last: leave the last batch of a pass out if it is short.
    flip: whether they are; without it no image is mirrored.
    low_res_size, low_res_passes: pixels per side of the images in the first steps, and in how many passes.
    """

    def __init__(
        self,
        dataset,
        batch_size,
        *,
        seed,
        passes=0,
        drop_last=False,
        low_res_size=0,
        low_res_passes=0,
        flip=True,
        **how,
    ):
        super().__init__(dataset, batch_size, seed=seed, **how)
        self.drop_last, self.flip = drop_last, flip
        self.steps = math.ceil(passes * len(self))
        self.low_res_size, self.low_res_steps = low_res_size, math.ceil(low_res_passes * len(self))
        self.passes_done = 0
        generator = torch.Generator().manual_seed(seed)
        self.mirrored = (torch.rand(len(dataset), generator=generator) < 0.5).to(dataset.images.device)

    def __len__(self):
        return len(self.dataset) // self.batch_size if self.drop_last else super().__len__()

    def prepare(self, indices):
        images = super().prepare(indices)
        if not self.flip:
            return images
        mirrored = self.mirrored[indices] ^ (self.passes_done % 2 == 1)
        return torch.where(mirrored[:, None, None, None], images.flip(-1), images)

    def __iter__(self):
        done = self.passes_done * len(self)
        left = self.steps - done
        batches = itertools.islice(super().__iter__(), left if 0 < left < len(self) else len(self))
        for step, (x, y) in enumerate(batches, done):
            yield resize(x, self.low_res_size) if step < self.low_res_steps else x, y
        self.passes_done += 1

    def state_dict(self):
        return super().state_dict() | {"passes": self.passes_done}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.passes_done = state["passes"]


def resize(x, side):
    """Scale images (N, 3, H, W) down to (N, 3, side, side): a pixel is a weighted mean of the pixels that it covers."""
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
