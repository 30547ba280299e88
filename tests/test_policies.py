"""Augmentation policies and random erasing, drawn for each image on the device, against torchvision's for one image."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision import transforms
from torchvision.transforms.v2 import functional as tv

from common import data
from project3_wrn.method import image_operations, policies
from project3_wrn.method.fast import AlternatingFlips
from project3_wrn.method.image_operations import OPERATIONS
from project3_wrn.method.recipes import Recipe
from project3_wrn.method.train import build, preparation
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


def all_moves():
    """Return every move that a policy can draw, once, sorted."""
    return sorted({move for name in policies.POLICIES for move in policies.moves(name)})


def is_ambiguous(name, magnitude):
    """Return (32, 32) whether a pixel of the result shows the border between two pixels, up to rounding."""
    theta = torch.tensor(image_operations.move_matrix(name, magnitude, 32), dtype=torch.float64)
    positions = torch.arange(32, dtype=torch.float64) - 15.5
    source = theta[:, :1, None] * positions + theta[:, 1:2, None] * positions[:, None] + theta[:, 2:, None]
    return (source - source.round()).abs().lt(1e-4).any(0)  # in pixels from the center, borders are whole numbers


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_at_every_magnitude_is_torchvisions(images, name):
    """All moves of all policies, of which each image of one batch has another one, in uint8.

    They are equal, with two exceptions that depend on the order of float operations: the nearest pixel of a point
    between two pixels, and a blend that is a whole number, which one of the two misses from below and rounds down.
    """
    moves = [move for move in all_moves() if move[0] == name]
    assert moves
    table = image_operations.tabulate(moves, torch.device("cpu"), 32)
    rows = torch.arange(len(moves)).repeat_interleave(len(images))
    ours = image_operations.apply(images.repeat(len(moves), 1, 1, 1), table[rows])
    theirs = torch.cat([torch.stack([expected(*move, image) for image in images]) for move in moves])
    assert ours.dtype == torch.uint8 and ours.shape == theirs.shape
    different = ours != theirs
    if name in ("Color", "Contrast", "Sharpness"):
        rare = 0.015 if name == "Color" else 1e-3  # blends of gray pixels with gray are whole numbers
        assert different.float().mean() < rare and (ours.int() - theirs.int()).abs().max() <= 1
    elif name == "Rotate":
        borders = torch.stack([is_ambiguous(*move) for move in moves])
        assert borders.float().mean() < 0.01
        assert not (different.view(len(moves), len(images), 3, 32, 32) & ~borders[:, None, None]).any()
    else:
        assert not different.any()


def test_an_image_depends_on_its_own_move_only(images, monkeypatch):
    """In a batch of all moves, shuffled: as if it were alone, and unchanged by Identity; the same bits on a GPU's way.

    On a GPU every operation is computed for all images, on a CPU for those which drew it.
    """
    moves = all_moves()
    rows = torch.randint(len(moves), (600,), generator=generator(1))
    identity = moves.index(("Identity", 0.0))
    rows[::10] = identity
    own = images[torch.randint(len(images), (600,), generator=generator(2))]
    table = image_operations.tabulate(moves, torch.device("cpu"), 32)
    together = image_operations.apply(own, table[rows])
    alone = [image_operations.apply(image[None], table[row : row + 1]) for image, row in zip(own, rows)]
    assert torch.equal(together, torch.cat(alone))
    monkeypatch.setattr(image_operations, "can_read_at_once", lambda device: False)
    assert torch.equal(image_operations.apply(own, table[rows]), together)
    assert torch.equal(together[rows == identity], own[rows == identity])


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


SIZES = {name: range(len(policies.moves(name))) for name in policies.POLICIES}


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
    pairs = np.array([(row, other) for row, other in zip(first, second) if row < 100 and other < 100])
    signs = np.bincount(pairs[:, 0] % 2 * 2 + pairs[:, 1] % 2, minlength=4)
    assert stats.chisquare(signs).pvalue > 1e-3  # the signs of both steps are independent, and so are their chances
    chance = np.mean([policy[0][1] * policy[1][1] for policy in published_policies])
    assert abs(len(pairs) - count * chance) <= 4.5 * (count * chance * (1 - chance)) ** 0.5


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
    image = torch.ones(3, 32, 32)
    theirs = [transforms.RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in range(4000)]
    top, left, height, width = (np.array(values) for values in zip(*theirs))
    erased = (policies.random_erasing(torch.ones(8000, 3, 32, 32), generator(3)) == 0)[:, 0]
    erased = erased[erased.flatten(1).any(1)]
    rows, columns = erased.any(2), erased.any(1)
    ours = rows.int().argmax(1), columns.int().argmax(1), rows.sum(1), columns.sum(1)
    for mine, published_values in zip((*ours, ours[2] * ours[3]), (top, left, height, width, height * width)):
        assert stats.ks_2samp(mine.numpy(), published_values).pvalue > 1e-3


def test_random_erasing_is_torchvisions_formula_of_its_draws():
    """torchvision's loop over attempts, one image at a time, with the numbers that ours draws."""
    n, draws, retried = 3000, generator(7), 0
    x = torch.rand(n, 3, 32, 32, generator=generator(8)) + 1
    ours = policies.random_erasing(x, draws)
    draws = generator(7)
    chances, across, along = torch.rand(3, n, generator=draws).tolist()
    areas, ratios = torch.rand(2, policies.ATTEMPTS, n, generator=draws).tolist()
    for i in range(n):
        theirs = x[i].clone()
        for attempt in range(10) if chances[i] < 0.5 else ():
            area = 32 * 32 * (0.02 + (0.33 - 0.02) * areas[attempt][i])
            ratio = math.exp(math.log(0.3) + (math.log(3.3) - math.log(0.3)) * ratios[attempt][i])
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if height < 32 and width < 32:
                top, left = int(across[i] * (32 - height + 1)), int(along[i] * (32 - width + 1))
                theirs[:, top : top + height, left : left + width] = 0
                break
            retried += 1
        assert torch.equal(ours[i], theirs)
    assert retried


# --- in batches ---


CHANGES = (
    *({"auto_augment": name} for name in policies.POLICIES),
    *({name: True} for name in ("random_erasing", "targeted_augmentation", "class_weighted_sampling")),
    *({"mixing": name} for name in ("mixup", "cutmix")),
    {"brightness": 0.1, "contrast": 0.1},
)


def make_batches(dataset, change, kind=data.Batches):
    recipe = dataclasses.replace(Recipe(), **change)
    return kind(dataset, 20, seed=3, **preparation(recipe, dataset))


def all_bits(batches):
    return torch.cat([torch.cat((x.flatten(1), y.view(len(y), -1).float()), 1) for x, y in batches])


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_batches_resume_with_the_same_draws(sample, change):
    """The second pass is equal to the bit after its start was saved, whatever other generators have drawn."""
    dataset = sample[0][:90]
    first = make_batches(dataset, change)
    before = all_bits(first)
    saved = first.state_dict()
    expected_pass = all_bits(first)
    assert not torch.equal(before, expected_pass)
    torch.rand(5)
    resumed = make_batches(dataset, change)
    resumed.load_state_dict(saved)
    assert torch.equal(all_bits(resumed), expected_pass)
    torch.rand(5)
    assert torch.equal(all_bits(make_batches(dataset, change)), before)


class Crossings(Waits):
    """Collect copies between devices too."""

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        result = super().__torch_dispatch__(operation, types, arguments, named)
        if operation.overloadpacket.__name__ in ("_to_copy", "copy_"):
            devices = {value.device.type for value in (*arguments, result) if isinstance(value, torch.Tensor)}
            if len(devices) > 1:
                self.seen.append(operation.overloadpacket.__name__)
        return result


@pytest.mark.parametrize(
    "change",
    [
        *({"auto_augment": name} for name in policies.POLICIES),
        {"random_erasing": True},
        {"loss": "multi_label"},
        {"optimizer": "adam"},
        {"flip": False},
        {"soft_labels": 0.5, "mixing": "cutmix"},
    ],
)
def test_no_step_of_a_recipe_waits(sample, change, monkeypatch):
    monkeypatch.setattr(image_operations, "can_read_at_once", lambda device: False)  # as on a GPU
    images = sample[0][:60]
    if change.get("soft_labels"):
        images = dataclasses.replace(images, targets=torch.full((60, 10), 0.1))
    learner, batches, _ = build("lenet", Recipe(batch_size=20, **change), 0, images)
    for x, y in batches:  # constants are copied to the device once
        learner.step(x, y)
    with Waits() as waits:
        for x, y in batches:
            learner.step(x, y)
    assert waits.seen == []


def test_crossings_are_seen():
    with FakeTensorMode(), Crossings() as waits:
        torch.zeros(2, device="cuda").cpu()
        torch.zeros(2).to("cuda")
        torch.zeros(2, device="cuda").copy_(torch.zeros(2))
        torch.tensor([1.0, 2.0], device="cuda")
    assert len(waits.seen) == 4


@pytest.fixture
def fake_constants():
    """Forget the constants cached per device before and after a test whose tensors are fake."""
    caches = (policies._table, policies._chances, policies._confused, data._constants)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize("kind", [data.Batches, AlternatingFlips])
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_no_batch_waits_for_a_gpu_or_leaves_it(change, kind, fake_constants, monkeypatch):
    """A pass neither reads a value back nor copies between devices, after constants were copied to the GPU once.

    FakeTensorMode computes shapes and devices only, so it needs no GPU. It has no generators of a GPU.
    """
    monkeypatch.setattr(torch, "Generator", lambda device="cpu", make=torch.Generator: make())
    with FakeTensorMode():
        images = torch.zeros(90, 3, 32, 32, dtype=torch.uint8, device="cuda")
        dataset = data.Dataset(images, torch.zeros(90, dtype=torch.long, device="cuda"))
        batches = make_batches(dataset, change, kind)
        for _ in batches:
            pass
        with Crossings() as waits:
            sizes = [len(x) for x, y in batches if x.device.type == y.device.type == "cuda"]
        assert sizes == [20, 20, 20, 20, 10]
    assert waits.seen == []
