"""Trains what the config describes: everything is built here, by name."""

import argparse
import collections

from parse_config import ConfigParser
from utils.errors import clean_exit

# where the names of each section are looked up
MODULES = {
    "arch": "model.model",
    "data_loader": "data_loader.data_loaders",
    "loss": "model.loss",
    "metrics": ("model.metric", "torchmetrics", "torchmetrics.classification"),
    "optimizer": "torch.optim",
    "lr_scheduler": "torch.optim.lr_scheduler",
}


def main(config: ConfigParser) -> None:
    """Builds the run and trains it."""
    from base.weights import start_from
    from trainer import Trainer
    from utils.debug import describe, first_batches
    from utils.device import prepare_device
    from utils.distributed import refuse_several_processes
    from utils.lean_optimizers import spare_compiler
    from utils.parallel import place_model, trainable
    from utils.rng import set_deterministic, set_seed

    refuse_several_processes()
    logger = config.get_logger("train", config.trainer.verbosity)
    set_deterministic(config.trainer.deterministic)
    set_seed(config.run.seed)
    if not config.trainer.compile:
        spare_compiler()

    data_loader = config.init_obj("data_loader")
    valid_data_loader = data_loader.split_validation()
    model = config.init_obj("arch")
    start_from(model, config)
    logger.info(model)

    device, device_ids = prepare_device(config.run.n_gpu or 0)
    model = place_model(model, device, device_ids, channels_last=config.trainer.channels_last,
                        compiled=config.trainer.compile)
    criterion, = config.init_functions("loss")
    metrics = config.init_functions("metrics") if "metrics" in config else []
    optimizer = config.init_obj("optimizer", None, trainable(model))
    lr_scheduler = config.init_obj("lr_scheduler", None, optimizer) if (
        config.get("lr_scheduler")) else None

    if config.is_dry_run:
        return describe(config, model, data_loader, valid_data_loader)
    if config.num_batches:
        data_loader, valid_data_loader = first_batches(config, data_loader, valid_data_loader)
    Trainer(model, criterion, metrics, optimizer, config, device, data_loader, valid_data_loader,
            lr_scheduler).train()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train what a config describes.")
    parser.add_argument("-c", "--config", help="config file (JSON)")
    parser.add_argument("-r", "--resume", help=(
        "go on with a run: a checkpoint, a run's folder, or 'latest'"))
    parser.add_argument("-d", "--device", help="GPUs to use, like 2,3; or cpu, or mps")
    parser.add_argument("--run-id", metavar="NAME", help="name of the run's folder")
    parser.add_argument("--new-run", action="store_true", help=(
        "with --resume: go on in a folder of its own"))
    parser.add_argument("--init-from", metavar="CKPT", help=(
        "start from a checkpoint's weights only"))
    parser.add_argument("--debug", action="store_true", help=(
        "one epoch of two batches with anomaly detection; leaves nothing behind"))
    parser.add_argument("--overfit", type=int, metavar="N", help="train on the same N batches only")
    parser.add_argument("--dry-run", action="store_true", help=(
        "build everything, show it, train nothing"))

    # options for keys that are changed often; targets are paths in the config
    CustomArgs = collections.namedtuple("CustomArgs", "flags type target")
    options = [
        CustomArgs(["--lr", "--learning_rate"], type=float, target=("optimizer", "args", "lr")),
        CustomArgs(["--bs", "--batch_size"], type=int,
                   target=("data_loader", "args", "batch_size")),
    ]
    with clean_exit():
        main(ConfigParser.from_args(parser, options, MODULES))
