"""The command line of project3_wrn/main.py: a model, a recipe, and a flag for every field of the recipe."""

import argparse
import dataclasses
import sys
from dataclasses import dataclass

from common import cli
from common.support import machine
from common.support.errors import UserError
from project3_wrn import runner
from project3_wrn.method.recipes import CHOICES, RECIPES, Recipe, get_recipe

SEEDS = {"fast94": 5, "fast95": 3}  # seeds of these recipes at full scale; the others have 1
QUICK = {**runner.QUICK, "tta_views": 1}
# the epochs and the batch size have flags in every task, and the numbers of a fast recipe depend on each other
FIELDS = [field for field in dataclasses.fields(Recipe) if field.name not in ("epochs", "batch_size", "fast")]


@dataclass(frozen=True)
class Options(cli.Options):
    """The settings of one start of main.py."""

    model: str
    recipe: Recipe  # it has the changes that flags and scale make
    recipe_name: str
    gradcam_layer: str | None  # None: gradcam.detailed_layer chooses


def parse(description, folder):
    """Return the Options of this process's command line.

    Raises:
        UserError: the device is not available, or --optimizer does not fit the recipe. Whether the model can be trained
            by the recipe is checked where it is planned or trained (runner.run_study).
    """
    args = make_parser(description).parse_args()
    model, recipe_name = choose_model(args)
    changes = {field.name: value for field in FIELDS if (value := getattr(args, field.name)) is not None}
    if args.optimizer and get_recipe(recipe_name, model).fast:
        raise UserError(f"the recipe {recipe_name} has numbers for its own optimizer only; leave out --optimizer")
    altered = bool(changes) or recipe_name != default_recipe(model)
    seeds = {"quick": 1, "full": SEEDS.get(recipe_name, 1)}
    shared = cli.resolve_options(args, folder, seeds, altered=altered, name=model)
    recipe = build_recipe(model, recipe_name, shared, changes)
    return Options(
        **vars(shared), model=model, recipe=recipe, recipe_name=recipe_name, gradcam_layer=args.gradcam_layer
    )


def make_parser(description):
    """Return the parser of the shared flags, the model, the recipe and the recipe's fields."""
    parser = cli.make_parser(description, {"quick": 1, "full": "1, fast94 5, fast95 3"})
    cli.add_convolutions(parser)
    parser.add_argument(
        "--model", metavar="NAME", help="network of common/models (default: resnet18 on CUDA, else fast94)"
    )
    parser.add_argument(
        "--recipe", choices=RECIPES, help="how to train it (default: report; of a fast network, its own)"
    )
    parser.add_argument(
        "--gradcam-layer", metavar="NAME", help="module that Grad-CAM explains (default: the last one with maps of 7x7)"
    )
    group = parser.add_argument_group(
        "fields of the recipe", "The default is the chosen recipe's; the report's is given."
    )
    for field in FIELDS:
        group.add_argument("--" + field.name.replace("_", "-"), **field_arguments(field))
    return parser


def field_arguments(field):
    """Return argparse's arguments for one field of a recipe."""
    names = {"True": "yes", "False": "no", "None": "the network's own"}
    default = names.get(str(field.default), field.default)
    arguments = {"help": f"{field.metadata['help']} (report: {default})".replace("%", "%%")}
    if isinstance(field.default, bool):
        return arguments | {"action": argparse.BooleanOptionalAction}
    if field.name in CHOICES:
        return arguments | {"choices": CHOICES[field.name]}
    kind = float if field.default is None else type(field.default)
    return arguments | {"type": non_negative(kind), "metavar": "X"}


def non_negative(kind):
    """Return a parser of an int or float from 0 on that fits in 64 bits, for argparse."""
    largest = {int: sys.maxsize, float: sys.float_info.max}[kind]

    def parse_number(text):
        value = kind(text)
        if not 0 <= value <= largest:
            raise ValueError
        return value

    parse_number.__name__ = f"non-negative {kind.__name__}"  # argparse prints this name where the text is not one
    return parse_number


def choose_model(args):
    """Return (model, name of its recipe); where both flags are left out, print which ones suit the device."""
    if args.model or args.recipe:
        model = args.model or ("resnet18" if args.recipe == "report" else args.recipe)
        return model, args.recipe or default_recipe(model)
    on_cuda = args.device == "cuda" or (args.device == "auto" and machine.choose_device("auto") == "cuda")
    model, reason = ("resnet18", "CUDA is available") if on_cuda else ("fast94", "made for speed, as there is no CUDA")
    if not args.redraw:
        print(f"model: {model} ({reason}; --model and --recipe choose another)", flush=True)
    return model, default_recipe(model)


def default_recipe(model):
    """Return the name of the recipe that trains `model` unless --recipe names another."""
    return model if model in RECIPES else "report"


def build_recipe(model, name, options, changes):
    """Return the recipe called `name` with what quick scale, the shared flags and `changes` make of it."""
    quick = QUICK if options.scale == "quick" else {}
    return dataclasses.replace(get_recipe(name, model), **{**quick, **changes, **options.overrides})
