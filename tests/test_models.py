import re

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock

from common import data
from common.models import MODELS, forward_flops, parameter_count
from common.models.dropout import Dropout
from common.models.fast import Whitening
from common.models.parts import CONFUSED, PARTS, PartsHead
from common.models.wrn import WideBlock, WideResNet
from common.reported import CONFUSED_PAIRS

FACTS = {  # parameters, FLOPs of a forward pass, shape of the last feature maps
    "lenet": (62_006, 1_303_440, (16, 5, 5)),
    "lightweight_resnet": (308_650, 98_241_024, (128, 8, 8)),
    "lightweight_resnet_no_batch_norm": (307_978, 98_241_024, (128, 8, 8)),
    "lightweight_resnet_no_shortcuts": (298_026, 96_143_872, (128, 8, 8)),
    "resnet18": (11_173_962, 1_110_845_440, (512, 4, 4)),
    "resnet34": (21_282_122, 2_318_804_992, (512, 4, 4)),
    "resnet50": (23_520_842, 2_595_659_776, (2048, 4, 4)),
    "wrn28_10": (36_479_194, 10_486_657_536, (640, 8, 8)),
    "wrn16_8": (10_961_370, 3_096_291_328, (512, 8, 8)),
    "dla34": (15_234_234, 124_889_088, (512, 1, 1)),
    "dla34_cifar": (15_232_314, 1_822_795_776, (512, 4, 4)),
    "vit": (3_194_634, 202_904_576, (256, 8, 8)),
    "vgg16_bn": (14_728_266, 626_403_328, (512, 2, 2)),
    "fast94": (1_971_352, 236_294_720, (256, 3, 3)),
    "fast95": (4_604_440, 603_121_728, (384, 3, 3)),
    "fast96": (9_915_416, 903_934_528, (512, 3, 3)),
    "resnet18_se": (11_263_042, 1_111_019_520, (512, 4, 4)),
    "resnet18_cbam": (11_263_826, 1_111_726_720, (512, 4, 4)),
    "resnet18_bilinear": (11_242_634, 1_112_096_768, (512, 4, 4)),
    "resnet18_spatial": (11_174_746, 1_111_378_560, (512, 4, 4)),
    "resnet18_parts": (11_251_540, 1_261_879_416, (640, 4, 4)),
    "fast_small": (294_360, 39_774_784, (128, 3, 3)),
    "fast_small_se": (297_416, 39_780_416, (128, 3, 3)),
    "fast_small_cbam": (297_710, 39_841_516, (128, 3, 3)),
    "fast_small_bilinear": (342_306, 40_075_328, (128, 3, 3)),
    "fast_small_spatial": (294_654, 39_830_252, (128, 3, 3)),
    "fast_small_parts": (314_658, 48_081_592, (192, 3, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_counts_shapes_and_gradients(name):
    torch.manual_seed(0)  # of a few hidden units, all may be dead by chance
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


def copied(model, theirs, rename):
    """Return `theirs` with our weights; rename maps their names to ours."""
    ours = model.state_dict()
    theirs.load_state_dict({name: ours[rename(name)].view_as(value) for name, value in theirs.state_dict().items()})
    return theirs


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_is_torchvisions_with_another_stem(name):
    theirs = getattr(torchvision.models, name)(num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    model, x = MODELS[name](), torch.randn(2, 3, 32, 32)
    copied(model, theirs, str)
    assert torch.allclose(model.eval()(x), theirs.eval()(x), atol=1e-5)


def test_vgg_is_torchvisions_without_its_large_head():
    model, x = MODELS["vgg16_bn"]().eval(), torch.randn(2, 3, 32, 32)
    with torch.device("meta"):  # its head of 124 million parameters is not wanted
        theirs = torchvision.models.vgg16_bn().eval()
    theirs.features.load_state_dict(model.features.state_dict(), assign=True)
    assert torch.equal(model(x), model.fc(theirs.features(x).flatten(1)))


def test_dla34_is_timms():
    timm = pytest.importorskip("timm")
    model, x = MODELS["dla34"](), torch.randn(2, 3, 64, 64)

    def rename(name):
        for theirs, ours in (
            *((f"level{stage}.", f"trees.{stage - 2}.") for stage in (2, 3, 4, 5)),
            *(
                ("base_layer", "base"),
                ("tree1", "first"),
                ("tree2", "second"),
                ("root.conv", "root.0"),
                ("root.bn", "root.1"),
            ),
        ):
            name = name.replace(theirs, ours)
        for i in (1, 2):
            name = name.replace(f".bn{i}.", f".conv{i}.1.").replace(f".conv{i}.weight", f".conv{i}.0.weight")
        return name

    theirs = copied(model, timm.create_model("dla34", num_classes=10), rename)
    for mode in (True, False):  # batch statistics, then running ones
        assert torch.allclose(model.train(mode)(x), theirs.train(mode)(x), atol=1e-4)


def test_vit_is_timms():
    transformer = pytest.importorskip("timm.models.vision_transformer")
    theirs = transformer.VisionTransformer(
        *(32, 4, 3, 10, "avg", 256, 6, 8, 2.0), class_token=False, fc_norm=False
    ).eval()

    def rename(name):
        for from_them, to_us in (
            *(("patch_embed.proj", "patches"), ("pos_embed", "encoder.pos_embedding"), ("head", "fc")),
            *(("blocks.", "encoder.layers.encoder_layer_"), ("norm1", "ln_1"), ("norm2", "ln_2")),
            *(("attn.qkv.weight", "self_attention.in_proj_weight"), ("attn.qkv.bias", "self_attention.in_proj_bias")),
            *(("attn.proj", "self_attention.out_proj"), ("mlp.fc1", "mlp.0"), ("mlp.fc2", "mlp.3")),
        ):
            name = name.replace(from_them, to_us)
        return name.replace("norm.", "encoder.ln.") if name.startswith("norm.") else name

    model, x = MODELS["vit"]().eval(), torch.randn(2, 3, 32, 32)
    copied(model, theirs, rename)
    assert torch.allclose(model(x), theirs(x), atol=1e-5)


def test_wide_resnet_has_dropout_and_refuses_other_depths():
    assert [module.p for module in MODELS["wrn16_8"]().modules() if isinstance(module, nn.Dropout)] == [0.3] * 6
    with pytest.raises(ValueError, match="6n"):
        WideResNet(18, 8, 0.3, 10)


@pytest.mark.parametrize(("channels_in", "stride"), [(16, 1), (8, 2)])
def test_the_wide_block_drops_out_between_its_convolutions(channels_in, stride):
    """The order of the paper's code (szagoruyko/wide-residual-networks, models/wide-resnet.lua), written by hand."""
    torch.manual_seed(0)
    block, x = WideBlock(channels_in, 16, stride, dropout=0.3).train(), torch.randn(8, channels_in, 16, 16)
    weights = {name: value.clone() for name, value in block.state_dict().items()}

    def normalized(x, name):
        mean, variance = (weights[f"{name}.running_{kind}"] for kind in ("mean", "var"))
        return F.batch_norm(x, mean, variance, weights[f"{name}.weight"], weights[f"{name}.bias"], training=True)

    torch.manual_seed(1)
    active = F.relu(normalized(x, "bn1"))
    residual = F.conv2d(active, weights["conv1.weight"], stride=stride, padding=1)
    residual = F.dropout(F.relu(normalized(residual, "bn2")), 0.3, training=True)
    residual = F.conv2d(residual, weights["conv2.weight"], padding=1)
    shortcut = x if channels_in == 16 else F.conv2d(active, weights["shortcut.weight"], stride=stride)
    torch.manual_seed(1)
    assert torch.equal(block(x), shortcut + residual)


@pytest.mark.parametrize("name", MODELS)
def test_docstrings_name_the_number_of_parameters(name):
    counts = re.findall(r"([\d,]+) parameters", MODELS[name].__doc__)
    assert counts == [f"{parameter_count(MODELS[name]()):,}"]


def test_whitening_whitens(sample):
    """The covariance of what the filters of one sign give is the identity, where the patches vary at all."""
    layer, images = Whitening(), data.normalize(sample[0].images[:500], data.CIFAR10_STATS)
    layer.whiten(images, eps=0.0)
    responses = layer(images)[:, :12].movedim(1, 0).flatten(1).double()
    assert torch.allclose(responses @ responses.T / responses.shape[1], torch.eye(12, dtype=torch.float64), atol=1e-2)
    assert torch.equal(layer.weight[:12], -layer.weight[12:])


def test_fast_convolutions_begin_as_the_identity():
    conv, x = MODELS["fast94"]().groups[1].convs[0], torch.randn(2, 64, 8, 8)
    assert torch.equal(conv(x)[:, :64], x)


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


# --- the sub-network on local parts ---


def test_the_parts_are_of_the_reports_confused_classes():
    assert sorted({data.CLASSES.index(name) for pair in CONFUSED_PAIRS for name in pair}) == list(CONFUSED)


@pytest.mark.parametrize(("name", "sees"), [("resnet18_parts", 13), ("fast_small_parts", 13)])
def test_local_features_see_a_part_of_the_image(name, sees):
    """Pixels of the image that the middle one of them depends on, whose weights are all positive."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(0.1, 1.0)
    seen = {}
    model.local.norms[0].register_forward_hook(lambda module, inputs, output: seen.update(local=output))
    # a maximum is of one of its pixels: over many images, of any of them
    touched = torch.zeros(32, 32)
    for _ in range(30):
        x = torch.rand(1, 3, 32, 32, requires_grad=True)
        model(x)
        middle = seen["local"].shape[-1] // 2
        (gradient,) = torch.autograd.grad(seen["local"][0, :, middle, middle].sum(), x)
        touched += gradient.abs().sum((0, 1))
    for axis in (0, 1):
        rows = (touched.sum(axis) > 0).nonzero().flatten()
        assert rows.max() - rows.min() + 1 == sees


def test_parts_against_their_equations():
    """Attention is a softmax over pixels, a part the mean of the features by it, and logits of the others are 0."""
    head, local = PartsHead(8, 10), torch.randn(3, 8, 4, 4)
    logits = head(local)
    for n in range(3):
        parts = []
        for k in range(PARTS):
            scores = (head.where.weight[k, :, 0, 0, None, None] * local[n]).sum(0) + head.where.bias[k]
            weights = scores.exp() / scores.exp().sum()
            parts.append((weights * local[n]).sum((1, 2)))
        expected = torch.zeros(10)
        expected[list(CONFUSED)] = head.what(torch.cat(parts))
        assert torch.allclose(logits[n], expected, atol=1e-5)


@pytest.mark.parametrize(("name", "plain"), [("resnet18_parts", "resnet18"), ("fast_small_parts", "fast_small")])
def test_without_its_parts_it_is_the_plain_network(name, plain):
    model, other, x = MODELS[name]().eval(), MODELS[plain]().eval(), torch.randn(2, 3, 32, 32)
    other.load_state_dict({key: value for key, value in model.state_dict().items() if key in other.state_dict()})
    with torch.no_grad():
        for parameter in model.parts.what.parameters():
            parameter.zero_()
    assert torch.allclose(model(x), other(x), atol=1e-5)


def test_a_network_with_its_batch_norms_folded_is_the_one_without_batch_norm():
    whole, reduced = (MODELS[f"lightweight_resnet{end}"]() for end in ("", "_no_batch_norm"))
    whole(torch.randn(64, 3, 32, 32))  # gives the batch norms statistics
    weights = {}
    pairs = {"stem.0": "stem.1", **{f"layer{i}.conv{j}": f"layer{i}.bn{j}" for i in (1, 2, 3) for j in (1, 2)}}
    pairs |= {f"layer{i}.shortcut.0": f"layer{i}.shortcut.1" for i in (2, 3)}
    for conv, norm in pairs.items():
        fused = fuse_conv_bn_eval(whole.get_submodule(conv).eval(), whole.get_submodule(norm).eval())
        weights |= {f"{conv}.weight": fused.weight, f"{conv}.bias": fused.bias}
    reduced.load_state_dict({**weights, "fc.weight": whole.fc.weight, "fc.bias": whole.fc.bias})
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(whole.eval()(x), reduced.eval()(x), atol=1e-5)


def test_a_network_whose_shortcuts_are_zero_is_the_one_without_shortcuts():
    class Zero(nn.Module):
        def forward(self, x):
            return 0

    whole, reduced = (MODELS[f"lightweight_resnet{end}"]() for end in ("", "_no_shortcuts"))
    for name in ("layer1", "layer2", "layer3"):
        whole.get_submodule(name).shortcut = Zero()
    whole.load_state_dict(reduced.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(whole.eval()(x), reduced.eval()(x))
    assert not torch.equal(reduced(x), MODELS["lightweight_resnet"]().eval()(x))
