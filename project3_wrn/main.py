"""Project 3. One network, from data to Grad-CAM (project 3, chapters 1 and 2).

    python project3_wrn/main.py [--model NAME] [--recipe NAME] [--scale quick|full] [--device auto|cpu|cuda|mps] [--seeds N]
    torchrun --nproc_per_node=N project3_wrn/main.py ...        data-parallel

Where there is CUDA the default is the report's ResNet-18 by its recipe; elsewhere the network and recipe made for speed, fast94.
The report's recipe trains on 45,000 images, chooses the best epoch by the other 5,000 and tests once, after.
--patience 0 trains to the end and still keeps the best epoch; the outputs tell where the report's patience of 15 would
have stopped. The fast recipes choose nothing, train on all 50,000 and test once. Every value of a recipe is a flag, but
for a fast recipe's optimiser and the numbers of recipes.Fast.
Writes to project3_wrn/outputs/<model>/:
    metrics.json                one entry a seed
    performance.md              test accuracy, gap, classes, confusions; classification_report.csv,
                                confusion_matrix.csv, top_confusion_pairs.csv
    training_history.json       of the first seed; loss_history.npz: of all
    training_curves.png, confusion_matrix.png, per_class_accuracy.png, top_confusion_pairs.png, confidence.png, calibration.csv
    misclassified_samples.png   the 20 most confident errors
    gradcam_visualization.png   nine images and where the network looked
    logits.npz, weights-<seed>.pt, run.json
"""

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path

TASK = Path(__file__).resolve().parent
sys.path.insert(0, str(TASK.parent))

from common import cli, plots, tables
from common.support import files, machine
from common.support.errors import UserError
from project3_wrn.method.recipes import CHOICES, RECIPES, Recipe, get_recipe

SEEDS = {"fast94": 5, "fast95": 3}  # of recipes at full scale; 1 of the others and at quick scale
OVERRIDES = {
    field.name: field.type
    for field in dataclasses.fields(Recipe)
    if field.name not in ("epochs", "batch_size", "fast")  # the first two are flags of every task
}


def main():
    options = parse()
    from project3_wrn.method import distributed

    with (
        distributed.process_group(options.device) as device,
        cli.output_lock(options.out) if distributed.is_main_process() else contextlib.nullcontext(),
    ):
        if not options.redraw:
            train(options, device)
        if distributed.is_main_process():
            write_results(options.out, options.out, options)
            cli.finish(options)
    if distributed.is_main_process():
        print(f"results: {options.out}")


def parse():
    parser = cli.make_parser(__doc__, {"quick": 1, "full": "1; fast94: 5, fast95: 3"})
    parser.add_argument("--model", metavar="NAME", help="network of common/models (resnet18 on CUDA, else fast94)")
    parser.add_argument("--recipe", choices=RECIPES, help="how to train it (report; a fast network's own)")
    for name, kind in OVERRIDES.items():
        accepted = {"type": at_least_zero(kind), "metavar": "X"}
        if kind is bool:
            accepted = {"action": argparse.BooleanOptionalAction}
        elif name in CHOICES:
            accepted = {"choices": CHOICES[name]}
        parser.add_argument("--" + name.replace("_", "-"), **accepted, help="instead of the recipe's")
    parser.add_argument("--resume", action="store_true", help="require a checkpoint to resume from")
    cli.add_convolutions(parser)
    parser.add_argument("--gradcam-layer", metavar="NAME", help="module to look at (the last feature maps)")
    options = parser.parse_args()
    if options.resume and options.fresh:
        parser.error("--resume continues a run and --fresh starts over: give only one of them")
    options.device = machine.choose_device(options.device)
    chosen = choose(options)
    if chosen and not options.redraw:
        print(chosen, flush=True)
    overrides = {name: getattr(options, name) for name in OVERRIDES if getattr(options, name) is not None}
    another = options.recipe != default_recipe(options.model)
    cli.resolve_options(
        options, TASK, {"quick": 1, "full": SEEDS.get(options.recipe, 1)}, altered=bool(overrides) or another
    )
    changes = {name: getattr(options, name) for name in ("epochs", "batch_size") if getattr(options, name)}
    options.settings = settings_of(options, {**overrides, **changes})
    if options.optimizer and options.settings.fast:
        raise UserError("the numbers of a fast recipe are those of its own optimiser; leave --optimizer out")
    if not options.redraw:
        from project3_wrn.method.train import check

        check(options.model, options.settings)
    options.out /= options.model
    return options


def at_least_zero(kind):
    def number(text):
        value = kind(text)  # argparse tells of a ValueError
        if not 0 <= value < float("inf"):
            raise ValueError
        return value

    number.__name__ = f"{kind.__name__} from 0"
    return number


def choose(options):
    """Fill in model and recipe where the flags leave them open; a line on the choice where they leave both."""
    line = ""
    if options.model is None and options.recipe is None:
        options.model = "resnet18" if options.device == "cuda" else "fast94"
        why = "CUDA is here" if options.device == "cuda" else "made for speed, as there is no CUDA"
        line = f"model: {options.model} ({why}; --model and --recipe choose another)"
    options.model = options.model or ("resnet18" if options.recipe == "report" else options.recipe)
    options.recipe = options.recipe or default_recipe(options.model)
    return line


def settings_of(options, changes):
    """The recipe as the scale and the flags ask for it."""
    moment = {"epochs": 1, "batch_size": 64, "tta_views": 1} if options.scale == "quick" else {}
    return dataclasses.replace(get_recipe(options.recipe, options.model), **{**moment, **changes})


def default_recipe(model):
    return model if model in RECIPES else "report"


def train(options, device):
    from common import data
    from common.models import MODELS, forward_flops, parameter_count
    from common.support import checkpoints, download
    from common.support.progress import Progress
    from project3_wrn.analysis import figures
    from project3_wrn.method import distributed
    from project3_wrn.method.train import evaluation_sets, logits_of, make_splits

    recipe = options.settings
    (train_images, test), options.source = download.images(options.scale, options.data)
    parts = make_splits(recipe, train_images)
    measured = evaluation_sets(parts, test, options.scale)
    parts = {name: images.to(device) for name, images in parts.items()}
    size = {"parameters": parameter_count(MODELS[options.model]()), "flops": forward_flops(MODELS[options.model]())}

    if options.resume and not any(checkpoints.there(checkpoint_path(options, seed)) for seed in options.seeds):
        raise UserError(f"no checkpoint in {options.out / 'checkpoints'} to resume from; start without --resume")
    if (
        options.fresh and distributed.is_main_process()
    ):  # all seeds at once, so that the same command without --fresh can resume
        files.clear_checkpoints(options.out / "checkpoints")
    distributed.barrier()  # before any process looks for a checkpoint to resume from
    histories, metrics, saved = {}, [], {"test_labels": test.labels.numpy()}
    with Progress(
        recipe.epochs * len(options.seeds), options.model, quiet=not distributed.is_main_process()
    ) as progress:
        for seed in options.seeds:
            learner, history = train_seed(options, seed, parts, progress)
            if not distributed.is_main_process():
                continue

            def measure(seed=seed, learner=learner):
                images = sum(map(len, measured.values()))
                views = f"{recipe.tta_views} view{'s' * (recipe.tta_views > 1)}"
                of = (
                    f" of the {recipe.tta_fraction:.0%} least certain"
                    if recipe.tta_fraction < 1 < recipe.tta_views
                    else " of each"
                )
                progress.note(f"seed {seed}: measuring {images:,} images, {views}{of}")
                return logits_of(learner, recipe, measured, device)

            logits = once(logits_path(options, seed), measure, {name: len(images) for name, images in measured.items()})
            labels = {name: images.labels for name, images in measured.items()}
            histories[options.model, seed] = history
            metrics.append(figures.measure(seed, logits, labels, history, size))
            saved |= {f"{seed}/{name}": logits[name].numpy() for name in logits if name != "train"}
            weights = {name: value.cpu() for name, value in learner.weights().items()}
            checkpoints.save(options.out / f"weights-{seed}.pt", weights)
    distributed.barrier()  # nobody may still be reading a checkpoint that is deleted after the report
    if not distributed.is_main_process():
        return

    if recipe.validation_split:
        kept, held_out = data.split(train_images.labels)
        saved |= {"train_indices": kept.numpy(), "val_indices": held_out.numpy()}
        saved["val_labels"] = parts["val"].labels.cpu().numpy()
    tables.save_histories(options.out / "loss_history.npz", histories)
    tables.save_arrays(options.out / "logits.npz", saved)
    cli.write_json(options.out / "metrics.json", metrics)
    cli.write_json(
        options.out / "run.json",
        cli.provenance(options, options.source)
        | {"model": options.model, "recipe": dataclasses.asdict(recipe), "processes": distributed.world_size()},
    )


def checkpoint_path(options, seed):
    return options.out / "checkpoints" / f"{seed}.pt"


def logits_path(options, seed):
    """The file of a seed's logits, which a start that is stopped after measuring them need not measure again."""
    return options.out / "checkpoints" / f"{seed}-logits.pt"


def train_seed(options, seed, parts, progress):
    """Train one seed, resuming from its checkpoint if it exists; return (learner with its best weights, history)."""
    from common.support import checkpoints
    from common.support.progress import epoch_reporter
    from project3_wrn.method import distributed
    from project3_wrn.method.train import train

    recipe, checkpoint = options.settings, checkpoint_path(options, seed)
    if distributed.is_main_process() and not checkpoint.exists():
        logits_path(options, seed).unlink(missing_ok=True)
    settings = {"model": options.model, "recipe": dataclasses.asdict(recipe), "seed": seed}
    settings |= {"scale": options.scale, "precision": options.precision, "convolutions": options.convolutions}
    settings |= (
        {"processes": distributed.world_size()} if distributed.world_size() > 1 else {}
    )  # whose batch statistics differ
    tell = epoch_reporter(progress.advance, f"seed {seed}", resumed=checkpoints.there(checkpoint))

    def on_step(epochs):
        if distributed.is_main_process():  # saved logits belong to a later epoch than this start resumes from
            logits_path(options, seed).unlink(missing_ok=True)
        tell(epochs)

    def on_epoch(epoch, history):
        chosen = f", validation {history['val_accuracy'][-1]:.2f}%" if "val_accuracy" in history else ""
        loss = history["epoch_losses"][-1]
        tell(epoch, f"seed {seed}, epoch {epoch}/{recipe.epochs}, loss {loss:.3f}{chosen}")

    learner, history = train(
        options.model,
        recipe,
        seed,
        parts,
        precision=options.precision,
        convolutions=options.convolutions,
        # on a CPU compiling slows bf16 and Winograd's convolutions down, and costs minutes
        compiled=options.device == "cuda" and options.scale == "full",
        checkpoint=checkpoint,
        settings=settings,
        on_step=on_step,
        on_epoch=on_epoch,
    )
    tell(recipe.epochs, skipped=True)  # where it stopped early
    return learner, history


def once(path, measure, lengths):
    """Return what `measure` gives, {name: logits (N, 10)}: from `path` where a run that was stopped has left it whole.

    lengths: {name: N}.
    """
    from common.support import checkpoints

    if path.exists():
        try:
            saved = checkpoints.load(path, "file of logits", "measured again")
            shapes = (
                {name: getattr(logits, "shape", None) for name, logits in saved.items()}
                if isinstance(saved, dict)
                else {}
            )
            if shapes == {name: (length, 10) for name, length in lengths.items()}:
                return saved
            print(f"{path} does not hold the logits of this run; measured again", flush=True)
        except checkpoints.Damaged as problem:
            print(problem, flush=True)
    measured = measure()
    checkpoints.save(path, measured)
    return measured


def write_results(source, out, options):
    """Draw tables and figures into `out` from the histories, logits and weights saved in `source`."""
    from common.support import download
    from project3_wrn.analysis import figures

    run_json, metrics = cli.read_json(source / "run.json"), cli.read_json(source / "metrics.json")
    scale, model = run_json["scale"], run_json["model"]
    histories, saved = tables.load_histories(source / "loss_history.npz"), tables.load_arrays(source / "logits.npz")
    plots.setup(options.lang, scale)
    first = metrics[0]["seed"]
    history, recipe = histories[model, first], run_json["recipe"]
    logits, labels = saved[f"{first}/test"], saved["test_labels"]

    cli.write_json(out / "training_history.json", figures.training_history(history, recipe["lr"]))
    figures.write_tables(out, model, scale, metrics, logits, labels)
    figures.draw(out, history, recipe, logits, labels)

    (_, test), _ = download.images(scale, options.data)
    figures.draw_misclassified(out / "misclassified_samples.png", logits, test)
    weights = source / f"weights-{first}.pt"
    if not weights.exists():
        print(f"{weights.name} not found (weights are not committed): keeping the existing gradcam_visualization.png")
        return
    from project3_wrn.predict import load_network

    try:
        network = load_network(model, weights)
        figures.draw_gradcam(out / "gradcam_visualization.png", network, logits, test, options.gradcam_layer)
    except UserError as problem:
        if options.gradcam_layer:
            raise
        print(f"no gradcam_visualization.png: {problem}")


if __name__ == "__main__":
    cli.entry_point(main)
