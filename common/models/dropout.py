"""Dropout whose probability is a tensor, so that networks that differ in it can be stacked and trained as one."""

import torch
from torch import nn


class Dropout(nn.Module):
    """Zero each activation with probability `p` in training, and scale the others by 1 / (1 - p).

    Srivastava et al., Dropout (JMLR 15, 2014). This is `nn.Dropout` with p in a buffer (not part of the saved weights):
    `torch.func` maps over buffers, not over Python numbers.
    """

    def __init__(self, p):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout must be in [0, 1), not {p}")
        self.register_buffer("p", torch.tensor(float(p)), persistent=False)

    def forward(self, x):
        if not self.training:
            return x
        return x * (torch.rand_like(x) >= self.p) / (1 - self.p)
