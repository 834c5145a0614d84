"""Where the names of the toy's config are looked up."""

from train import MODULES as EXAMPLE

TOY = "tests.framework.toy."
MODULES = EXAMPLE | {
    "arch": f"{TOY}model.model", "data_loader": f"{TOY}data_loader.data_loaders",
    "loss": f"{TOY}model.loss",
    "metrics": (f"{TOY}model.metric", "torchmetrics", "torchmetrics.classification")}
