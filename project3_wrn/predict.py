"""Project 3: what is in these photos? The five most probable classes of CIFAR-10, and where the network saw the first.

    python project3_wrn/predict.py PHOTO... [--target CLASS] [--out FILE] [--weights FILE] [--model NAME]

PHOTO is any image that Pillow reads: its middle square is scaled to 32x32, the size of CIFAR-10's images. --target asks
"why not this class?": it adds the probability of that class and what speaks for it. The weights are those of the
repository (weights/fast94.json), whose percentages are calibrated on held-out images, or what --weights names.
predicted.png was made by

    python project3_wrn/predict.py project3_wrn/photo.png --target ship --out project3_wrn/predicted.png
"""

import math
import os
import stat
import sys
import warnings
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common.support import signals

signals.answer_while_importing(__name__)

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from common import cli, data, plots
from common.evaluation import TTA
from common.models import MODELS
from common.plots import plt
from common.support.errors import UsageError, UserError, first_line, out_of_memory
from project3_wrn.analysis import figures, gradcam
from project3_wrn.method.weights import load_network, load_shipped, minus_energy, shipped_path

LARGEST = 100_000_000  # an image of more pixels is not opened
PROGRAMS = ("EPS",)  # formats that Pillow gives to another program to draw
SMALLEST = 8  # pixels per side
SHOWN = 512  # pixels per side of the photo in the picture, at most
TOP_K = 5  # number of classes that are printed
UNCALIBRATED = {"views": 1, "temperature": 1.0, "unknown_below": -math.inf}  # what is known about weights of the user


def main():
    """Predict and explain each photo of the command line."""
    options = parse()
    if options.out and len(options.photos) > 1:
        raise UsageError("--out is the picture of one photo; leave it out to write one next to each photo")
    if len({(photo.parent, photo.stem) for photo in options.photos}) < len(options.photos):
        raise UsageError(
            "two photos have the same name but for the suffix, and so would their pictures; give one at a time"
        )
    network, facts = load(options)
    plots.setup(scale=facts["scale"])
    for photo in options.photos:
        explain(photo, network, facts, options)


def parse():
    """Return the flags of this process's command line."""
    parser = cli.plain_parser(__doc__)
    add = parser.add_argument
    add("photos", type=Path, nargs="+", metavar="PHOTO", help="an image to classify")
    add("--target", choices=data.CLASSES, metavar="CLASS", help=f"also explain this class: {', '.join(data.CLASSES)}")
    add("--out", type=Path, metavar="FILE", help="the picture (default: PHOTO with -gradcam.png); in Chinese, .zh.png")
    add("--weights", type=Path, metavar="FILE", help="weights as main.py writes them (default: the repository's)")
    add("--model", metavar="NAME", help="the weights' network (default: as run.json next to them says, or the folder)")
    add("--gradcam-layer", metavar="NAME", help="module to explain (default: the last one with maps of 7x7)")
    return parser.parse_args()


def load(options):
    """Return the network and what is known about it: model, origin, scale, views, temperature, unknown_below."""
    if not options.weights:
        network, facts = load_shipped()
        origin = f"{shipped_path(facts).relative_to(cli.ROOT).as_posix()}, test accuracy {facts['test_accuracy']}%"
        return network, {**facts, "scale": "full", "origin": origin}
    run_json = options.weights.parent / "run.json"
    run = cli.read_json(run_json) if run_json.exists() else {}
    model = options.model or run.get("model") or Path(os.path.abspath(options.weights)).parent.name
    if model not in MODELS and not options.model:
        raise UserError(
            f"nothing says which network {options.weights} is of; name one of {', '.join(MODELS)} with --model"
        )
    known = {"model": model, "scale": run.get("scale"), "origin": f"{options.weights}, percentages not calibrated"}
    return load_network(model, options.weights), UNCALIBRATED | known


def explain(photo, network, facts, options):
    """Print the most probable classes of a photo, and write the picture."""
    picture = read_photo(photo)
    images = data.normalize(torch.from_numpy(shrink(picture))[None], data.CIFAR10_STATS)
    with torch.no_grad():
        logits = TTA[facts["views"]](network)(images)[0]
    probabilities = (logits / facts["temperature"]).softmax(-1)
    quick = "QUICK RUN, not comparable: " if facts["scale"] == "quick" else ""
    print(f"{quick}{photo} by {facts['model']} ({facts['origin']})")
    order = probabilities.argsort(descending=True).tolist()
    for label in order[:TOP_K]:
        print(f"{percent(probabilities[label]):>6}  {data.CLASSES[label]}")
    shown = order[:1]
    if options.target:
        target = data.CLASSES.index(options.target)
        print(f"{options.target}: {percent(probabilities[target])}, rank {order.index(target) + 1} of {len(order)}")
        shown += [target] if target != order[0] else []
    if minus_energy(logits) < facts["unknown_below"]:
        print("it may be none of the ten classes: few images of CIFAR-10 have logits this low")

    layer = options.gradcam_layer or gradcam.detailed_layer(network, images)
    square, overlays = torch.from_numpy(middle_square(picture)), {}
    for label in shown:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Grad-CAM is zero")  # the line below says it
            heat = gradcam.gradcam(network, images, torch.tensor([label]), layer)
        if not heat.any():
            print(f"Grad-CAM of {data.CLASSES[label]} is zero everywhere: nothing in the photo speaks for it")
        title = f"{'' if overlays else 'predicted '}{data.CLASSES[label]}, {percent(probabilities[label])}"
        overlays[title] = figures.gradcam_overlay(square, gradcam.upsample(heat, square.shape[:2])[0]).numpy()
    out = options.out or photo.with_name(photo.stem + "-gradcam.png")
    draw(out, square.numpy(), overlays, facts["model"])
    print(f"Grad-CAM: {out}")


def percent(probability):
    """Format a probability as a percentage."""
    return f"{100 * probability:.1f}%"


def draw(path, square, overlays, model):
    """Draw the photo, uint8 (side, side, 3), and next to it pictures with their titles, {title: (side, side, 3)}."""
    panels = {"Photo": square, **overlays}
    figure, all_axes = plt.subplots(1, len(panels), figsize=(2.6 * len(panels), 3.2), layout="constrained")
    for axes, (title, image) in zip(all_axes, panels.items()):
        axes.imshow(image)
        axes.set_title(title, fontsize=10)
        axes.axis("off")
    plots.about(figure, "Where the network looks", model)
    plots.save(figure, path)


def read_photo(path):
    """Return the image as Pillow's RGB, upright.

    Raises:
        UserError: the file is not an image, or one that is damaged, too small, too large, or of pixels without a range.
    """
    Image.MAX_IMAGE_PIXELS = LARGEST // 2  # Pillow refuses twice as many, also in an image within the file
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe may never end
            raise UserError(f"{path} is not a file; give a JPEG, PNG or WebP")
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")  # on damage that Pillow reads past
            width, height = image.size
            if min(width, height) < SMALLEST:
                raise UserError(f"{path} has {width}x{height} pixels; it needs at least {SMALLEST} per side")
            if image.format in PROGRAMS:
                raise UserError(f"{path} is a program that draws, which is not run; give a JPEG, PNG or WebP")
            return to_rgb(image, path)
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image that Pillow can read; give a JPEG, PNG or WebP") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} has over {LARGEST:,} pixels; make it smaller first") from error
    except OSError as error:  # it does not exist, or it is cut off
        raise UserError(f"cannot read {path}: {error.strerror or first_line(error)}") from error
    except Exception as error:  # Pillow's decoders report damage in as many ways as there are formats
        if out_of_memory(error):
            raise
        raise UserError(f"cannot read {path}: it is damaged ({first_line(error)})") from error


def to_rgb(image, path):
    """Return an image upright as RGB of 8 bits; `convert` alone would clip what has more."""
    upright = ImageOps.exif_transpose(image)
    # Pillow has PNGs of 16 bits as I;16, or as I as it always has 16-bit PGMs
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise UserError(f"{path} has pixels of 32 bits, whose range is not known; save it with 8 or 16 bits")
    return upright.convert("RGB")


def middle_square(picture):
    """Return the largest square in the middle, uint8 (side, side, 3) with at most SHOWN pixels per side."""
    side = min(*picture.size, SHOWN)
    return np.array(ImageOps.fit(picture, (side, side)))


def shrink(picture):
    """Return the middle square at 32x32, uint8 (3, 32, 32), every pixel the mean of those that it covers."""
    small = ImageOps.fit(picture, (data.IMAGE_SIZE, data.IMAGE_SIZE), Image.Resampling.BOX)
    return np.array(small).transpose(2, 0, 1).copy()


if __name__ == "__main__":
    cli.entry_point(main)
