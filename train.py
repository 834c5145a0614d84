"""Trains what the config describes: everything is built here, by name."""

import argparse
import collections
from typing import TYPE_CHECKING

from parse_config import ConfigParser
from utils.config.type_and_args import Modules
from utils.errors import clean_exit

if TYPE_CHECKING:
    from trainer import Trainer

# where the names of each section are looked up, in this order; a list of arguments at the end says
# that they come from the code: ("model.model", ["vocab_size"])
MODULES: dict[str, Modules] = {
    "arch": "model.model",
    "data_loader": "data_loader.data_loaders",
    "valid_data_loader": "data_loader.data_loaders",
    "test_data_loader": "data_loader.data_loaders",
    "loss": ("model.loss", "torch.nn.functional", "torch.nn"),
    "metrics": ("model.metric", "torchmetrics.classification", "torchmetrics.regression",
                "torchmetrics.segmentation", "torchmetrics.text", "torchmetrics.image",
                "torchmetrics.detection", "torchmetrics"),
    "optimizer": ("model.optim", "torch.optim"),
    "lr_scheduler": ("model.optim", "torch.optim.lr_scheduler"),
    "trainer.trackers": "trainer.trackers",
}


def build(config: ConfigParser) -> "Trainer":
    """Builds everything that the config names; test.py evaluates with the same trainer."""
    # imported here: torch takes seconds, which --help and a mistake in the config need not wait
    from base.average import average_of
    from base.checkpoint.changes import steps_of_run
    from base.checkpoint.weights import start_from
    from base.data.validation import validation_data
    from base.debug import limited
    from base.optimizers import build_optimizers
    from base.schedulers import build_scheduler
    from trainer import Trainer
    from utils.devices.device import prepare_device
    from utils.devices.parallel import check_strategy, place_model
    from utils.devices.precision import set_matmul_precision
    from utils.devices.processes import first_on_machine
    from utils.devices.sharding import shard
    from utils.rng import set_deterministic, set_seed

    device, device_ids = prepare_device(config.run.n_gpu or 0, config.device)
    check_strategy(config.trainer.strategy, device_ids, config.trainer.precision)
    set_deterministic(config.trainer.deterministic)
    set_matmul_precision(config.trainer.matmul_precision)
    set_seed(config.run.seed)
    with first_on_machine():  # which may load the data from elsewhere
        data_loader = config.init_obj("data_loader")
    valid_data_loader = validation_data(config, data_loader)
    model = config.init_obj("arch")
    start_from(model, config)

    average = None
    if config.trainer.strategy == "fsdp2":  # no copy can be made of a model that is divided
        average = average_of(model, config.trainer.ema_decay)
    model = place_model(model, device, device_ids, channels_last=config.trainer.channels_last,
                        compiled=config.trainer.compile, strategy=config.trainer.strategy,
                        find_unused=config.trainer.find_unused_parameters,
                        precision=config.trainer.precision)
    criterion, = config.init_functions("loss")
    metrics = config.init_functions("metrics") if "metrics" in config else []
    optimizer = build_optimizers(config, model, criterion)
    data_loader, valid_data_loader = limited(config, data_loader, valid_data_loader)
    num_steps = steps_of_run(config, data_loader, Trainer.batches_per_step)
    lr_scheduler = build_scheduler(config, optimizer, num_steps)
    trainer = Trainer(model, criterion, metrics, optimizer, config, device, data_loader,
                      valid_data_loader, lr_scheduler)
    trainer.counters.planned = num_steps
    if average is not None:
        average.module = shard(average.module, device, config.trainer.precision)
        trainer.average = average
    return trainer


def main(config: ConfigParser) -> None:
    """Trains, or shows what would be trained."""
    from base.debug import describe
    from logger.logger import FILE_ONLY
    from utils.devices.parallel import unwrap_model
    from utils.devices.processes import is_main_process
    from utils.runs.one_run import one_run

    with one_run(config):
        trainer = build(config)
        config.get_logger("train", config.trainer.verbosity).info(
            unwrap_model(trainer.model), extra={} if config.is_dry_run else FILE_ONLY)
        if config.is_dry_run:
            describe(trainer)
        else:
            if is_main_process():
                trainer.trackers.add(config.init_functions("trainer.trackers"))
            trainer.train()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train what a config describes.")
    parser.add_argument("-c", "--config", help="config file (JSON)")
    parser.add_argument("-r", "--resume", help=(
        "go on with a run: a checkpoint, a run's folder, 'latest', or 'auto': go on with the run "
        "of --run-id or start it"))
    parser.add_argument("-d", "--device", help="GPUs to use, like 2,3; or cpu, cuda, mps")
    parser.add_argument("--run-id", metavar="NAME", help="name of the run's folder")
    parser.add_argument("--new-run", action="store_true", help=(
        "with --resume: go on in a folder of its own"))
    parser.add_argument("--init-from", metavar="CKPT", help=(
        "start from a checkpoint's weights only"))
    parser.add_argument("--debug", action="store_true", help=(
        "one epoch of two batches with anomaly detection; leaves nothing behind"))
    parser.add_argument("--overfit", type=int, metavar="N", help="train on the same N batches only")
    parser.add_argument("--dry-run", action="store_true", help=(
        "try a batch of training and of validation, show what there is, train nothing"))

    # options for keys that are changed often; targets are paths in the config
    CustomArgs = collections.namedtuple("CustomArgs", "flags type target")
    options = [
        CustomArgs(["--lr", "--learning_rate"], type=float, target=("optimizer", "args", "lr")),
        CustomArgs(["--bs", "--batch_size"], type=int,
                   target=("data_loader", "args", "batch_size")),
    ]
    with clean_exit():
        main(ConfigParser.from_args(parser, options, MODULES))
