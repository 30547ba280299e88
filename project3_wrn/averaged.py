"""A network that is measured by an exponential average of its weights."""

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common.learners import Network


class Averaged(Network):
    """decay: of the average, a step: 0.999 looks back over some thousand. Batch statistics are averaged with the weights."""

    def __init__(self, model, optimizer, *, decay, **options):
        super().__init__(model, optimizer, **options)
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

    def descend(self, loss):
        super().descend(loss)
        self.average.update_parameters(self.model)

    def logits(self, x):
        self.average.eval()
        return self._forward(x, self.average)

    def weights(self):
        return {name: value.detach().clone() for name, value in self.average.module.state_dict().items()}

    def load_weights(self, weights):
        self.average.module.load_state_dict(weights)

    def state_dict(self):
        return super().state_dict() | {"average": self.average.state_dict()}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.average.load_state_dict(state["average"])
