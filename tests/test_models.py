import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock

from common.models import MODELS, forward_flops, parameter_count
from common.models.dropout import Dropout

FACTS = {  # parameters, FLOPs of a forward pass, shape of the last feature maps
    "lenet": (62_006, 1_303_440, (16, 5, 5)),
    "lightweight_resnet": (308_650, 98_241_024, (128, 8, 8)),
}


@pytest.mark.parametrize("name", MODELS)
def test_counts_shapes_and_gradients(name):
    parameters, flops, features = FACTS[name]
    model = MODELS[name]()
    assert parameter_count(model) == parameters
    assert forward_flops(model) == flops
    x = torch.randn(4, 3, 32, 32)
    assert model.forward_features(x).shape == (4, *features)
    model.train()
    logits = model(x)
    assert logits.shape == (4, 10) and logits.isfinite().all()
    F.cross_entropy(logits, torch.arange(4)).backward()
    for parameter, value in model.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, parameter
    model.eval()
    assert torch.equal(model(x), model.forward_head(model.forward_features(x)))


def test_lenet_is_the_reports():
    """Its layers in the order of the report's own code: ReLU before pooling, dropout after fc1."""
    model = MODELS["lenet"]().eval()
    reference = nn.Sequential(
        *(model.conv1, nn.ReLU(), nn.MaxPool2d(2), model.conv2, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(model.fc1, nn.ReLU(), nn.Dropout(0.5), model.fc2, nn.ReLU(), model.fc3),
    ).eval()
    x = torch.randn(64, 3, 32, 32)
    logits, expected = model(x), reference(x)
    assert torch.equal(logits, expected)
    for a, b in zip(*(torch.autograd.grad(out.square().sum(), model.parameters()) for out in (logits, expected))):
        assert torch.equal(a, b)


def test_residual_block_is_torchvisions():
    block = MODELS["lightweight_resnet"]().layer2
    theirs = BasicBlock(
        32, 64, stride=2, downsample=nn.Sequential(nn.Conv2d(32, 64, 1, 2, bias=False), nn.BatchNorm2d(64))
    )
    theirs.load_state_dict(
        {name.replace("shortcut", "downsample"): value for name, value in block.state_dict().items()}
    )
    x = torch.randn(8, 32, 32, 32)
    assert torch.equal(block(x), theirs(x))
    assert torch.equal(block.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("p", [0.0, 0.3, 0.7])
def test_dropout_keeps_its_share_and_its_mean(p):
    dropout, x = Dropout(p), torch.ones(100_000)
    out = dropout(x)
    assert abs((out == 0).float().mean() - p) < 0.01
    assert torch.allclose(out[out != 0], torch.tensor(1 / (1 - p)))
    assert torch.equal(dropout.eval()(x), x)
    assert "p" not in dropout.state_dict()


def test_impossible_dropout_is_refused():
    with pytest.raises(ValueError, match="1"):
        Dropout(1)
