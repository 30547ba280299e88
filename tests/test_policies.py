"""Augmentation policies and random erasing, drawn for each image on the device, against torchvision's for one image."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision import transforms
from torchvision.transforms.v2 import functional as tv

from common import augment
from project3_wrn.method import image_operations, policies
from project3_wrn.method.image_operations import OPERATIONS
from tests.test_cuda_ready import Waits

PUBLISHED = {
    "autoaugment": (transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10), 10),
    "randaugment": (transforms.RandAugment(), 31),
    "trivialaugment": (transforms.TrivialAugmentWide(), 31),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def published_space(name):
    """Return torchvision's {operation: (magnitudes, whether they have a sign)} of a policy."""
    policy, bins = PUBLISHED[name]
    size = () if name == "trivialaugment" else ((32, 32),)
    return policy._augmentation_space(bins, *size)


def expected(name, magnitude, image):
    """Return torchvision's result for one image, by its v2 functions."""
    shear = math.degrees(math.atan(magnitude))
    plain = dict(angle=0.0, translate=[0, 0], scale=1.0, shear=[0.0, 0.0])
    return {
        "Identity": lambda: image,
        "ShearX": lambda: tv.affine(image, **{**plain, "shear": [shear, 0.0]}, center=[0, 0]),
        "ShearY": lambda: tv.affine(image, **{**plain, "shear": [0.0, shear]}, center=[0, 0]),
        "TranslateX": lambda: tv.affine(image, **{**plain, "translate": [int(magnitude), 0]}),
        "TranslateY": lambda: tv.affine(image, **{**plain, "translate": [0, int(magnitude)]}),
        "Rotate": lambda: tv.rotate(image, magnitude),
        "Brightness": lambda: tv.adjust_brightness(image, 1 + magnitude),
        "Color": lambda: tv.adjust_saturation(image, 1 + magnitude),
        "Contrast": lambda: tv.adjust_contrast(image, 1 + magnitude),
        "Sharpness": lambda: tv.adjust_sharpness(image, 1 + magnitude),
        "Posterize": lambda: tv.posterize(image, int(magnitude)),
        "Solarize": lambda: tv.solarize(image, magnitude),
        "AutoContrast": lambda: tv.autocontrast(image),
        "Equalize": lambda: tv.equalize(image),
        "Invert": lambda: tv.invert(image),
    }[name]()


@pytest.fixture(scope="module")
def images(sample):
    """Return photographs, one image of a single color, one of two, one dark, and noise."""
    made = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    made[0] = 77
    made[1, :, :16] = 200
    made[2] = torch.randint(3, (3, 32, 32), generator=generator(), dtype=torch.uint8)
    made[3] = torch.randint(256, (3, 32, 32), generator=generator(), dtype=torch.uint8)
    return torch.cat((sample[0].images[:8], made))


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_at_every_magnitude_is_torchvisions(images, name):
    """All moves of all policies, of which each image of one batch has another one."""
    moves = {*policies.randaugment_moves(), *policies.trivialaugment_moves(), *policies.autoaugment_moves()[0]}
    moves = sorted(move for move in moves if move[0] == name)
    assert moves
    table = image_operations.tabulate(moves, "cpu", 32)
    rows = torch.arange(len(moves)).repeat_interleave(len(images))
    ours = image_operations.apply(images.repeat(len(moves), 1, 1, 1), table[rows])
    theirs = torch.cat([torch.stack([expected(*move, image) for image in images]) for move in moves])
    assert ours.dtype == torch.uint8 and ours.shape == theirs.shape
    different = ours != theirs
    if name in ("Color", "Sharpness"):  # whole numbers that torchvision rounds in another order, and then cuts off
        assert different.float().mean() < 0.05 and (ours.int() - theirs.int()).abs().max() == 1
    else:
        assert not different.any()


@pytest.mark.parametrize("name", PUBLISHED)
def test_magnitudes_are_torchvisions(name):
    _, bins = PUBLISHED[name]
    space = published_space(name)
    assert set(space) == set(OPERATIONS) - ({"Identity"} if name == "autoaugment" else {"Invert"})
    for operation, (values, signed) in space.items():
        ours = policies.magnitudes(operation, bins, wide=name == "trivialaugment")
        assert ours == values.reshape(-1).tolist() and signed == (operation in policies.SIGNED)


def test_randaugment_draws_every_operation_and_sign_equally_often():
    moves, space = policies.randaugment_moves(), published_space("randaugment")
    by_hand = []
    for name, (values, signed) in space.items():
        value = float(values[9]) if values.ndim else 0.0
        by_hand += [(name, -value if signed else value), (name, value)]
    assert sorted(moves) == sorted(by_hand)


def test_trivialaugment_draws_every_operation_magnitude_and_sign_equally_often():
    moves, space = policies.trivialaugment_moves(), published_space("trivialaugment")
    by_hand = []
    for name, (values, signed) in space.items():
        for value in values.tolist() if values.ndim else [0.0] * 31:
            by_hand += [(name, -value if signed else value), (name, value)]
    assert sorted(moves) == sorted(by_hand)


def recorded(monkeypatch, count, name, seed=0):
    """Return the rows (steps, count) of its table that a policy draws for `count` images."""
    steps = []

    def apply(images, moves):
        steps.append(moves)
        return images

    monkeypatch.setattr(image_operations, "apply", apply)
    monkeypatch.setattr(policies, "_table", lambda name, device: Rows(torch.arange(10_000)))
    monkeypatch.setattr(Rows, "mask", SIZES[name], raising=False)
    policies.POLICIES[name](torch.zeros(count, 3, 1, 1, dtype=torch.uint8), generator(seed))
    return torch.stack(steps)


class Rows:
    """Stands for a table: its rows are their own numbers."""

    def __init__(self, numbers):
        self.numbers = numbers

    def __getitem__(self, rows):
        return self.numbers[rows]


SIZES = {name: range(len(moves)) for name, moves in policies.MOVES.items()}


@pytest.mark.parametrize(("name", "steps"), [("randaugment", 2), ("trivialaugment", 1)])
def test_moves_are_drawn_uniformly_for_each_image(monkeypatch, name, steps):
    rows = recorded(monkeypatch, 50_000, name)
    assert rows.shape == (steps, 50_000)
    for step in rows:
        assert stats.chisquare(np.bincount(step, minlength=len(SIZES[name]))).pvalue > 1e-3
    if steps == 2:
        joint = np.bincount(rows[0] * len(SIZES[name]) + rows[1], minlength=len(SIZES[name]) ** 2)
        assert stats.chisquare(joint).pvalue > 1e-3


def test_autoaugment_draws_sub_policies_with_torchvisions_probabilities(monkeypatch):
    """Both steps belong to one sub-policy; each move comes as often as its probability and sign say."""
    count, published_policies = 200_000, PUBLISHED["autoaugment"][0].policies
    moves, _ = policies.autoaugment_moves()
    space = published_space("autoaugment")
    first, second = recorded(monkeypatch, count, "autoaugment").tolist()
    assert len(moves) == 100
    both = {row // 4 for row, other in zip(first, second) if row < 100 and other < 100 and row // 4 == other // 4}
    assert len(both) >= 24  # one sub-policy has a probability of 0
    assert all(row // 4 == other // 4 for row, other in zip(first, second) if row < 100 and other < 100)
    for step, rows in enumerate((first, second)):
        seen = np.bincount(rows, minlength=101)
        for i, policy in enumerate(published_policies):
            name, chance, magnitude = policy[step]
            values, signed = space[name]
            value = float(values[magnitude]) if magnitude is not None else 0.0
            pair = 4 * i + 2 * step
            assert moves[pair : pair + 2] == [(name, -value if signed else value), (name, value)]
            for row in (pair, pair + 1):
                probability = chance / len(published_policies) / 2
                spread = (count * probability * (1 - probability)) ** 0.5
                assert abs(seen[row] - count * probability) <= 4.5 * spread
        assert seen[:100].sum() + seen[100] == count


@pytest.mark.parametrize("name", policies.POLICIES)
def test_a_policy_draws_for_each_image_from_the_given_generator(sample, name):
    one = sample[0].images[:1].expand(300, -1, -1, -1)
    torch.manual_seed(0)
    images = policies.POLICIES[name](one, generator(1))
    torch.manual_seed(1)
    assert torch.equal(policies.POLICIES[name](one, generator(1)), images)
    assert not torch.equal(policies.POLICIES[name](one, generator(2)), images)
    assert images.shape == one.shape and images.dtype == torch.uint8 and len(images.unique(dim=0)) > 20
    neighbors = (images[1:] != images[:-1]).flatten(1).any(1)
    assert neighbors.float().mean() > 0.8


# --- random erasing ---


def test_random_erasing_fills_rectangles_of_half_of_the_images():
    x = torch.ones(4000, 3, 32, 32)
    erased = policies.random_erasing(x, generator()) == 0
    assert torch.equal(erased, erased[:, :1].expand_as(erased))  # the same in all channels
    hit = erased[:, 0].flatten(1).any(1)
    assert 0.47 < hit.float().mean() < 0.53
    rows, columns = erased[hit, 0].any(2).sum(1), erased[hit, 0].any(1).sum(1)
    assert torch.equal(erased[hit, 0].sum((1, 2)), rows * columns)
    torch.manual_seed(1)
    assert torch.equal(policies.random_erasing(x, generator()) == 0, erased)


def test_random_erasings_rectangles_are_distributed_as_torchvisions():
    """Heights, widths and areas by the test of Kolmogorov and Smirnov; the corners stay inside of the image."""
    torch.manual_seed(0)
    theirs = [transforms.RandomErasing.get_params(torch.ones(3, 32, 32), (0.02, 0.33), (0.3, 3.3), [0.0])[:4]]
    for _ in range(4000):
        theirs.append(transforms.RandomErasing.get_params(torch.ones(3, 32, 32), (0.02, 0.33), (0.3, 3.3), [0.0])[:4])
    top, left, height, width = (np.array(values) for values in zip(*theirs))
    erased = (policies.random_erasing(torch.ones(8000, 3, 32, 32), generator(3)) == 0)[:, 0]
    erased = erased[erased.flatten(1).any(1)]
    rows, columns = erased.any(2), erased.any(1)
    ours = rows.int().argmax(1), columns.int().argmax(1), rows.sum(1), columns.sum(1)
    for mine, published_values in zip((*ours, ours[2] * ours[3]), (top, left, height, width, height * width)):
        assert stats.ks_2samp(mine.numpy(), published_values).pvalue > 1e-3


# --- on a GPU ---


class Crossings(Waits):
    """Collect copies between devices too, except of the numbers that torch keeps on the CPU."""

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        result = super().__torch_dispatch__(operation, types, arguments, named)
        if operation.overloadpacket.__name__ in ("_to_copy", "copy_"):
            devices = {value.device.type for value in (*arguments, result) if isinstance(value, torch.Tensor)}
            if len(devices) > 1:
                self.seen.append(operation.overloadpacket.__name__)
        return result


def augmentations():
    """Return functions of (uint8 images, labels, generator) on the images' device: all that the recipes draw."""
    floats = {"random_erasing": policies.random_erasing, "cutout": augment.Cutout(12), "flip": augment.random_flip}
    yield from policies.POLICIES.items()
    for name, change in floats.items():
        yield name, lambda images, draws, change=change: change(images.float(), draws)
    for name, mix in (("targeted", policies.targeted_augmentation), ("mixup", augment.mixup)):
        yield (
            name,
            lambda images, draws, mix=mix: mix(images.float(), torch.ones_like(images[:, 0, 0, 0]).long(), draws),
        )


@pytest.mark.parametrize("name", dict(augmentations()))
def test_augmentation_neither_waits_for_a_gpu_nor_leaves_it(name):
    """FakeTensorMode computes shapes and devices only, so it needs no GPU; constants are copied there once."""
    for cached in (policies._table, policies._chances, policies._confused):
        cached.cache_clear()
    try:
        with FakeTensorMode():
            images, draws = torch.zeros(20, 3, 32, 32, dtype=torch.uint8, device="cuda"), torch.Generator()
            change = dict(augmentations())[name]
            change(images, draws)
            with Crossings() as waits:
                result = change(images, draws)
            result = result[0] if isinstance(result, tuple) else result
            assert result.device.type == "cuda" and result.shape == images.shape
        assert waits.seen == []
    finally:  # what was cached is fake
        for cached in (policies._table, policies._chances, policies._confused):
            cached.cache_clear()


def test_crossings_are_seen():
    with FakeTensorMode(), Crossings() as waits:
        torch.zeros(2, device="cuda").cpu()
        torch.zeros(2).to("cuda")
        torch.zeros(2, device="cuda").copy_(torch.zeros(2))
    assert len(waits.seen) == 3
