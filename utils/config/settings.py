"""The config keys that are ours: type, default, unit, range and meaning of each, in one place.

``python -m utils.config.settings`` prints the JSON Schema of ``config.schema.json``.
"""

import functools
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from utils.config.misspellings import shown

MAX_NAME = 100  # characters
# CON, NUL, COM1, ... are devices on Windows, with any ending
RESERVED = (r"(?!([Cc][Oo][Nn]|[Pp][Rr][Nn]|[Aa][Uu][Xx]|[Nn][Uu][Ll]|"
            r"([Cc][Oo][Mm]|[Ll][Pp][Tt])[0-9])(\.|$))")
FILE_NAME = (rf"^{RESERVED}(?![\s\S]*[\x00-\x1f])"
             r"[^\\/:*?\"<>|.~ ]([^\\/:*?\"<>|]*[^\\/:*?\"<>|. ])?$")
CHECKPOINT_NAME = r"^[A-Za-z0-9_.=-]*\{epoch(:0[1-9]d?)?\}[A-Za-z0-9_.=-]*\.pth$"
PATH = r"^[^\x00]+$"


class Settings(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class TrainerConfig(Settings):
    """The section ``trainer``; further keys are the user's own and pass through."""

    epochs: int | None = Field(None, ge=1, description=(
        "Epochs of the whole run, those before a resume included; may be absent with `max_steps`."))
    max_steps: int | None = Field(None, ge=1, description=(
        "Optimizer steps of the whole run, after which it ends, also inside an epoch."))
    valid_steps: int | None = Field(None, ge=1, description=(
        "Optimizer steps from one validation to the next, inside epochs or across them; null: once "
        "an epoch. Monitor, best model, early stopping, plateau and history go by validations."))
    save_dir: str = Field("saved/", min_length=1, pattern=PATH, description=(
        "Folder for what runs write."))
    save_freq: int = Field(1, ge=1, description=(
        "Epochs from one checkpoint file to the next; `save_period` is its older name."))
    save_steps: int | None = Field(None, ge=1, description=(
        "Optimizer steps after which `latest.pth` is also written inside an epoch; null: never."))
    keep_last: int = Field(0, ge=0, description=(
        "Newest epoch files to keep; 0 keeps all. Best and latest always stay."))
    keep_best: int = Field(0, ge=0, description=(
        "Best models to keep as files of their own (`model_best-...pth`), by the monitor."))
    async_save: bool = Field(False, description=(
        "Write checkpoints in the background, after a copy to host memory; for large models."))
    checkpoint_name: str = Field("checkpoint-epoch{epoch}.pth", description=(
        "Name of epoch files; holds `{epoch}`, or `{epoch:03d}` for leading zeros."),
        pattern=CHECKPOINT_NAME, max_length=MAX_NAME)
    verbosity: int = Field(2, ge=0, le=2, description=(
        "What the console shows. 0: the end result and warnings; 1: each epoch; 2: log points and "
        "a bar as well. `info.log` has everything."))
    monitor: str = Field("off", pattern=r"^(off|(min|max) \S+)$", description=(
        "What the best model is judged by: `min NAME` or `max NAME` of the epoch's log, or `off`."))
    early_stop: int = Field(0, description=(
        "Epochs without improvement after which the run ends; 0 or less: never."))
    min_delta: float = Field(0.0, ge=0, allow_inf_nan=False, description=(
        "By how much the monitored value must get better to count, in its own unit."))
    sanity_batches: int = Field(1, ge=0, description=(
        "Validation batches to try before the first step, so that a fault there shows at once."))
    tensorboard: bool = Field(True, description="Write TensorBoard events.")
    trackers: list[Any] = Field([], description=(
        "Services that follow the run beside TensorBoard: names in trainer/trackers.py, or with "
        "arguments `{\"type\", \"args\"}`."))
    log_steps: int = Field(100, ge=1, description=(
        "Batches from one log point (bar, log line, TensorBoard) to the next; on a GPU the loss is "
        "looked at then, to see whether it is finite, on the CPU at each batch."))
    log_images: bool = Field(True, description=(
        "Send the first input images of each epoch to TensorBoard."))
    log_histograms: bool = Field(True, description=(
        "Send histograms of all parameters to TensorBoard once an epoch."))
    log_graph: bool = Field(False, description=(
        "Send the model's graph to TensorBoard, traced with the first batch of the run."))
    profile_steps: int = Field(0, ge=0, le=1000, description=(
        "Training steps to profile once, after the first five: where their time goes is told, a "
        "trace is written to `trace.json.gz` in the log folder; 0: none."))
    len_epoch: int | None = Field(None, ge=1, description=(
        "Batches per epoch, whatever the data's length; null: one pass over the data."))
    overfit_batches: int | None = Field(None, ge=1, description=(
        "Train and validate on so many batches only, the first ones, as `--overfit` does."))
    max_seconds: float | None = Field(None, gt=0, allow_inf_nan=False, description=(
        "Seconds after which the run saves and stops like on a signal; null: no limit."))
    deterministic: bool | Literal["warn"] = Field(False, description=(
        "Deterministic kernels only: false, true, or \"warn\" where there is none."))
    channels_last: bool = Field(False, description=(
        "Keep images and convolutions in channels-last memory layout; often faster."))
    compile: bool | dict[str, Any] = Field(False, description=(
        "Compile the model with torch.compile; an object has its `mode` and `dynamic`."))
    strategy: Literal["auto", "single", "dp", "ddp", "fsdp2"] = Field("auto", description=(
        "How devices share the work: \"single\" uses one, \"dp\" is several GPUs in one process "
        "(DataParallel), \"ddp\" DistributedDataParallel in several processes, \"fsdp2\" "
        "divides weights and the optimizer's state between them; \"auto\" is what there is."))
    sharded_checkpoints: bool = Field(False, description=(
        "Of fsdp2: each process writes its part of a checkpoint, into a folder `shards` beside it, "
        "for models that are too large for one file."))
    find_unused_parameters: bool = Field(False, description=(
        "Of DistributedDataParallel: the model may leave out parameters in some steps; slower."))
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description=(
        "Number format to compute in, where it is safe: \"fp32\", \"bf16\" or \"fp16\"."))
    matmul_precision: Literal["highest", "high", "medium"] | None = Field(None, description=(
        "Of products of float32 matrices: \"highest\", \"high\" or \"medium\"; null leaves it."))
    accumulate: int = Field(1, ge=1, description=(
        "Batches whose gradients make one optimizer step, each sample with the same weight."))
    clip_grad_norm: float | None = Field(None, gt=0, allow_inf_nan=False, description=(
        "Largest norm of an optimizer's gradients, which are scaled down to it; it is logged as "
        "`gradient_norm`."))
    ema_decay: float | None = Field(None, gt=0, lt=1, description=(
        "Keep an exponential moving average of the weights; validation and test.py use it."))


class RunConfig(Settings):
    """The keys at the top of the config that are no section."""

    model_config = ConfigDict(regex_engine="python-re")  # Rust's has no lookahead

    name: str = Field("run", pattern=FILE_NAME, max_length=MAX_NAME, description=(
        "Name of the run and of its folder under `save_dir`."))
    n_gpu: int | None = Field(None, ge=0, description=(
        "GPUs to use, the first ones; 0 is the CPU; null: where the model is."))
    seed: int = Field(123, ge=0, le=2**32 - 1, description=(
        "Seed of everything random in the run; 0 is a seed too."))
    init_from: str | None = Field(None, min_length=1, pattern=PATH, description=(
        "Checkpoint whose weights a new run starts from; a fresh optimizer, epoch 1."))
    freeze: list[str] = Field([], description=(
        "Patterns (`conv*`) of parameter names that are not trained."))
    base: str | None = Field(None, min_length=1, pattern=PATH, description=(
        "Another config, relative to this file, that this one changes."))


SECTIONS = {
    "arch": "The model: a class in model/model.py.",
    "data_loader": "The data: a class in data_loader/data_loaders.py.",
    "valid_data_loader": "Validation data instead of a split; or several by name.",
    "test_data_loader": "Test data for test.py, instead of data_loader with training=False.",
    "optimizer": "A class of torch.optim; or several by name, each with the params it trains.",
    "loss": "A function or class in model/loss.py, torch.nn.functional or torch.nn.",
    "metrics": "Functions or classes in model/metric.py, or classes of torchmetrics.",
    "lr_scheduler": "A class of torch.optim.lr_scheduler or model/optim.py; or several.",
}
OLDER_NAMES = {"save_period": "save_freq"}  # of keys in trainer
# keys that projects had no such meaning for before; and a monitor that nobody knows means off
CLASSIC = {"name", "n_gpu", "base", "trainer.epochs", "trainer.save_dir", "trainer.save_freq",
           "trainer.verbosity", "trainer.early_stop", "trainer.tensorboard"}
DEFAULTS = {prefix + key: field.default
            for kind, prefix in ((RunConfig, ""), (TrainerConfig, "trainer."))
            for key, field in kind.model_fields.items()}
TOP_LEVEL = ["$schema", *RunConfig.model_fields, *SECTIONS, "trainer"]
IN_TRAINER = [*TrainerConfig.model_fields, *OLDER_NAMES]

Problems = dict[str, str]  # what is wrong, by the path of its key


def check_typed(config: Any) -> Problems:
    """Problems of the values of all typed keys."""
    if not isinstance(config, dict):
        return {"config": f"expected an object {{...}}, got {shown(config)}"}
    problems = check_settings(RunConfig, config)
    if "trainer" not in config:
        return problems | {"trainer": "this section is missing"}
    trainer = config["trainer"]
    if not isinstance(trainer, dict):
        return problems | {"trainer": f"expected an object {{...}}, got {shown(trainer)}"}
    found = check_settings(TrainerConfig, with_current_names(trainer), "trainer.")
    if trainer.get("epochs") is None and trainer.get("max_steps") is None:
        found.setdefault("trainer.epochs", "is missing: say how long to train by an integer of at "
                         "least 1 here, or by trainer.max_steps")
    for old, new in OLDER_NAMES.items():
        if old in trainer and f"trainer.{new}" in found:
            found[f"trainer.{old}"] = found.pop(f"trainer.{new}")
        elif old in trainer and trainer.get(new, trainer[old]) != trainer[old]:
            found[f"trainer.{old}"] = (f"{shown(trainer[old])}, but {new}, its newer name, is "
                                       f"{shown(trainer[new])}; keep one of them")
    return problems | found


def own_keys(config: dict[str, Any]) -> list[str]:
    """Paths of the keys at the top and in ``trainer`` that are the user's own."""
    return [*(str(key) for key in config if key not in TOP_LEVEL),
            *(f"trainer.{key}" for key in config["trainer"] if key not in IN_TRAINER)]


def with_current_names(trainer: dict[str, Any]) -> dict[str, Any]:
    """The section with the values of older names under the newer ones."""
    return trainer | {new: trainer[old] for old, new in OLDER_NAMES.items() if old in trainer}


def check_settings(kind: type[Settings], values: dict[str, Any], prefix: str = "") -> Problems:
    """Problems of ``values``: what was expected and what came, by path."""
    odd = [key for key in values if not isinstance(key, str) or not key.isprintable()]
    if odd:
        return {f"{prefix}{key!a}": "expected printable text as a key" for key in odd}
    schema = _properties(kind)
    problems = {}
    try:
        kind.model_validate(values)
    except ValidationError as error:
        for item in error.errors():
            key = str(item["loc"][0])
            problems[f"{prefix}{key}"] = (f"expected {expected(schema[key])}, got "
                                          f"{shown(values[key])}. "
                                          f"{plain(schema[key]['description'])}")
    return problems


@functools.cache
def _properties(kind: type[Settings]) -> dict[str, Any]:
    return kind.model_json_schema()["properties"]


def expected(schema: dict[str, Any]) -> str:
    """The type and range of a property of a JSON Schema in words."""
    if "anyOf" in schema:
        return " or ".join(expected(part) for part in schema["anyOf"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " or ".join(map(json.dumps, schema["enum"]))
    words = {"integer": "an integer", "number": "a number", "string": "a string",
             "boolean": "true or false", "null": "null", "array": "a list", "object": "an object"}
    text = words[schema["type"]] + (" of strings" if "type" in schema.get("items", {}) else "")
    pattern = schema.get("pattern", "")
    if "minimum" in schema and "maximum" in schema:
        return f"{text} from {schema['minimum']:g} to {schema['maximum']:.10g}"
    if "minimum" in schema:
        return f"{text} of at least {schema['minimum']:g}"
    if "exclusiveMinimum" in schema and "exclusiveMaximum" in schema:
        return f"{text} between {schema['exclusiveMinimum']:g} and {schema['exclusiveMaximum']:g}"
    if "exclusiveMinimum" in schema:
        return f"{text} above {schema['exclusiveMinimum']:g}"
    if "min|max" in pattern:
        return f"{text} like \"min val_loss\" or \"max val_accuracy\", or \"off\""
    if "epoch" in pattern:
        return f"{text} like model-{{epoch:03d}}.pth, without folders"
    if "maxLength" in schema:
        return f"{text} of at most {schema['maxLength']} characters that can name a folder"
    if "minLength" in schema:
        return f"{text} that is not empty"
    return text


def plain(description: str) -> str:
    return description.replace("`", "")


def json_schema() -> dict[str, Any]:
    """JSON Schema of a whole config: typed keys, sections, and anything else as the user's own."""
    part = {"type": "object", "required": ["type"], "properties": {
        "type": {"type": "string", "description": "A name in the module of this section."},
        "args": {"type": "object", "description": "Its keyword arguments."}}}
    named = {"anyOf": [{"type": "string"}, part, {"type": "array"}]}
    shapes: dict[str, dict[str, Any]] = {
        "loss": named, "metrics": {"anyOf": [*named["anyOf"], {"type": "object"}]},
        "lr_scheduler": {"type": ["object", "null"]}, "optimizer": {"type": "object"},
        "valid_data_loader": {"type": ["object", "null"]},
        "test_data_loader": {"anyOf": [part, {"type": "null"}]}}
    sections = {key: shapes.get(key, part) | {"description": text}
                for key, text in SECTIONS.items()}
    trainer = TrainerConfig.model_json_schema()
    for old, new in OLDER_NAMES.items():
        trainer["properties"][old] = trainer["properties"][new]
    trainer["anyOf"] = [{"required": ["epochs"]}, {"required": ["max_steps"]}]
    top = RunConfig.model_json_schema()["properties"]
    known = {"$schema": {"type": "string"}, **top, **sections, "trainer": trainer}
    for value in (*known.values(), *trainer["properties"].values()):
        value.pop("title", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Config of a training run", "type": "object", "required": ["trainer"],
            "properties": known}


def table() -> list[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of every typed key, for the README."""
    rows = []
    for kind, prefix in ((RunConfig, ""), (TrainerConfig, "trainer.")):
        for key, schema in _properties(kind).items():
            rows.append((f"`{prefix}{key}`", expected(schema),
                         f"`{json.dumps(DEFAULTS[prefix + key])}`", schema["description"]))
    return rows


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
