"""Train configurations with seeds, one run at a time: what main.py and the studies share.

A configuration is a pair (model, recipe), a run one configuration with one seed. A finished run is a file,
`runs/<config>-<seed>.npz`, and is not trained again. An interrupted run resumes from its checkpoint. A failed run is
listed at the end and does not stop the others.
"""

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import cli, data, evaluation, tables
from common.support import checkpoints, plan
from common.support.errors import UserError, first_line, gpu_failure, out_of_memory
from common.support.progress import Progress, epoch_reporter
from project3_wrn import result_files
from project3_wrn.method import distributed
from project3_wrn.method.recipes import Recipe
from project3_wrn.method.train import Backend, check_recipe, evaluation_sets, make_splits, predict_logits, train

QUICK = dict(epochs=1, batch_size=64)


# --- a study, from its command line to its tables ---


def parse(description, folder, study, seeds):
    """Return the Options of a study's command line; its results go to the folder `study` below the outputs."""
    parser = cli.make_parser(description, seeds)
    cli.add_convolutions(parser)
    return cli.resolve_options(parser.parse_args(), folder, seeds, name=study)


def configure(configs, options):
    """Return the configurations with what quick scale, --epochs and --batch-size change in their recipes."""
    changes = {**(QUICK if options.scale == "quick" else {}), **options.overrides}
    return {config: (model, dataclasses.replace(recipe, **changes)) for config, (model, recipe) in configs.items()}


def run_study(
    configs,
    options,
    write_results,
    *,
    save=result_files.save_study,
    splits=None,
    held_out=0.0,
    save_weights=False,
    complete=False,
):
    """Train every configuration with every seed, save what came out, and write tables and figures.

    With --redraw, only write tables and figures; with --plan, only print the runs and what they cost.

    configs: {name: (model, recipe)}.
    write_results: (folder) -> None, from what `save` has written there and nothing else.
    save: (configs, {(config, seed): result}, options, (train set, test set, source)) -> None.
    splits: (config, train set) -> {"train": Dataset, "val": Dataset}; by default the recipe's split.
    held_out: the share of the training images that `splits` holds out, for --plan.
    save_weights: write weights-<seed>.pt too, for a study of one configuration.
    complete: save nothing where a run failed.

    Raises:
        UserError: a configuration cannot be trained; or runs failed, and the tables have the others.
    """
    if not options.redraw:
        for model, recipe in configs.values():
            check_recipe(model, recipe)
    if options.plan:
        title, rows = options.command.split()[1], plan_rows(configs, options, held_out)
        plan.show(title, rows, options.scale, options.device)
        return
    with distributed.process_group(options.device) as device:
        is_main = distributed.is_main_process()
        with cli.output_folder(options) if is_main else contextlib.nullcontext():
            failed = []
            if not options.redraw:
                dataset = data.load(options.scale, options.data)
                runs = make_runs(configs, options, save_weights)
                results, failed = train_all(runs, options, dataset, device, splits)
                if complete or not results:
                    raise_if_failed(failed, "No results are written")
                if is_main:
                    save(configs, results, options, dataset)
            if is_main:
                write_results(options.out)
                raise_if_failed(failed, "The tables have the others")
                print(f"results: {options.out}")


def plan_rows(configs, options, held_out=0.0):
    """Return one row per configuration for common/support/plan.py, all its seeds together.

    held_out: the share of the training images that is held out without the recipe's split.
    """
    rows = []
    for config, (model, recipe) in configs.items():
        train_images, val_images, _ = plan.image_counts(options.scale, recipe.validation_split)
        if held_out:
            val_images = round(held_out * train_images)
            train_images -= val_images
        # the last pass may end early, and an image of fewer pixels costs less
        passes = recipe.epochs - 1 + recipe.last_epoch_fraction
        saved = min(recipe.low_res_epochs, passes) * (1 - (recipe.low_res_size / data.IMAGE_SIZE) ** 2)
        rows.append(
            {
                "name": config,
                "model": model,
                "seeds": len(options.seeds),
                "epochs": recipe.epochs,
                "batch_size": recipe.batch_size,
                "members": len(options.seeds),
                "stacked": False,
                "train": train_images,
                "evaluated": val_images,
                "passes": passes - saved,
                "speed": plan.WINOGRAD if options.convolutions == "winograd" else 1,
            }
        )
    return rows


# --- training ---


@dataclass(frozen=True)
class Run:
    """One configuration with one seed, how it is computed, and where its files are."""

    config: str
    model: str
    recipe: Recipe
    seed: int
    settings: dict  # its result and its checkpoint have these; with other ones they belong to another run
    backend: Backend
    git_commit: str
    result: Path
    checkpoint: Path
    weights: Path | None  # None where the weights are not saved

    def __str__(self):
        return f"{self.config}, seed {self.seed}"


def make_runs(configs, options, save_weights=False):
    """Return the runs of a study in the order of training: all configurations with one seed, then with the next."""
    start = {**vars(options), "processes": distributed.world_size()}
    # on a CPU, compiling slows bf16 and Winograd's convolutions down and costs minutes
    compiled = options.device == "cuda" and options.scale == "full"
    return [
        Run(
            config,
            model,
            recipe,
            seed,
            settings=result_files.run_settings(model, dataclasses.asdict(recipe), seed, start),
            backend=Backend(options.precision, options.convolutions, compiled),
            git_commit=options.git_commit or "none",
            result=result_files.result_path(options.out, config, seed),
            checkpoint=options.out / "checkpoints" / f"{config}-{seed}.pt",
            weights=result_files.weights_path(options.out, seed) if save_weights else None,
        )
        for seed in options.seeds
        for config, (model, recipe) in configs.items()
    ]


def train_all(runs, options, dataset, device, splits=None):
    """Train all runs that are not finished; return ({(config, seed): result}, one line per failed run).

    Raises:
        UserError: a run failed that other processes train too.
    """
    train_set, test_set, _ = dataset
    is_main = distributed.is_main_process()
    if options.fresh and is_main:
        # all results are removed before the first run, so that the same command without --fresh can resume
        for path in options.out.glob("runs/*.npz"):
            path.unlink()
    distributed.barrier()  # no process may look for a result earlier
    results, failed = {}, []
    with Progress(sum(run.recipe.epochs for run in runs), options.out.name, quiet=not is_main) as progress:
        for run in runs:
            report_progress = epoch_reporter(progress.advance, str(run), resumed=checkpoints.exists(run.checkpoint))
            sets = splits(run.config, train_set) if splits else make_splits(run.recipe, train_set)
            try:
                results[run.config, run.seed] = train_run(run, sets, test_set, device, report_progress, progress.log)
                if is_main and not options.keep_checkpoints:
                    checkpoints.discard(run.checkpoint)
            except (UserError, RuntimeError) as error:
                if distributed.world_size() > 1 or gpu_failure(error):
                    raise  # the other processes would wait for this one; on a broken GPU all other runs fail too
                failed.append(f"{run.config} with seed {run.seed} ({explain(error)})")
                progress.log(f"failed, and left out: {failed[-1]}")
            report_progress(run.recipe.epochs, skipped=True)  # finished before, stopped early, or failed
    # the tables list all seeds of one configuration, then those of the next
    order = list(dict.fromkeys(run.config for run in runs))
    return dict(sorted(results.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))), failed


def train_run(run, splits, test_set, device, report_progress, log):
    """Train a run, or resume it, or read it back; return its result, and {} in all processes except the main one.

    A result is the arrays of a run's file: `test_logits` (10000, 10) and, with a validation set, `val_logits`, both by
    the recipe's test-time augmentation; `clean_train_accuracy` (per cent) and `clean_train_loss` (nats) in evaluation
    mode; the history of common/training.py; `settings` as JSON and `git_commit`.

    Raises:
        UserError: the run's file or checkpoint has other settings, or the training diverged.
    """
    if (result := result_files.read_finished(run.result, run.settings)) is not None:
        log(f"{run}: finished earlier, at commit {str(result['git_commit'])[:7]}; --fresh trains it again")
        return result

    def on_epoch(epoch, history):
        validation = f", validation {history['val_accuracy'][-1]:.2f}%" if "val_accuracy" in history else ""
        loss = f"loss {history['epoch_losses'][-1]:.3f}"
        report_progress(epoch, f"{run}, epoch {epoch}/{run.recipe.epochs}, {loss}{validation}")

    learner, history = train(
        run.model,
        run.recipe,
        run.seed,
        {name: part.to(device) for name, part in splits.items()},
        run.backend,
        checkpoint=checkpoints.Checkpoint(run.checkpoint, run.settings),
        on_step=report_progress,
        on_epoch=on_epoch,
    )
    distributed.barrier()  # the main process must not write the result while others still look for one
    if not distributed.is_main_process():
        return {}
    sets = evaluation_sets(splits, test_set, run.settings["scale"])
    log(f"{run}: evaluating {sum(map(len, sets.values())):,} images")
    logits, train_labels = predict_logits(learner, run.recipe, sets, device), sets["train"].labels
    result = {
        **history,
        **{f"{name}_logits": values.numpy() for name, values in logits.items() if name != "train"},
        "clean_train_accuracy": evaluation.accuracy(logits["train"], train_labels).numpy(),
        "clean_train_loss": evaluation.cross_entropy(logits["train"], train_labels).numpy(),
        "settings": np.array(json.dumps(run.settings)),
        "git_commit": np.array(run.git_commit),
    }
    if run.weights:
        checkpoints.save(run.weights, {name: value.cpu() for name, value in learner.weights().items()})
    tables.save_arrays(run.result, result)  # last: it marks the run as finished
    return result


def explain(error):
    """Return one line on why a run failed."""
    if out_of_memory(error):
        return "out of memory; lower --batch-size"
    return str(error) if isinstance(error, UserError) else first_line(error)


def raise_if_failed(failed, consequence):
    """Raise UserError that names the failed runs, if there are any, and what follows for the tables."""
    if failed:
        raise UserError(f"{len(failed)} failed: {'; '.join(failed)}. {consequence}; rerun the command to try again")
