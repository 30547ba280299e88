"""The fast recipes' way of training, after Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU (arXiv 2404.00498).

Frozen patch whitening, a triangular learning rate, a large one for the biases of the batch norms, alternating flips, and a
prediction that is the mean over six views; then either Muon, which needs fewer images, or SGD with Lookahead. The numbers
are in project3_wrn/method/recipes.py. What fast94 does otherwise is github.com/hiverge/cifar10-speedrun's (2025).
"""

import itertools

import torch
import torch.nn.functional as F

from common import evaluation
from common.data import Batches
from common.learners import Learner, averaged_values

BIAS_LR = 64  # times the others' learning rate, with SGD
LR_FOR = 1024  # examples a step, with SGD: of a summed loss, a batch of twice as many steps twice as far
LOOKAHEAD_EVERY = 5  # steps
# The published heads of Muon's networks begin with a standard deviation of 1 and their logits are divided by 256. Ours are divided
# by 9: the same logits from weights that are smaller by this factor, and gradients that are as much larger.
HEAD = 9 / 256


def triangular_schedule(step, steps, start=0.2, peak_at=0.23, end=0.07):
    """From `start` up to 1 at `peak_at` of all steps, rounded down, then down to `end`; straight lines (section 3.2)."""
    peak = int(peak_at * steps)
    if step < peak:
        return start + (1 - start) * step / peak
    return 1 - (1 - end) * (step - peak) / (steps - peak)


def optimizer(model, recipe):
    """The recipe's optimiser; the whitening's bias is alone in the last group."""
    named = dict(model.named_parameters())
    whitening = [named.pop("whitening.bias")]
    norms = [named.pop(name) for name in list(named) if "norms" in name]
    if recipe.optimizer == "muon":
        numbers = recipe.fast
        filters = [named.pop(name) for name in list(named) if "convs" in name]
        # the loss is a mean over the batch: its gradients are smaller than the published sum's by the batch size
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
        groups = [{"params": filters, **orthogonal}]
        groups += [
            {"params": list(named.values()), **head},
            {"params": norms, **biases},
            {"params": whitening, **biases},
        ]
        return Muon(groups, momentum=recipe.momentum, nesterov=True)
    lr = recipe.lr * recipe.batch_size / LR_FOR
    plain = {"lr": lr, "weight_decay": recipe.weight_decay}
    biases = {"lr": lr * BIAS_LR, "weight_decay": recipe.weight_decay / BIAS_LR}
    groups = [{"params": list(named.values()), **plain}, {"params": norms, **biases}, {"params": whitening, **plain}]
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=True)


class Muon(torch.optim.SGD):
    """SGD whose groups marked `orthogonal` move by orthogonal matrices instead, at a constant norm of their weights.

    A filter bank (channels, ...) is taken for a matrix of a row a channel; its norm is brought back to the square root of its
    channels every `norm_every` steps. Weight decay is apart from the gradient. Jordan et al., Muon (2024), as in the repository's
    airbench94_muon. torch.optim.Muon takes matrices only, and always computes in bf16, which most CPUs emulate.
    """

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"] if group["orthogonal"] else ():
                state, momentum = self.state[weight], group["momentum"]
                if not state:
                    state.update(momentum_buffer=torch.zeros_like(weight), steps=0)
                velocity = state["momentum_buffer"]
                velocity.mul_(momentum).add_(weight.grad)
                direction = (weight.grad + momentum * velocity).flatten(1)
                update = newton_schulz(direction, group["coefficients"], group["eps"]).view(weight.shape)
                state["steps"] += 1
                if state["steps"] % group["norm_every"] == 0:
                    weight.mul_(len(weight) ** 0.5 / weight.norm())
                weight.sub_(group["lr"] * update).mul_(1 - group["lr"] * group["weight_decay"])
                weight.grad = None  # done: nothing is left for SGD
        super().step()


def newton_schulz(matrix, coefficients, eps, steps=3):
    """The nearest orthogonal matrix to (rows, columns), roughly: every singular value ends between about 0.5 and 1.5.

    Newton and Schulz's iteration with the quintic of Jordan et al. (2024): odd polynomials of a matrix change its singular
    values only.
    """
    if len(matrix) > matrix.shape[1]:
        return newton_schulz(matrix.T, coefficients, eps, steps).T
    linear, cubic, quintic = coefficients
    x = matrix / (matrix.norm() + eps)
    for _ in range(steps):
        square = x @ x.T
        x = linear * x + (cubic * square + quintic * square @ square) @ x
    return x


class Fast(Learner):
    """A network whose whitening has a bias that is trained in the first `whitening_steps` only.

    whitening_falls: in these its learning rate falls to 0 in a straight line; else it follows the others'.
    """

    def __init__(self, model, optimizer, *, whitening_steps, whitening_falls=False, **options):
        super().__init__(model, optimizer, **options)
        self.done, self.whitening_steps, self.whitening_falls = 0, whitening_steps, whitening_falls

    def step(self, x, y):
        bias = self.optimizer.param_groups[-1]
        if self.done >= self.whitening_steps:
            bias["lr"] = 0.0
        elif self.whitening_falls:
            bias["lr"] = bias["initial_lr"] * (1 - self.done / self.whitening_steps)
        loss = super().step(x, y)
        self.done += 1
        return loss

    def state_dict(self):
        return super().state_dict() | {"done": self.done}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.done = state["done"]


class Lookahead(Fast):
    """A network pulled back every few steps to a slow average of itself, at the last step all the way (arXiv 1907.08610)."""

    def __init__(self, model, optimizer, *, steps, **options):
        super().__init__(model, optimizer, **options)
        self.steps = steps
        self.slow = [value.clone() for value in averaged_values(self.model)]

    def step(self, x, y):
        loss = super().step(x, y)
        if self.done % LOOKAHEAD_EVERY == 0:
            self._pull(0.95**LOOKAHEAD_EVERY * (self.done / self.steps) ** 3)
        if self.done == self.steps:
            self._pull(1.0)
        return loss

    @torch.no_grad()
    def _pull(self, keep):
        """Move the slow weights `1 - keep` of the way to the network's, and the network's onto them."""
        now = averaged_values(self.model)
        torch._foreach_lerp_(self.slow, now, 1 - keep)
        torch._foreach_copy_(now, self.slow)

    def state_dict(self):
        return super().state_dict() | {"slow": self.slow}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        for mine, theirs in zip(self.slow, state["slow"]):
            mine.copy_(theirs)


class AlternatingFlips(Batches):
    """Batches whose images are mirrored at random in the first pass and from then on in every second one (section 3.6).

    An image and its mirror image are so seen in turn, never twice the same in a row.

    steps: of a training: the pass that they end in ends with them.
    whole: leave a pass's last, short batch out.
    small, low_res_steps: pixels a side of the images in so many first steps.
    """

    def __init__(self, data, *arguments, seed, steps=0, whole=False, low_res_size=0, low_res_steps=0, **options):
        super().__init__(data, *arguments, seed=seed, **options)
        self.passes, self.steps, self.whole = 0, steps, whole
        self.low_res_size, self.low_res_steps = low_res_size, low_res_steps
        generator = torch.Generator().manual_seed(seed)
        self.mirrored = (torch.rand(len(data), generator=generator) < 0.5).to(data.images.device)

    def __len__(self):
        return len(self.data) // self.batch_size if self.whole else super().__len__()

    def prepare(self, indices):
        images = super().prepare(indices)
        mirrored = self.mirrored[indices] ^ (self.passes % 2 == 1)
        return torch.where(mirrored[:, None, None, None], images.flip(-1), images)

    def __iter__(self):
        done = self.passes * len(self)
        left = self.steps - done
        batches = itertools.islice(super().__iter__(), left if 0 < left < len(self) else len(self))
        for step, (x, y) in enumerate(batches, done):
            yield shrunk(x, self.low_res_size) if step < self.low_res_steps else x, y
        self.passes += 1

    def examples(self):
        """As `example`, one of each size of images."""
        x, y = self.example()
        return [(shrunk(x, self.low_res_size), y)] * (self.low_res_steps > 0) + [(x, y)]

    def state_dict(self):
        return super().state_dict() | {"passes": self.passes}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.passes = state["passes"]


def shrunk(x, side):
    """Images (N, 3, side, side) of larger ones: a pixel is a weighted mean of those that it covers."""
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)


def tta_mirror(logits_of):
    """Test-time augmentation: `logits_of`, averaged over an image and its mirror image."""
    return lambda x: (logits_of(x) + logits_of(x.flip(-1))) / 2


def tta_mirror_translate(logits_of):
    """Test-time augmentation: `logits_of`, averaged over an image, the image moved a pixel up and left and down and right, and the mirror images of all.

    Half of the weight is the unmoved images' (section 3.5).
    """

    both = tta_mirror(logits_of)

    def averaged(x):
        height, width = x.shape[-2:]
        padded = F.pad(x, (1, 1, 1, 1), "reflect")
        moved = [padded[..., top : top + height, top : top + width] for top in (0, 2)]
        views = [(x, 0.5), *((view, 0.25) for view in moved)]
        return sum(weight * both(view) for view, weight in views)

    return averaged


TTA = {1: lambda logits_of: logits_of, 2: tta_mirror, 6: tta_mirror_translate}


def predict(logits_of, data, stats, views, tta_fraction=1.0):
    """Logits (N, classes) of all of `data`: a share `tta_fraction` of it, which a plain view is least sure of, from all the views.

    How sure a network is of an image is its highest probability. The share is of this data: another test set draws the line
    elsewhere. After github.com/hiverge/cifar10-speedrun.
    """
    averaged = TTA[views](logits_of)
    if views == 1 or tta_fraction == 1:
        return evaluation.predict(averaged, data, stats)
    logits = evaluation.predict(logits_of, data, stats)
    sure = F.softmax(logits, -1).amax(-1)
    chosen = sure.topk(int(tta_fraction * len(data)), largest=False).indices
    logits[chosen] = evaluation.predict(averaged, data[chosen], stats)
    return logits
