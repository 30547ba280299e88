import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import functional as tv

from common import augment, data
from project3_wrn.method.recipes import RECIPES, Recipe
from project3_wrn.method.train import preparation


def generators():
    """Return two generators in the same state: one for the augmentation, one for the reference's draws."""
    return torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)


@pytest.fixture
def images():
    return torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def reported_cutout(image, length, y, x):
    """Return Cutout as in project 3's section 1.2, of one image (C, H, W) around (y, x)."""
    _, height, width = image.shape
    mask = np.ones((height, width), np.float32)
    top, bottom = np.clip([y - length // 2, y + length // 2], 0, height)
    left, right = np.clip([x - length // 2, x + length // 2], 0, width)
    mask[top:bottom, left:right] = 0
    return image * torch.from_numpy(mask)


@pytest.mark.parametrize("length", [0, 1, 7, 12, 16, 64])
def test_cutout_is_the_reports_pixel_for_pixel(images, length):
    generator, reference = generators()
    cut = augment.Cutout(length)(images, generator)
    ys = torch.randint(32, (40, 1, 1, 1), generator=reference).flatten().tolist()
    xs = torch.randint(32, (40, 1, 1, 1), generator=reference).flatten().tolist()
    expected = torch.stack([reported_cutout(image, length, y, x) for image, y, x in zip(images, ys, xs)])
    assert torch.equal(cut, expected)


def test_cutout_reaches_every_center_and_clips():
    cut = augment.Cutout(12)(torch.ones(20_000, 1, 32, 32), torch.Generator().manual_seed(0))
    areas = (cut == 0).sum((1, 2, 3))
    assert areas.max() == 144 and areas.min() == 36  # a corner keeps a quarter of the square
    expected = (np.clip(np.arange(32) + 6, 0, 32) - np.clip(np.arange(32) - 6, 0, 32)).mean() ** 2
    assert abs(areas.float().mean() - expected) < 1


def test_crop_is_pad_and_slice(images):
    generator, reference = generators()
    cropped = augment.random_crop(images, generator)
    top, left = torch.randint(0, 9, (2, 40, 1), generator=reference).squeeze(-1).tolist()
    padded = F.pad(images, (4, 4, 4, 4))
    expected = torch.stack([image[:, y : y + 32, x : x + 32] for image, y, x in zip(padded, top, left)])
    assert torch.equal(cropped, expected)


def test_the_reports_crop_is_torchvisions_on_the_picture(sample):
    """RandomCrop(32, padding=4), ToTensor, Normalize of PIL images with the same offsets, to the bit."""
    generator, reference = generators()
    pictures = sample[0][:40]
    steps = preparation(Recipe(), pictures)["augment"]
    cropped = steps[0](data.normalize(pictures.images, data.CIFAR10_STATS), generator)
    top, left = torch.randint(0, 9, (2, 40, 1), generator=reference).squeeze(-1).tolist()
    expected = []
    for image, y, x in zip(pictures.images, top, left):
        picture = tv.crop(tv.pad(Image.fromarray(image.permute(1, 2, 0).numpy()), 4), y, x, 32, 32)
        expected.append(tv.normalize(tv.to_tensor(picture), *data.CIFAR10_STATS))
    assert torch.equal(cropped, torch.stack(expected))
    assert torch.equal(generator.get_state(), reference.get_state())
    assert len({*zip(top, left)}) > 20


def test_a_fast_recipe_still_pads_with_the_mirrored_picture(images):
    steps = preparation(RECIPES["fast96"], data.Dataset(torch.zeros(0, 3, 32, 32), torch.zeros(0)))["augment"]
    (generator, reference), offsets = generators(), torch.Generator().manual_seed(5)
    top, left = torch.randint(0, 9, (2, 40, 1), generator=offsets).squeeze(-1).tolist()
    padded = F.pad(images, (4, 4, 4, 4), "reflect")
    expected = torch.stack([image[:, y : y + 32, x : x + 32] for image, y, x in zip(padded, top, left)])
    assert torch.equal(steps[0](images, generator), expected)
    assert torch.equal(augment.random_crop(images, reference, mode="reflect"), expected)


def test_crop_draws_all_offsets_for_each_image():
    marked = torch.zeros(5000, 1, 32, 32)
    marked[:, 0, 16, 16] = 1
    rows = augment.random_crop(marked, torch.Generator().manual_seed(0)).flatten(1).argmax(1)
    assert len(rows.unique()) == 81


def test_flip_mirrors_half_of_the_images(images):
    many = images.repeat(100, 1, 1, 1)
    flipped = augment.random_flip(many, torch.Generator().manual_seed(0))
    same = (flipped == many).all(-1).all(-1).all(-1)
    mirrored = (flipped == many.flip(-1)).all(-1).all(-1).all(-1)
    assert (same ^ mirrored).all()
    assert 0.46 < mirrored.float().mean() < 0.54


def test_negative_cutout_is_refused():
    with pytest.raises(ValueError, match="-2"):
        augment.Cutout(-2)
