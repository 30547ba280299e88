"""Chapter 3's proposals against independent references."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from common import augment, data, evaluation
from common.learners import Learner
from common.models.attention import CBAM, BilinearHead, SpatialAttention
from project3_wrn.method import losses, policies
from project3_wrn.method.hooks import EMA, Lookahead, WhiteningBias
from project3_wrn.method.recipes import RECIPES, Recipe
from project3_wrn.method.train import Backend, build


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- mixtures ---


def test_mixup_is_the_mixture_its_labels_say():
    x, y = torch.randn(64, 3, 4, 4), torch.arange(64) % 10
    mixed, shares = augment.mixup(x, y, generator())
    assert torch.allclose(shares.sum(1), torch.ones(64), atol=1e-6)
    again = generator()
    share, other = torch.rand(64, generator=again), torch.randperm(64, generator=again)
    for i in range(64):
        assert torch.allclose(mixed[i], share[i] * x[i] + (1 - share[i]) * x[other[i]], atol=1e-6)
        expected = torch.zeros(10)
        expected[y[i]] += share[i]
        expected[y[other[i]]] += 1 - share[i]
        assert torch.allclose(shares[i], expected, atol=1e-6)


def test_cutmix_labels_are_the_areas_after_clipping():
    """Each image has a color of its own, so every pixel shows which image it is from."""
    n = 200
    x = torch.arange(n, dtype=torch.float).view(n, 1, 1, 1).expand(n, 3, 32, 32)
    y = torch.arange(n) % 10
    mixed, shares = augment.cutmix(x, y, generator())
    pasted = []
    for i in range(n):
        mine = mixed[i, 0] == i
        pasted.append(1 - mine.float().mean().item())
        expected = torch.zeros(10)
        expected[y[i]] += mine.float().mean()
        if not mine.all():
            (other,) = mixed[i, 0][~mine].unique().tolist()
            expected[y[int(other)]] += 1 - mine.float().mean()
            rows, columns = (~mine).any(1).nonzero().flatten(), (~mine).any(0).nonzero().flatten()
            assert not mine[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].any()  # one rectangle
        assert torch.allclose(shares[i], expected, atol=1e-5)
    assert 0.2 < sum(pasted) / n < 0.5 and max(pasted) > 0.8  # half before clipping


def test_accuracy_on_mixed_labels_counts_the_share():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    model[1].bias.data = torch.tensor([2.0, 1.0])  # of a black image these are the logits
    learner = Learner(model, torch.optim.SGD(model.parameters(), lr=0.0))
    learner.step(torch.zeros(1, 3, 1, 1), torch.tensor([[0.7, 0.3]]))
    assert learner.epoch_metrics()["train_accuracy"].item() == pytest.approx(70)


def test_labels_reach_the_loop_mixed_and_the_order_is_weighted(sample):
    images = sample[0][:200]
    weights = policies.class_weights(images.labels)
    weights[images.labels == 0] = 0
    batches = data.Batches(images, 50, seed=0, stats=data.CIFAR10_STATS, mix=(augment.mixup,), weights=weights)
    labels = torch.cat([y for _, y in batches])
    assert labels.shape == (200, 10) and labels[:, 0].sum() == 0


# --- policies ---


def test_the_confused_classes_are_moved_most(sample):
    x, y = data.normalize(sample[0].images[:400], data.CIFAR10_STATS), sample[0].labels[:400]
    named = torch.tensor([data.CLASSES[label] in policies.CONFUSED for label in y])
    moved, labels = policies.targeted_augmentation(x, y, generator())
    changed = (moved != x).flatten(1).any(1)
    assert (
        torch.equal(labels, y)
        and 0.4 < changed[named].float().mean() < 0.6
        and 0.15 < changed[~named].float().mean() < 0.35
    )
    alone, _ = policies.targeted_augmentation(x, y, generator(), others=0.0)
    assert torch.equal(alone[~named], x[~named]) and torch.equal(alone[named], moved[named])
    soft = F.one_hot(y, 10) * 0.9 + 0.01
    of_soft, soft_labels = policies.targeted_augmentation(x, soft, generator())
    assert torch.equal(of_soft, moved) and soft_labels is soft  # probabilities: the most probable class counts
    still, _ = policies.targeted_augmentation(x, y, generator(), degrees=0.0, scale=0.0, color=0.0)
    assert torch.allclose(still, x, atol=1e-4)


# --- losses ---


def test_focal_is_cross_entropy_at_gamma_zero_and_torchvisions_for_two_classes():
    logits, y = torch.randn(50, 10), torch.randint(10, (50,))
    assert torch.allclose(losses.focal(logits, y, gamma=0.0), F.cross_entropy(logits, y))
    smooth = F.cross_entropy(logits, y, label_smoothing=0.1)
    assert torch.allclose(losses.focal(logits, y, gamma=0.0, label_smoothing=0.1), smooth)
    assert torch.allclose(losses.focal(logits, F.one_hot(y, 10).float()), losses.focal(logits, y))
    z, y = torch.randn(50), torch.randint(2, (50,))  # a softmax over (0, z) is a sigmoid of z
    theirs = sigmoid_focal_loss(z, y.float(), alpha=-1, gamma=2, reduction="mean")
    assert torch.allclose(losses.focal(torch.stack((torch.zeros(50), z), 1), y), theirs)


def test_multi_label_is_torchs_binary_cross_entropy_of_each_class():
    logits, y = torch.randn(50, 10), torch.randint(10, (50,))
    one_hot = F.one_hot(y, 10).float()
    for smoothing in (0.0, 0.1):
        targets = one_hot * (1 - smoothing) + smoothing / 10
        each = -(targets * torch.sigmoid(logits).log() + (1 - targets) * (1 - torch.sigmoid(logits)).log())
        ours = losses.multi_label(logits, y, label_smoothing=smoothing)
        assert torch.allclose(ours, each.sum(1).mean(), rtol=1e-5)
        assert torch.allclose(losses.multi_label(logits, one_hot, label_smoothing=smoothing), ours)
    assert torch.allclose(losses.multi_label(logits, y), nn.MultiLabelSoftMarginLoss()(logits, one_hot) * 10)


def test_a_softmax_of_multi_label_logits_is_the_class_given_that_there_is_one():
    logits = torch.randn(4, 10).double()
    p = torch.sigmoid(logits)
    alone = torch.stack([p[:, c] * (1 - p).prod(1) / (1 - p[:, c]) for c in range(10)], 1)
    assert torch.allclose(F.softmax(logits, 1), alone / alone.sum(1, keepdim=True))


def test_ohem_is_the_mean_of_the_highest_losses():
    logits, y = torch.randn(10, 10), torch.randint(10, (10,))
    each = sorted((F.cross_entropy(logits[i : i + 1], y[i : i + 1]).item() for i in range(10)), reverse=True)
    assert losses.ohem(logits, y, share=0.3).item() == pytest.approx(sum(each[:3]) / 3, rel=1e-5)


def test_supervised_contrastive_against_its_equation():
    features, y = torch.randn(8, 5), torch.tensor([0, 0, 1, 1, 1, 2, 2, 3])  # the last has no positive
    z, total, anchors = F.normalize(features, dim=1), 0.0, 0
    for i in range(8):
        positives = [p for p in range(8) if p != i and y[p] == y[i]]
        if positives:
            below = sum(math.exp(float(z[i] @ z[a]) / 0.1) for a in range(8) if a != i)
            total -= sum(math.log(math.exp(float(z[i] @ z[p]) / 0.1) / below) for p in positives) / len(positives)
            anchors += 1
    assert losses.supervised_contrastive(features, y).item() == pytest.approx(total / anchors, rel=1e-5)


# --- attention and pooling ---


def test_cbam_and_bilinear_pooling_against_their_equations():
    x, cbam = torch.randn(2, 8, 5, 5), CBAM(8)
    first, _, last = cbam.mlp

    def mlp(v):
        return last.weight @ torch.relu(first.weight @ v + first.bias) + last.bias

    out = cbam(x)
    for n in range(2):
        channel = torch.sigmoid(mlp(x[n].mean((1, 2))) + mlp(x[n].amax((1, 2))))
        scaled = x[n] * channel[:, None, None]
        spatial = torch.stack((scaled.mean(0), scaled.amax(0)))[None]
        expected = scaled * torch.sigmoid(F.conv2d(spatial, cbam.spatial.conv.weight, padding=3))[0]
        assert torch.allclose(out[n], expected, atol=1e-6)
    alone = SpatialAttention(8)
    summary = torch.stack((x.mean(1), x.amax(1)), 1)
    by_hand = x * torch.sigmoid(F.conv2d(summary, alone.conv.weight, padding=3))
    assert torch.allclose(alone(x), by_hand, atol=1e-6)

    head = BilinearHead(8, 10, reduced=4)
    reduced = head.reduce(x)[0].flatten(1)
    products = torch.stack([torch.outer(reduced[:, pixel], reduced[:, pixel]) for pixel in range(25)]).mean(0).flatten()
    roots = products.sign() * (products.abs() + 1e-5).sqrt()
    assert torch.allclose(head(x)[0], head.fc(roots / roots.norm()), atol=1e-5)


# --- averages ---


def test_the_average_is_the_average(sample):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    learner = Learner(model, torch.optim.SGD(model.parameters(), lr=0.1), hooks=[EMA(0.9)])
    by_hand = None
    for (x, y), _ in zip(data.Batches(sample[0], 20, seed=0, stats=data.CIFAR10_STATS), range(5)):
        learner.step(x, y)
        now = model[1].weight.detach().clone()
        by_hand = now if by_hand is None else 0.9 * by_hand + 0.1 * now
    assert torch.allclose(learner.weights()["1.weight"], by_hand, atol=1e-6)
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(learner.logits(x), F.linear(x.flatten(1), by_hand, learner.weights()["1.bias"]), atol=1e-4)


def test_the_mirror_view_is_averaged():
    x = torch.randn(4, 3, 8, 8)

    def left(x):
        return x[..., :4].mean((1, 2, 3))[:, None]

    assert torch.allclose(evaluation.tta_mirror(left)(x), x.mean((1, 2, 3))[:, None], atol=1e-6)


def test_a_recipe_has_the_hooks_that_it_asks_for(sample):
    images = sample[0][:100]

    def hooks(model, recipe):
        return build(model, dataclasses.replace(recipe, batch_size=20), 0, images)[0].hooks

    assert hooks("lenet", Recipe()) == []
    whitening, average, lookahead = hooks("fast_small", dataclasses.replace(RECIPES["fast95"], ema=0.9))
    assert isinstance(whitening, WhiteningBias) and isinstance(average, EMA) and isinstance(lookahead, Lookahead)
    (whitening,) = hooks("fast_small", RECIPES["fast94"])
    assert isinstance(whitening, WhiteningBias)


def test_the_average_is_taken_before_lookahead_pulls(sample):
    """As both act after a step, their order counts."""
    recipe = dataclasses.replace(RECIPES["fast95"], batch_size=20, ema=0.9)
    learner, batches, _ = build("fast_small", recipe, 0, sample[0][:100])
    lookahead = learner.hooks[-1]
    lookahead.slow = [torch.zeros_like(value) for value in lookahead.slow]
    lookahead.steps = len(batches)  # 5: the network is pulled towards zero after the last one
    for x, y in batches:
        learner.step(x, y)
    assert learner.model.fc.weight.norm() < 0.5 * learner.weights()["fc.weight"].norm()


def test_a_contrastive_step_is_the_sum_of_both_losses(sample):
    recipe = Recipe(batch_size=20, loss="contrastive")
    learner, batches, _ = build("lenet", recipe, 0, sample[0][:20], Backend(compiled=True))
    assert not learner.compiled
    ((x, y),) = batches
    state = torch.get_rng_state()
    loss = learner.step(x, y)
    again = build("lenet", recipe, 0, sample[0][:20])[0].model
    torch.set_rng_state(state)
    features = again.forward_features(x)
    cross_entropy = F.cross_entropy(again.forward_head(features), y, label_smoothing=0.1)
    expected = cross_entropy + 0.1 * losses.supervised_contrastive(features.mean((2, 3)), y)
    assert torch.allclose(loss, expected, atol=1e-6)
