"""What the recipes add to a learner's steps: averages of the weights, and the learning rate of the whitening's bias."""

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from common.learners import Hook


class EMA(Hook):
    """Evaluate and save an exponential average of the weights, which begins with the weights after the first step.

    decay: per step; 0.999 averages over about a thousand steps. Batch statistics are averaged with the weights.

    It is not torch's AveragedModel, which counts its steps on the device and so makes the host wait there in each.
    """

    in_update = True

    def __init__(self, decay):
        self.update = get_ema_multi_avg_fn(decay)

    def attach(self, learner):
        self.average = copy.deepcopy(learner.model).eval()

    def after_step(self, learner, step):
        averages, values = _averaged_values(self.average), _averaged_values(learner.model)
        if step == 1:
            torch._foreach_copy_(averages, values)
        else:
            self.update(averages, values, None)

    def state_dict(self):
        return {"average": self.average.state_dict()}

    def load_state_dict(self, state):
        self.average.load_state_dict(state["average"])


class Lookahead(Hook):
    """Pull the network back to a slow average of itself every few steps (arXiv 1907.08610).

    After the last of all `steps` the network becomes the average.
    """

    EVERY = 5  # steps
    # the slow average keeps this share of itself per step, times the cube of the share of the steps that are done
    DECAY = 0.95

    def __init__(self, steps):
        self.steps = steps

    def attach(self, learner):
        self.slow = [value.clone() for value in _averaged_values(learner.model)]

    def after_step(self, learner, step):
        if step % self.EVERY == 0:
            self._pull(learner.model, self.DECAY**self.EVERY * (step / self.steps) ** 3)
        if step == self.steps:
            self._pull(learner.model, 1.0)

    @torch.no_grad()
    def _pull(self, model, keep):
        """Move the slow weights `1 - keep` of the way to the network's, and the network's onto them."""
        values = _averaged_values(model)
        torch._foreach_lerp_(self.slow, values, 1 - keep)
        torch._foreach_copy_(values, self.slow)

    def state_dict(self):
        return {"slow": self.slow}

    def load_state_dict(self, state):
        for mine, theirs in zip(self.slow, state["slow"], strict=True):
            mine.copy_(theirs)


class WhiteningBias(Hook):
    """Train the whitening's bias, which is alone in the optimizer's last group, in the first `steps` steps only.

    whitening_decays: its learning rate decays linearly to 0 in these steps; otherwise it follows the schedule.
    """

    def __init__(self, steps, whitening_decays=False):
        self.steps, self.whitening_decays = steps, whitening_decays

    def before_step(self, learner, step):
        number = len(learner.optimizer.param_groups) - 1
        if step >= self.steps:
            learner.set_group_lr(number, 0.0)
        elif self.whitening_decays:
            initial_lr = learner.optimizer.param_groups[number]["initial_lr"]
            learner.set_group_lr(number, initial_lr * (1 - step / self.steps))


def _averaged_values(model):
    """Return the tensors that an average of a network is over: its parameters and its batch statistics, in place."""
    return [value for value in model.state_dict().values() if value.is_floating_point()]
