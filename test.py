"""Evaluates a checkpoint's model on the test set; the config is in the checkpoint."""

import argparse
from pathlib import Path
from typing import Any

from parse_config import ConfigParser
from train import MODULES
from utils.errors import clean_exit


def main(config: ConfigParser) -> dict[str, Any]:
    """Prints loss and metrics, writes them beside the checkpoint, and returns them."""
    import torch

    from base.weights import load_weights
    from trainer import Trainer
    from utils.checkpoint_file import read_checkpoint
    from utils.device import num_samples, prepare_device, to_device
    from utils.metric_tracker import make_tracker
    from utils.parallel import place_model
    from utils.report import table
    from utils.rng import set_seed
    from utils.util import replace_json

    logger = config.get_logger("test")
    set_seed(config.run.seed)
    config["data_loader"]["args"].update(training=False, shuffle=False, validation_split=0.0)
    data_loader = config.init_obj("data_loader")

    checkpoint = read_checkpoint(config.resume)
    model = config.init_obj("arch")
    load_weights(model, checkpoint["state_dict"], str(config.resume))
    device, device_ids = prepare_device(config.run.n_gpu or 0)
    model = place_model(model, device, device_ids, channels_last=config.trainer.channels_last)
    model.eval()

    criterion, = config.init_functions("loss")
    metrics = config.init_functions("metrics") if "metrics" in config else []
    tracker = make_tracker(metrics, device)
    num_tested = 0
    with torch.inference_mode():
        for batch in data_loader:
            data, target = Trainer.split_batch(to_device(batch, device))
            output = model(data)
            tracker.update_batch(output, target, criterion(output, target), num_samples(target))
            num_tested += num_samples(target)

    result = {"checkpoint": str(config.resume), "epoch": checkpoint.get("epoch"),
              "samples": num_tested, **tracker.result()}
    logger.info("%s", table(result))
    path = Path(config.resume).with_suffix(".test.json")
    replace_json(result, path)
    logger.info("written to %s", path)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Evaluate a checkpoint on the test set.")
    parser.add_argument("-r", "--resume", required=True, help=(
        "a checkpoint, a run's folder (its best model), or 'latest'"))
    parser.add_argument("-c", "--config", help="config to lay over the checkpoint's own")
    parser.add_argument("-d", "--device", help="GPUs to use, like 2,3; or cpu, or mps")
    with clean_exit():
        main(ConfigParser.from_args(parser, modules=MODULES, best_first=True))
