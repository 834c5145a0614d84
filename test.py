"""Evaluates a checkpoint's model on the test set and reports, or predicts for data without targets;
the config is in the checkpoint."""

import argparse
import functools
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from logger.history import own_names
from parse_config import ConfigParser
from train import MODULES, build
from utils.devices.processes import is_main_process, num_processes
from utils.errors import ConfigError, clean_exit

SPLITS = ("test", "valid", "train")
EVENTS = "test"  # folder in the run's log folder
# what a loader is given for the test set, where it takes such an argument
FOR_TEST = {"training": False, "shuffle": False, "validation_split": 0.0, "drop_last": False}


def main(config: ConfigParser, split: str = "test",
         predictions: Path | None = None) -> dict[str, Any]:
    """Prints loss and metrics, writes them and a report beside the checkpoint, and returns them.

    Args:
        split: the data: one of ``SPLITS``.
        predictions: a CSV file for all predictions.
    """
    from logger.console import plain_number, table
    from logger.visualization import TensorboardWriter
    from utils.config.json_file import replace_json
    from utils.runs.one_run import one_run

    check_folder(predictions)
    logger = config.get_logger("test")
    if split == "test":
        ask_for_test_set(config)
    elif "drop_last" in (config["data_loader"].get("args") or {}):
        config["data_loader"]["args"]["drop_last"] = False
    has_events = config.trainer.tensorboard and config.folder.goes_on
    only_evaluates(config)
    with one_run(config):
        logs = config.folder.log_dir
        # in a folder of their own: TensorBoard reads one file of a folder after the other, and
        # would not look again at that of a run which goes on
        writer = TensorboardWriter(logs / EVENTS, logger,
                                   has_events and logs.is_dir() and is_main_process())
        trainer = build(config)
        writer.step = trainer.counters.step
        samples, values, reports = evaluated(trainer, split, predictions, writer)
    about = {"checkpoint": str(config.resume), "epoch": trainer.counters.epoch, "samples": samples}
    result = about | own_names({name: plain_number(value) for name, value in values.items()}, about)
    logger.info("%s", table(result))
    if is_main_process():
        path = Path(str(config.resume)).with_suffix(f".{split}.json")
        replace_json(result, path)
        logger.info("written to %s", path)
        for report in reports:
            report()
        writer.close()
    return result


def predict(config: ConfigParser, path: Path, predictions: Path | None = None) -> Path:
    """Writes a table of what the model says of the data at ``path``, and returns its place.

    Args:
        predictions: the CSV file to write; None is one beside the checkpoint.
    """
    from base.report.predict import predict_inputs
    from utils.runs.one_run import one_run

    check_folder(predictions)
    if predictions is not None and predictions.resolve() == path.resolve():
        raise ConfigError(f"--predictions: {predictions} is what --predict reads")
    if not path.exists():
        raise ConfigError(f"--predict: expected data without targets, there is no {path}")
    if num_processes() > 1:
        raise ConfigError(f"--predict: one process alone does this, and these are "
                          f"{num_processes()}: start test.py without torchrun")
    logger = config.get_logger("test")
    ask_for_test_set(config)
    only_evaluates(config)
    checkpoint = Path(str(config.resume))
    table = predictions or (
        checkpoint.parent / "reports" / f"{checkpoint.stem}-predict" / "predictions.csv")
    with one_run(config):
        trainer = build(config)
        count = predict_inputs(trainer, path, table)
    logger.info("%d predictions of the model of epoch %d: %s", count, trainer.counters.epoch, table)
    return table


def only_evaluates(config: ConfigParser) -> None:
    """Leaves out what only training needs."""
    config["lr_scheduler"] = None
    config["trainer"].update(tensorboard=False, overfit_batches=None)
    # whatever it was trained with, unless it may be too large for one process
    if num_processes() == 1 or config.trainer.strategy != "fsdp2":
        config["trainer"]["strategy"] = "auto"


def check_folder(predictions: Path | None) -> None:
    """Whether the file for predictions can be put where it was asked for."""
    if predictions is not None and not predictions.parent.is_dir():
        raise ConfigError(f"--predictions: there is no folder {predictions.parent}")


def evaluated(trainer: Any, split: str, predictions: Path | None, writer: Any) -> tuple[
        int, dict[str, Any], list[Callable[[], None]]]:
    """How many samples there are, their values, and what writes the report of each data set."""
    from base.evaluation import named_loaders
    from base.report import watched, write_report

    loaders = trainer.valid_data_loader if split == "valid" else trainer.data_loader
    if loaders is None:
        raise ConfigError("--split valid: the run has no validation data")
    checkpoint = Path(str(trainer.config.resume))
    samples = 0
    values: dict[str, Any] = {}
    reports: list[Callable[[], None]] = []
    for prefix, loader in named_loaders(loaders):
        path = predictions_of(predictions, prefix)
        with watched(trainer, keep_scores=path is not None or writer.enabled) as seen:
            found = trainer.evaluate(loader)
        samples += trainer.num_evaluated
        values.update((prefix + name, value) for name, value in found.items())
        name = f"{split}-{prefix}".rstrip("-_")
        about = {"checkpoint": str(checkpoint), "epoch": trainer.counters.epoch,
                 "step": trainer.counters.step, "set": name, "samples": trainer.num_evaluated}
        folder = checkpoint.parent / "reports" / f"{checkpoint.stem}-{name}"
        reports.append(functools.partial(
            write_report, seen, loader, folder=folder, about=about, predictions=path,
            classes_of=[loader, trainer.data_loader], writer=writer))
    return samples, values, reports


def predictions_of(path: Path | None, prefix: str) -> Path | None:
    """The file for the predictions of one set; of several sets by name, each has its own."""
    if path is None or not prefix:
        return path
    return path.with_name(f"{path.stem}-{prefix.removesuffix('_')}{path.suffix}")


def ask_for_test_set(config: ConfigParser) -> None:
    """Puts the test set in the place of the training data: of ``test_data_loader``, or the whole
    one in a fixed order of ``data_loader``, by the arguments that it takes."""
    config["valid_data_loader"] = None
    if config.get("test_data_loader"):
        config["data_loader"] = config["test_data_loader"]
        return
    args = config["data_loader"].setdefault("args", {})
    taken = inspect.signature(config.init_ftn("data_loader").func).parameters
    args.update((key, value) for key, value in FOR_TEST.items() if key in taken or key in args)
    if "training" not in args:
        logging.getLogger("test").warning(
            "%s takes no argument 'training': it is tested on whatever it gives, which may be the "
            "training data", config["data_loader"]["type"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Evaluate a checkpoint on the test set.")
    parser.add_argument("-r", "--resume", required=True, help=(
        "a checkpoint, a run's folder (its best model), or 'latest'"))
    parser.add_argument("-c", "--config", help="config to lay over the checkpoint's own")
    parser.add_argument("-d", "--device", help="GPUs to use, like 2,3; or cpu, cuda, mps")
    parser.add_argument("--split", choices=SPLITS, default="test", help=(
        "the data: the test set, or that of the run's validation or training, as training reads "
        "it"))
    parser.add_argument("--predictions", metavar="CSV", type=Path, help=(
        "write every prediction to this file"))
    parser.add_argument("--predict", metavar="PATH", type=Path, help=(
        "instead, predict for data without targets, as the data loader reads it: a folder, a file"))
    with clean_exit():
        config = ConfigParser.from_args(parser, modules=MODULES, best_first=True)
        given = parser.parse_intermixed_args()
        if given.predict is None:
            main(config, given.split, given.predictions)
        elif given.split == "test":
            predict(config, given.predict, given.predictions)
        else:
            raise ConfigError("--predict has data of its own: give it without --split")
