"""A trained network from a file of weights: any that main.py wrote, or those that the repository has."""

import hashlib
from pathlib import Path

import torch

from common import cli
from common.evaluation import TTA
from common.models import MODELS
from common.support import checkpoints
from common.support.errors import UserError, first_line, reading, unreadable

FACTS = Path(__file__).resolve().parents[1] / "weights" / "fast94.json"  # written by weights/make.py


def load_network(model: str, path: Path) -> torch.nn.Module:
    """Return the network called `model` with the weights in `path`, in evaluation mode.

    Raises:
        UserError: the file cannot be read, is not a state_dict of this network, holds more than tensors, or a value
            that is not finite. Nothing in it is run.
    """
    if model not in MODELS:
        raise UserError(f"there is no model {model}; name one of {', '.join(MODELS)} with --model")
    network = MODELS[model]()
    weights = checkpoints.load(path, "file of weights", "give one as main.py writes it; nothing in it was run")
    try:
        network.load_state_dict(weights)
        for name, value in network.state_dict().items():
            # load_state_dict would convert integers or complex numbers without a word
            if weights[name].is_floating_point() != value.is_floating_point() or not value.isfinite().all():
                raise ValueError(f"{name} has values that are not finite numbers of its kind")
    except Exception as error:  # what is not a state_dict at all fails in many ways
        reason = " ".join(str(error).splitlines()[:2])[:200] or first_line(error)
        raise UserError(f"{path} does not hold weights of {model}: {reason}; name its network with --model") from error
    return network.eval()


def load_shipped() -> tuple[torch.nn.Module, dict]:
    """Return the network whose weights are in the repository, in evaluation mode, and its facts (weights/fast94.json).

    Raises:
        UserError: a file is missing, or the weights are not those whose SHA-256 is among the facts.
    """
    with reading(FACTS.parent):
        facts = cli.read_json(FACTS)
        path = shipped_path(facts)
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise unreadable(path, error) from error
        if digest != facts["sha256"]:
            raise UserError(f"{path} is not the file that {FACTS.name} describes; restore it with git checkout")
        # what predict.py takes of them
        (float(facts["temperature"]), float(facts["unknown_below"]), TTA[facts["views"]], facts["test_accuracy"])
        return load_network(facts["model"], path), facts


def shipped_path(facts: dict) -> Path:
    """Return where the repository's weights are."""
    return FACTS.with_name(facts["file"])


def minus_energy(logits: torch.Tensor) -> torch.Tensor:
    """Return the log of the sum of exponentials of logits (..., 10): it is low where nothing speaks for any class.

    Liu et al., Energy-based Out-of-distribution Detection (arXiv 2010.03759), at a temperature of 1.
    """
    return logits.logsumexp(-1)
