"""Evaluates a checkpoint's model on the test set; the config is in the checkpoint."""

import argparse
import inspect
import logging
from pathlib import Path
from typing import Any

from parse_config import ConfigParser
from train import MODULES, build
from utils.devices.processes import is_main_process
from utils.errors import clean_exit

# what a loader is given for the test set, where it takes such an argument
FOR_TEST = {"training": False, "shuffle": False, "validation_split": 0.0, "drop_last": False}


def main(config: ConfigParser) -> dict[str, Any]:
    """Prints loss and metrics, writes them beside the checkpoint, and returns them."""
    from logger.console import plain_number, table
    from utils.config.json_file import replace_json
    from utils.runs.one_run import one_run

    logger = config.get_logger("test")
    ask_for_test_set(config)
    config["lr_scheduler"] = None
    config["trainer"].update(tensorboard=False, overfit_batches=None)
    with one_run(config):
        trainer = build(config)
        values = trainer.evaluate(trainer.data_loader)
    result = {"checkpoint": str(config.resume), "epoch": trainer.counters.epoch,
              "samples": trainer.num_evaluated,
              **{name: plain_number(value) for name, value in values.items()}}
    logger.info("%s", table(result))
    if is_main_process():
        path = Path(str(config.resume)).with_suffix(".test.json")
        replace_json(result, path)
        logger.info("written to %s", path)
    return result


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
    parser.add_argument("-d", "--device", help="GPUs to use, like 2,3; or cpu, or mps")
    with clean_exit():
        main(ConfigParser.from_args(parser, modules=MODULES, best_first=True))
