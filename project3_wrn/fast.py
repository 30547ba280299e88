"""The fast recipes' way of training, after Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU (arXiv 2404.00498).

Frozen patch whitening, a triangular learning rate, a large one for the biases of the batch norms, alternating flips, and a
prediction that is the mean over six views; then either Muon, which needs fewer images, or SGD with Lookahead. The numbers
are in project3_wrn/recipes.py.
"""

import torch
import torch.nn.functional as F

from common.data import Batches
from common.learners import Network, averaged_values

WHITEN_FROM = 5000  # images whose patches are whitened
BIAS_LR = 64  # times the others' learning rate
WHITENING_BIAS_EPOCHS = 3
LOOKAHEAD_EVERY = 5  # steps
# with Muon, of an example's loss: what the batch norms' biases and the rest of the network, the head, learn at by SGD. The
# repository's head begins with a standard deviation of 1 and its logits are divided by 256; ours by 9, with weights as much smaller
MUON_BIAS_LR, MUON_HEAD_LR, MUON_HEAD_MOMENTUM = 0.053, 0.67 * (9 / 256) ** 2, 0.85
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def triangle(epoch, epochs, start=0.2, peak_at=0.23, end=0.07):
    """From `start` up to 1 at `peak_at` of all epochs, then down to `end`; straight lines (section 3.2)."""
    done = epoch / epochs
    if done < peak_at:
        return start + (1 - start) * done / peak_at
    return 1 - (1 - end) * (done - peak_at) / (1 - peak_at)


def optimizer(model, recipe):
    """The recipe's optimiser; the whitening's bias is alone in the last group."""
    named = dict(model.named_parameters())
    whitening = [named.pop("whitening.bias")]
    norms = [named.pop(name) for name in list(named) if "norms" in name]
    if recipe.optimizer == "muon":
        filters = [named.pop(name) for name in list(named) if "convs" in name]
        biases, head = (
            {
                "lr": lr * recipe.batch_size,
                "weight_decay": recipe.weight_decay / lr,
                "momentum": MUON_HEAD_MOMENTUM,
                "orthogonal": False,
            }
            for lr in (MUON_BIAS_LR, MUON_HEAD_LR)
        )
        groups = [{"params": filters, "lr": recipe.lr, "orthogonal": True}]
        groups += [
            {"params": list(named.values()), **head},
            {"params": norms, **biases},
            {"params": whitening, **biases},
        ]
        return Muon(groups, momentum=recipe.momentum, nesterov=True)
    plain = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    biases = {"lr": recipe.lr * BIAS_LR, "weight_decay": recipe.weight_decay / BIAS_LR}
    groups = [{"params": list(named.values()), **plain}, {"params": norms, **biases}, {"params": whitening, **plain}]
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=True)


class Muon(torch.optim.SGD):
    """SGD whose groups marked `orthogonal` move by orthogonal matrices instead, at a constant norm of their weights.

    A filter bank (channels, ...) is taken for a matrix of a row a channel. Jordan et al., Muon (2024), as in the repository's
    airbench94_muon. torch.optim.Muon takes matrices only, and always computes in bf16, which most CPUs emulate.
    """

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"] if group["orthogonal"] else ():
                momentum = group["momentum"]
                if "momentum_buffer" not in self.state[weight]:
                    self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
                velocity = self.state[weight]["momentum_buffer"]
                velocity.mul_(momentum).add_(weight.grad)
                update = orthogonal((weight.grad + momentum * velocity).flatten(1))
                weight.mul_(len(weight) ** 0.5 / weight.norm()).sub_(group["lr"] * update.view(weight.shape))
                weight.grad = None  # done: nothing is left for SGD
        super().step()


def orthogonal(matrix, steps=3):
    """The nearest orthogonal matrix to (rows, columns), roughly: every singular value ends between about 0.5 and 1.5.

    Newton and Schulz's iteration with the quintic of Jordan et al. (2024): odd polynomials of a matrix change its singular
    values only.
    """
    if len(matrix) > matrix.shape[1]:
        return orthogonal(matrix.T, steps).T
    linear, cubic, quintic = NEWTON_SCHULZ
    x = matrix / (matrix.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = linear * x + (cubic * square + quintic * square @ square) @ x
    return x


class Fast(Network):
    """A network whose whitening has a bias that is trained for WHITENING_BIAS_EPOCHS only."""

    def __init__(self, model, optimizer, *, epoch_steps, **options):
        super().__init__(model, optimizer, **options)
        self.done, self.whitening_steps = 0, WHITENING_BIAS_EPOCHS * epoch_steps

    def step(self, x, y):
        if self.done >= self.whitening_steps:
            self.optimizer.param_groups[-1]["lr"] = 0.0
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
    """

    def __init__(self, data, *arguments, seed, **options):
        super().__init__(data, *arguments, seed=seed, **options)
        self.passes = 0
        generator = torch.Generator().manual_seed(seed)
        self.mirrored = (torch.rand(len(data), generator=generator) < 0.5).to(data.images.device)

    def prepare(self, indices):
        images = super().prepare(indices)
        mirrored = self.mirrored[indices] ^ (self.passes % 2 == 1)
        return torch.where(mirrored[:, None, None, None], images.flip(-1), images)

    def __iter__(self):
        yield from super().__iter__()
        self.passes += 1

    def state_dict(self):
        return super().state_dict() | {"passes": self.passes}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.passes = state["passes"]


def with_mirror(logits_of):
    """Test-time augmentation: `logits_of`, averaged over an image and its mirror image."""
    return lambda x: (logits_of(x) + logits_of(x.flip(-1))) / 2


def with_views(logits_of):
    """Test-time augmentation: `logits_of`, averaged over an image, the image moved a pixel up and left and down and right, and the mirror images of all.

    Half of the weight is the unmoved images' (section 3.5).
    """

    both = with_mirror(logits_of)

    def averaged(x):
        height, width = x.shape[-2:]
        padded = F.pad(x, (1, 1, 1, 1), "reflect")
        moved = [padded[..., top : top + height, top : top + width] for top in (0, 2)]
        views = [(x, 0.5), *((view, 0.25) for view in moved)]
        return sum(weight * both(view) for view, weight in views)

    return averaged
