"""Project 3: what is in this photo? The five most probable classes of CIFAR-10, and where the network saw the first.

    python project3_wrn/predict.py PHOTO [--weights FILE] [--model NAME] [--out FILE]

PHOTO is any image that Pillow reads: its middle square is scaled to 32x32, the size of CIFAR-10's images. The default
weights are the newest that main.py has written.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, data
from common.plots import plt
from common.support.errors import UserError
from common.support.files import atomic
from project3_wrn.analysis import figures, gradcam
from project3_wrn.method.weights import load_network

LARGEST = 100_000_000  # an image of more pixels is not opened
SMALLEST = 8  # pixels per side
SHOWN = 512  # pixels per side of the Grad-CAM picture, at most
TOP_K = 5  # number of classes that are printed


def main():
    options = parse()
    picture = read_photo(options.photo)
    weights = options.weights or newest_weights()
    model = options.model or weights.resolve().parent.name
    network = load_network(model, weights)

    images = data.normalize(torch.from_numpy(shrink(picture))[None], data.CIFAR10_STATS)
    with torch.no_grad():
        probabilities = network(images).softmax(-1)[0]
    print(f"{options.photo} by {model} ({weights})")
    for probability, label in zip(*(values.tolist() for values in probabilities.topk(TOP_K))):
        print(f"{100 * probability:6.2f}%  {data.CLASSES[label]}")

    out = options.out or options.photo.with_name(options.photo.stem + "-gradcam.png")
    layer = options.gradcam_layer or gradcam.detailed_layer(network, images)
    heat = gradcam.gradcam(network, images, probabilities.argmax()[None], layer)
    square = torch.from_numpy(middle_square(picture))
    overlay = figures.gradcam_overlay(square, gradcam.upsample(heat, square.shape[:2])[0])
    with atomic(out) as temporary:
        plt.imsave(temporary, overlay.numpy(), format="png")
    print(f"Grad-CAM: {out}")


def parse():
    """Return the flags of this process's command line."""
    parser = cli.plain_parser(__doc__)
    add = parser.add_argument
    add("photo", type=Path, metavar="PHOTO", help="the image to classify")
    add("--weights", type=Path, metavar="FILE", help="weights as main.py writes them (default: the newest)")
    add("--model", metavar="NAME", help="the weights' network (default: the name of the folder that they are in)")
    add("--gradcam-layer", metavar="NAME", help="module to explain (default: the last one with maps of 7x7)")
    add("--out", type=Path, metavar="FILE", help="the Grad-CAM picture (default: PHOTO with -gradcam.png)")
    return parser.parse_args()


def read_photo(path):
    """Return the image as Pillow's RGB, upright.

    Raises:
        UserError: the file is not an image, or one that is too small or too large.
    """
    Image.MAX_IMAGE_PIXELS = None  # the check below has a message of our own, before anything is decoded
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > LARGEST:
                raise UserError(f"{path} has {width}x{height} pixels, over {LARGEST:,}; make it smaller first")
            if min(width, height) < SMALLEST:
                raise UserError(f"{path} has {width}x{height} pixels; it needs at least {SMALLEST} per side")
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image that Pillow can read; give a JPEG, PNG or WebP") from error
    except OSError as error:  # it does not exist, or it is cut off
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def middle_square(picture):
    """Return the largest square in the middle, uint8 (side, side, 3) with at most SHOWN pixels per side."""
    side = min(*picture.size, SHOWN)
    return np.array(ImageOps.fit(picture, (side, side)))


def shrink(picture):
    """Return the middle square at 32x32, uint8 (3, 32, 32), every pixel the mean of those that it covers."""
    small = ImageOps.fit(picture, (data.IMAGE_SIZE, data.IMAGE_SIZE), Image.Resampling.BOX)
    return np.array(small).transpose(2, 0, 1).copy()


def newest_weights():
    """Return the newest file of weights, those of full scale first.

    Raises:
        UserError: nothing has been trained yet.
    """
    for folder in ("outputs", "outputs_custom", "outputs_quick"):
        paths = sorted((TASK / folder).glob("*/weights-*.pt"), key=lambda path: path.stat().st_mtime)
        if paths:
            return paths[-1]
    raise UserError("no weights found; run python project3_wrn/main.py first, or name a file with --weights")


if __name__ == "__main__":
    cli.entry_point(main)
