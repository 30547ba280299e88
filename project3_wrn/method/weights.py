"""A trained network from a file of weights."""

from pathlib import Path

import torch

from common.models import MODELS
from common.support import checkpoints
from common.support.errors import UserError, first_line


def load_network(model: str, path: Path) -> torch.nn.Module:
    """Return the network called `model` with the weights in `path`, in evaluation mode.

    Raises:
        UserError: the file cannot be read, is not a state_dict of this network, or holds more than tensors. Nothing in
            it is run.
    """
    if model not in MODELS:
        raise UserError(f"there is no model {model}; name one of {', '.join(MODELS)} with --model")
    network = MODELS[model]()
    weights = checkpoints.load(path, "file of weights", "give one as main.py writes it; nothing in it was run")
    try:
        network.load_state_dict(weights)
    except Exception as error:  # what is not a state_dict at all fails in many ways
        reason = " ".join(str(error).splitlines()[:2])[:200] or first_line(error)
        raise UserError(f"{path} does not hold weights of {model}: {reason}; name its network with --model") from error
    return network.eval()
