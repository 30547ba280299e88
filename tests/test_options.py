"""The command line of project3_wrn/main.py: the model, the recipe and its fields."""

import dataclasses
import inspect
import sys

import pytest
import torch

from common import cli, training
from common.models import MODELS
from common.support import machine
from common.support.errors import UserError
from project3_wrn import main, options
from project3_wrn.method.recipes import CHOICES, Recipe, get_recipe
from project3_wrn.method.train import FAST_ONLY
from tests.conftest import assert_single_error_line


@pytest.fixture
def parse(monkeypatch):
    def parse(*flags):
        monkeypatch.setattr(sys, "argv", ["main.py", *flags])
        return options.parse(main.__doc__, main.TASK)

    return parse


@pytest.mark.parametrize("flags", [["--lr", "-1"], ["--weight-decay", "much"], ["--cutout", "-3"], ["--recipe", "x"]])
def test_wrong_flags_are_usage_errors(flags, run_in_process):
    assert_single_error_line(run_in_process(main.main, *flags), flags[0], status=2)


def test_a_fast_recipe_keeps_its_optimizer(parse):
    with pytest.raises(UserError, match="own optimizer"):
        parse("--device", "cpu", "--recipe", "fast95", "--optimizer", "muon")


def test_every_field_is_a_flag_that_changes_it(parse, run_in_process):
    """Each flag alone changes its field and nothing else; all have a help text of their own, which has the default."""
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    changed = {"patience": 0, "epochs": 7, "batch_size": 32}
    seen = set()
    for name, field in fields.items():
        if name == "fast":
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(field.default, bool):
            value, flags = not field.default, [flag if not field.default else flag.replace("--", "--no-", 1)]
        elif name in CHOICES:
            value = next(choice for choice in CHOICES[name] if choice not in (field.default, "muon"))
            flags = [flag, value]
        else:
            value = changed.get(name, 1 if isinstance(field.default, int) else 0.5)
            value = {"low_res_size": 16, "tta_views": 2}.get(name, value)
            flags = [flag, str(value)]
        if name in FAST_ONLY:
            process = run_in_process(
                main.main, "--plan", "--device", "cpu", "--scale", "full", "--model", "lenet", *flags
            )
            assert_single_error_line(process, f"{flag} is for the fast recipes", status=1)
            continue
        if name == "validation_split":
            flags += ["--patience", "0"]
        recipe = parse("--device", "cpu", "--scale", "full", "--model", "lenet", *flags).recipe
        expected = {name: value, **({"patience": 0} if name == "validation_split" else {})}
        assert recipe == dataclasses.replace(Recipe(), **expected), name
    for field in options.FIELDS:
        text = options.field_arguments(field)["help"]
        assert text not in seen and "(report: " in text
        seen.add(text)


def test_the_default_is_what_suits_the_device(parse, monkeypatch, capsys):
    for available, model, recipe, seeds in ((False, "fast94", "fast94", 5), (True, "resnet18", "report", 1)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        monkeypatch.setattr(machine, "cuda_problem", lambda: "")
        args = parse("--scale", "full", "--precision", "fp32", "--convolutions", "direct")
        assert (args.model, args.recipe_name, len(args.seeds)) == (model, recipe, seeds)
        assert args.recipe == get_recipe(recipe, model)
        assert f"model: {model}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "model", "recipe"),
    [
        (["--model", "wrn28_10"], "wrn28_10", "report"),
        (["--model", "fast96"], "fast96", "fast96"),
        (["--recipe", "report"], "resnet18", "report"),
        (["--recipe", "fast95"], "fast95", "fast95"),
        (["--model", "fast94", "--recipe", "fast95"], "fast94", "fast95"),
    ],
)
def test_one_flag_decides_the_other(parse, capsys, flags, model, recipe):
    args = parse("--device", "cpu", "--scale", "full", *flags)
    assert (args.model, args.recipe_name, args.recipe) == (model, recipe, get_recipe(recipe, model))
    assert args.out.name == model and "model:" not in capsys.readouterr().out


def test_results_of_changed_recipes_go_elsewhere(parse):
    plain = parse("--device", "cpu", "--scale", "full", "--model", "resnet18").out
    assert plain == cli.ROOT / "project3_wrn" / "outputs" / "resnet18"
    for flags in (["--lr", "0.2"], ["--epochs", "3"], ["--no-validation-split", "--patience", "0"]):
        out = parse("--device", "cpu", "--scale", "full", "--model", "resnet18", *flags).out
        assert out == cli.ROOT / "project3_wrn" / "outputs_custom" / "resnet18"
    other = parse("--device", "cpu", "--scale", "full", "--model", "fast94", "--recipe", "report").out
    assert other.parent.name == "outputs_custom"


def test_quick_scale_is_one_short_epoch_unless_flags_say_otherwise(parse):
    recipe = parse("--device", "cpu", "--scale", "quick", "--recipe", "fast94").recipe
    assert (recipe.epochs, recipe.batch_size, recipe.tta_views) == (1, 64, 1)
    recipe = parse(
        "--device", "cpu", "--scale", "quick", "--recipe", "fast94", "--epochs", "2", "--tta-views", "6"
    ).recipe
    assert (recipe.epochs, recipe.batch_size, recipe.tta_views) == (2, 64, 6)


def test_the_plan_of_a_gpu_that_is_not_here(run_in_process):
    process = run_in_process(main.main, "--plan", "--device", "cuda", "--model", "wrn28_10")
    assert process.returncode == 0, process.stderr
    assert "| wrn28_10 | wrn28_10 | 1 | 100 | 256 |" in process.stdout


def test_the_readme_names_the_field_and_value_of_each_setting_of_the_report():
    """Its rows have the recipe's defaults, and each flag is one of main.py; the report's Config has seven names."""
    page = (cli.ROOT / "project3_wrn" / "README.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.split("## The report's Config")[1].partition("\n## ")[0].splitlines()
        if line.startswith("| ")
    ][2:]
    parser = options.make_parser("")
    values = {True: "yes", False: "no", None: "the network's own"}
    for report, value, field, flag in rows:
        default = getattr(Recipe(), field.strip("`"))
        assert value == (str(default) if is_number(default) else values.get(default, default))
        assert flag.strip("`") in parser.format_help(), flag
        assert flag.strip("`") == "--" + field.strip("`").replace("_", "-"), report
    names = ("LABEL_SMOOTHING", "LEARNING_RATE", "MOMENTUM", "WEIGHT_DECAY", "NUM_EPOCHS", "MIXUP", "FOCAL_GAMMA")
    for name in (*names, "Cutout(12)", "T_max", "eta_min", "patience", "min_delta", "batch size"):
        assert sum(name in report for report, *_ in rows) == 1, name
    assert training.cosine(100, 100) == 0  # eta_min
    assert get_recipe("report", "wrn28_10").weight_decay == 5e-4
    for factory in (MODELS["wrn28_10"], MODELS["wrn16_8"]):
        assert inspect.signature(factory).parameters["dropout"].default == 0.3


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)
