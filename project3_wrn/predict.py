"""What is in this photo? The five likeliest of CIFAR-10's classes, and where the network saw the first.

    python project3_wrn/predict.py PHOTO [--weights FILE] [--model NAME] [--out FILE]

Any image Pillow reads: its middle square is scaled to 32x32, as CIFAR-10's are. Without --weights, those that main.py has trained.
"""

import argparse
import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli
from common.support.errors import UserError

LARGEST = 100_000_000  # pixels of an image that is still opened
SMALLEST = 8  # pixels a side


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("photo", type=Path, metavar="PHOTO")
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="a state_dict as main.py writes it (the newest that main.py has written)",
    )
    parser.add_argument("--model", metavar="NAME", help="its network (the name of the folder the weights are in)")
    parser.add_argument("--gradcam-layer", metavar="NAME", help="module to look at (the last feature maps)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the Grad-CAM picture (PHOTO with -gradcam.png)")
    options = parser.parse_args()

    import torch

    from common import data
    from common.plots import plt
    from common.support import files
    from project3_wrn.analysis import figures, gradcam

    picture = read_photo(options.photo)
    weights = options.weights or newest_weights()
    model = options.model or weights.resolve().parent.name
    network = load_network(model, weights)

    small = torch.from_numpy(shrunk(picture))[None]  # (1, 3, 32, 32)
    images = data.normalize(small, data.CIFAR10_STATS)
    with torch.no_grad():
        probabilities = network(images).softmax(-1)[0]
    print(f"{options.photo} by {model} ({weights})")
    for probability, label in zip(*(values.tolist() for values in probabilities.topk(5))):
        print(f"{100 * probability:6.2f}%  {data.CLASSES[label]}")

    out = options.out or options.photo.with_name(options.photo.stem + "-gradcam.png")
    heat = gradcam.gradcam(network, images, probabilities.argmax()[None], options.gradcam_layer)
    square = torch.from_numpy(middle_square(picture))
    overlay = figures.gradcam_overlay(square, gradcam.upsample(heat, square.shape[:2])[0])
    with files.atomic(out) as temporary:
        plt.imsave(temporary, overlay.numpy(), format="png")
    print(f"Grad-CAM: {out}")


def read_photo(path):
    """A Pillow image, RGB, upright. Raises UserError where it is none, too small or too large."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # told by our own words below, before anything is decoded
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > LARGEST:
                raise UserError(f"{path} has {width}x{height} pixels, over {LARGEST:,}; make it smaller first")
            if min(width, height) < SMALLEST:
                raise UserError(
                    f"{path} has {width}x{height} pixels; {SMALLEST} a side are the least to see anything in"
                )
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is no image that Pillow can read; give a JPEG, PNG, WebP or the like") from error
    except OSError as error:  # not there, or cut off
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def middle_square(picture):
    """The largest square in the middle, at most 512 pixels a side: uint8 (side, side, 3)."""
    import numpy as np
    from PIL import ImageOps

    side = min(*picture.size, 512)
    return np.array(ImageOps.fit(picture, (side, side)))


def shrunk(picture):
    """The middle square at 32x32, every pixel the mean of what it covers: uint8 (3, 32, 32)."""
    import numpy as np
    from PIL import Image, ImageOps

    return np.array(ImageOps.fit(picture, (32, 32), Image.Resampling.BOX)).transpose(2, 0, 1).copy()


def newest_weights():
    """Full-scale weights first. Raises UserError where nothing has been trained."""
    for folder in ("outputs", "outputs_custom", "outputs_quick"):
        found = sorted((TASK / folder).glob("*/weights-*.pt"), key=lambda path: path.stat().st_mtime)
        if found:
            return found[-1]
    raise UserError("no weights here yet; run python project3_wrn/main.py first, or name a file with --weights")


def load_network(model, path):
    """The network called `model` with the weights in `path`, in evaluation mode.

    Raises UserError where the file cannot be read, is no state_dict of this network, or holds more than tensors: that is refused,
    nothing in it is run.
    """
    from common.models import MODELS
    from common.support import checkpoints
    from common.support.errors import first_line

    if model not in MODELS:
        raise UserError(f"there is no model {model}; name one of {', '.join(MODELS)} with --model")
    network = MODELS[model]()
    weights = checkpoints.load(path, "file of weights", "give one as main.py writes it; nothing in it was run")
    try:
        network.load_state_dict(weights)
    except Exception as error:  # what is no state_dict at all fails in many ways
        named = " ".join(str(error).splitlines()[:2])[:200] or first_line(error)
        raise UserError(f"{path} holds no weights of {model}: {named}; name its network with --model") from error
    return network.eval()


if __name__ == "__main__":
    cli.entry_point(main)
