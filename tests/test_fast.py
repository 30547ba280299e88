"""fast94 against github.com/hiverge/cifar10-speedrun (2025): its network, optimizers and loops, written out here."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from common import augment, data, evaluation
from common.models import MODELS
from common.support.errors import UserError
from project3_wrn.method import fast, train
from project3_wrn.method.recipes import RECIPES

RECORD = dataclasses.replace(RECIPES["fast94"], low_res_epochs=0.0)


def published_network(ours):
    """Return its layers in its order, in double precision and with the weights of our fast94."""

    class Scaled(nn.Linear):
        def forward(self, x):
            return super().forward(x) / 256

    def group(channels_in, channels):
        convs = [
            nn.Conv2d(first, channels, 3, padding="same", bias=False, dtype=torch.double)
            for first in (channels_in, channels)
        ]
        norms = [nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4434, dtype=torch.double) for _ in range(2)]
        for norm in norms:
            norm.weight.requires_grad = False
        return convs[0], nn.MaxPool2d(2), norms[0], nn.SiLU(), convs[1], norms[1], nn.SiLU()

    whiten = nn.Conv2d(3, 24, 2, dtype=torch.double)
    whiten.weight.requires_grad = False
    widths = ((24, 64), (64, 256), (256, 256))
    head = Scaled(256, 10, bias=False, dtype=torch.double)
    layers = [layer for pair in widths for layer in group(*pair)]
    network = nn.Sequential(whiten, nn.GELU(), *layers, nn.MaxPool2d(3), nn.Flatten(), head)
    with torch.no_grad():
        whiten.weight.copy_(ours.whitening.weight)
        whiten.bias.copy_(ours.whitening.bias)
        for theirs, mine in zip(conv_weights(network), conv_weights(ours)):
            theirs.copy_(mine)
        head.weight.copy_(ours.fc.weight.double() * 256 / 9)
    return network


def conv_weights(network):
    """Return the weights of the 3x3 convolutions, in order."""
    return [layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)]


def published_update(gradient, magnitude):
    """Return its _zeropower_via_newtonschulz5 of one filter bank, scaled to `magnitude` first unless that is None."""
    x = gradient.reshape(len(gradient), -1)
    x = x / (x.norm() + 1e-5)
    if magnitude is not None:
        x = x * magnitude
        x = x / (x.norm() + 1e-5)
    transposed = x.shape[0] > x.shape[1]
    x = x.T if transposed else x
    for _ in range(3):
        a = x @ x.T
        x = 3.4576 * x + (-4.7391 * a + 2.0843 * (a @ a)) @ x
    return (x.T if transposed else x).reshape(gradient.shape)


def published_training(network, batches, passes_steps, steps, scaled):
    """Train as its main() does, with summed losses, on the given batches."""
    total, whitening = math.ceil(7.63 * passes_steps), math.ceil(0.19 * passes_steps)
    filters = conv_weights(network)
    norms = [layer.bias for layer in network if isinstance(layer, nn.BatchNorm2d)]
    decay = 1.0418e-06 * len(batches[0][0])
    configurations = [
        {"params": [network[0].bias], "lr": 0.0573, "weight_decay": decay / 0.0573},
        {"params": norms, "lr": 0.0573, "weight_decay": decay / 0.0573},
        {"params": [network[-1].weight], "lr": 0.5415, "weight_decay": decay / 0.5415},
    ]
    sgd = torch.optim.SGD(configurations, momentum=0.825, nesterov=True)
    buffers = [torch.zeros_like(weight) for weight in filters]
    for step, (x, y) in enumerate(batches[:steps]):
        network[0].bias.requires_grad = step < whitening
        network.zero_grad(set_to_none=True)
        F.cross_entropy(network(x.double()), y, label_smoothing=0.09, reduction="sum").backward()
        for group, base, length in zip(sgd.param_groups, (0.0573, 0.0573, 0.5415), (whitening, total, total)):
            group["lr"] = base * (1 - step / length)
        sgd.step()
        done, lr = (step + 1) / total, 0.205 * (1 - step / total)
        magnitude = 0.5012 * (1 - done) + 0.0786 * done if scaled else None
        with torch.no_grad():
            for weight, buffer in zip(filters, buffers):
                buffer.mul_(0.655).add_(weight.grad)
                update = published_update(weight.grad + 0.655 * buffer, magnitude)
                if (step + 1) % 8 == 0:
                    weight.mul_(len(weight) ** 0.5 / (weight.norm() + 1e-07))
                weight.sub_(lr * update).mul_(1 - lr * decay)


def test_the_network_is_the_published_one():
    torch.manual_seed(0)
    ours, x = MODELS["fast94"]().double(), torch.randn(16, 3, 32, 32).double()
    theirs = published_network(ours)
    for _ in range(3):  # batch statistics too
        assert torch.allclose(ours(x), theirs(x), atol=1e-12)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-12)
    head = ours.fc.weight * 256 / 9
    assert head.std().item() == pytest.approx(1) and 0.2 < ours.whitening.bias.abs().max() < 12**-0.5


@pytest.mark.parametrize("scaled, steps, tolerance", [(False, 10, 1e-7), (True, 1, 1e-4)])
def test_training_is_the_published_one_in_double_precision(sample, scaled, steps, tolerance):
    """Summed losses give the steps of means: the whitening's bias stops after three, norms are scaled after eight.

    The scaling of gradients, which ours leaves out, changes a step by 2e-5 of it.
    """
    torch.manual_seed(0)
    images = sample[0][:245]  # 12 batches of 20, the short one left out
    learner, batches, schedule = train.build("fast94", dataclasses.replace(RECORD, batch_size=20), 0, images)
    learner.model.double()
    learner._forward = lambda x, model: model(x.double())
    theirs = published_network(learner.model)
    drawn = list(batches)
    assert len(drawn) == len(batches) == 12
    before = [weight.detach().clone() for weight in conv_weights(theirs)]
    published_training(theirs, drawn, 12, steps, scaled)
    for step, (x, y) in enumerate(drawn[:steps]):
        learner.set_lr(schedule(step / 12, 8))
        learner.step(x, y)
    ours = learner.model
    for mine, published, first in zip(conv_weights(ours), conv_weights(theirs), before):
        assert (mine - published).norm() < tolerance * (published - first).norm()
    for mine, published in (
        (ours.whitening.bias, theirs[0].bias),
        (ours.fc.weight * 256 / 9, theirs[-1].weight),
        *zip(
            (norm.bias for group in ours.groups for norm in group.norms),
            (layer.bias for layer in theirs if isinstance(layer, nn.BatchNorm2d)),
        ),
    ):
        assert torch.allclose(mine, published, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(64, 216), (90, 40)])
def test_newton_and_schulz_by_the_formula(shape):
    """x <- a x + b (x x^T) x + c (x x^T)^2 x, three times, whichever side is longer; eps scales with the gradient."""
    torch.manual_seed(0)
    matrix = torch.randn(shape).double()
    numbers = (3.4576, -4.7391, 2.0843)
    for scale, eps in ((1, 1e-5), (1e-3, 1e-8)):  # gradients of a sum over 1000 images, and of their mean
        x = matrix / (matrix.norm() + 1e-5)
        for _ in range(3):
            product = x @ x.T
            x = numbers[0] * x + numbers[1] * product @ x + numbers[2] * product @ product @ x
        assert torch.allclose(fast.newton_schulz(matrix * scale, numbers, eps), x, atol=1e-12)


@pytest.mark.parametrize("count, length, steps", [(50_000, 32, 245), (45_000, 29, 222)])
def test_as_many_steps_as_published(count, length, steps):
    """There are ceil(7.63 passes) of full batches of 1536; 45,000 images are those of the 9:1 split."""
    images = data.Dataset(torch.zeros(1, 3, 32, 32, dtype=torch.uint8).expand(count, -1, -1, -1), torch.zeros(count))
    learner, batches, schedule = train.build("fast94", RECORD, 0, images)
    assert (len(batches), batches.steps, steps) == (length, steps, math.ceil(7.63 * length))
    assert learner.hooks[0].steps == math.ceil(0.19 * length)
    rates = [schedule(step / length, RECORD.epochs) for step in range(steps)]
    assert rates == pytest.approx([1 - step / steps for step in range(steps)], abs=1e-12)


def test_every_pass_is_shuffled_anew_and_the_last_ends_early(sample):
    """`fit` takes these steps, sizes and learning rates, and no image comes twice in a pass."""
    images = sample[0][:110]
    images = data.Dataset(images.images, torch.arange(110))  # a label names its image
    learner, batches, schedule = train.build("fast_small", dataclasses.replace(RECORD, batch_size=20), 0, images)
    seen, rates = [], []

    def step(x, y):
        assert x.shape == (20, 3, 32, 32)
        seen.append(y.tolist())
        rates.append(learner.optimizer.param_groups[0]["lr"])
        return torch.tensor(0.0)

    learner.step, learner.epoch_metrics = step, dict
    history = train.fit(learner, batches, RECORD.epochs, schedule=schedule)
    assert len(history["batch_losses"]) == len(seen) == math.ceil(7.63 * 5) == 39
    assert rates == pytest.approx([0.205 * (1 - step / 39) for step in range(39)])
    passes = [list(itertools.chain(*seen[start : start + 5])) for start in range(0, 39, 5)]
    assert [len(set(each)) for each in passes] == [100] * 7 + [80]
    assert len({tuple(each[:20]) for each in passes}) == 8


def test_too_few_images_for_a_batch_are_refused(sample):
    with pytest.raises(UserError, match="60 images are fewer than a batch of 64"):
        train.train("fast94", dataclasses.replace(RECORD, batch_size=64), 0, {"train": sample[0][:60]})


def test_jitter_color_is_a_loop_over_images():
    x = torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    out = augment.jitter_color(x, torch.Generator().manual_seed(5), 0.1399, 0.1308)
    drawn = torch.rand(2, 50, generator=torch.Generator().manual_seed(5)).tolist()
    for image, jittered, shift, scale in zip(x, out, *drawn):
        assert torch.allclose(jittered, (image + 0.1399 * (2 * shift - 1)) * (1 + 0.1308 * (2 * scale - 1)), atol=1e-6)
    flat = augment.jitter_color(torch.ones(20_000, 1, 1, 1), torch.Generator().manual_seed(0), 0.0, 0.25)
    assert flat.min() < 0.751 and flat.max() > 1.249 and abs(flat.mean() - 1) < 0.005


def test_the_least_certain_fifth_gets_six_views(sample):
    """Its logits are exactly those of six views, all others exactly those of one."""
    torch.manual_seed(0)
    model, images = MODELS["fast_small"]().eval(), sample[1][:250]
    plain = evaluation.predict(model, images, data.CIFAR10_STATS)
    six = evaluation.predict(evaluation.tta_mirror_translate(model), images, data.CIFAR10_STATS)
    uncertain = F.softmax(plain, 1).max(1).values.argsort()[:50]
    expected = plain.clone()
    expected[uncertain] = six[uncertain]
    assert torch.allclose(evaluation.predict_with_tta(model, images, data.CIFAR10_STATS, 6, 0.2), expected, atol=1e-6)
    assert (expected != plain).any(1).sum() == 50
    for views, logits in ((1, plain), (6, six)):
        assert torch.allclose(evaluation.predict_with_tta(model, images, data.CIFAR10_STATS, views), logits, atol=1e-6)


def test_the_first_passes_have_small_images(sample):
    """So has half of the third pass, and nothing else changes; a resized image is Pillow's."""
    recipe, images = dataclasses.replace(RECORD, batch_size=20), sample[0][:100]
    batches, small = (
        train.build("fast_small", dataclasses.replace(recipe, low_res_epochs=passes), 0, images)[1]
        for passes in (0.0, 2.5)
    )
    steps = [step for _ in range(8) for step in zip(batches, small, strict=True)]  # strict ends both passes
    assert [x.shape[-1] for _, (x, _) in steps] == [24] * math.ceil(2.5 * 5) + [32] * (39 - 13)
    for (x, y), (resized, same) in steps[:2]:
        assert torch.equal(y, same)
        for plane, mine in zip(x.flatten(0, 1)[:9], resized.flatten(0, 1)):
            theirs = Image.fromarray(plane.numpy()).resize((24, 24), Image.BILINEAR)
            assert np.allclose(mine, np.array(theirs), atol=1e-5)
    assert all(torch.equal(x, same) for (x, _), (same, _) in steps[13:])
