"""A network that is measured by an exponential average of its weights."""

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from common.learners import Learner, averaged_values


class EMA(Learner):
    """decay: of the average, a step: 0.999 looks back over some thousand. Batch statistics are averaged with the weights.

    The average begins with the weights after the first step. It is not torch's AveragedModel, which counts its steps on the
    device and so makes the host wait there in each.
    """

    def __init__(self, model, optimizer, *, decay, **options):
        super().__init__(model, optimizer, **options)
        self.average, self.started = copy.deepcopy(model).eval(), False
        self.update = get_ema_multi_avg_fn(decay)

    def backward_and_step(self, loss):
        super().backward_and_step(loss)
        slow, now = averaged_values(self.average), averaged_values(self.model)
        if self.started:
            self.update(slow, now, None)
        else:
            torch._foreach_copy_(slow, now)
        self.started = True

    def logits(self, x):
        return self._forward(x, self.average)

    def weights(self):
        return {name: value.detach().clone() for name, value in self.average.state_dict().items()}

    def load_weights(self, weights):
        self.average.load_state_dict(weights)

    def state_dict(self):
        return super().state_dict() | {"average": self.average.state_dict(), "started": self.started}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.average.load_state_dict(state["average"])
        self.started = state["started"]
