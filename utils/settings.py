"""The config keys that are ours: type, default, unit, range and meaning of each, in one place.

``python -m utils.settings`` prints the JSON Schema of ``config.schema.json``.
"""

import functools
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticUndefined

from utils.near import known_for, suggestion

# CON, NUL, COM1, ... are devices on Windows, with any ending
RESERVED = (r"(?!([Cc][Oo][Nn]|[Pp][Rr][Nn]|[Aa][Uu][Xx]|[Nn][Uu][Ll]|"
            r"([Cc][Oo][Mm]|[Ll][Pp][Tt])[0-9])(\.|$))")
FILE_NAME = (rf"^{RESERVED}(?![\s\S]*[\x00-\x1f])"
             r"[^\\/:*?\"<>|.~ ]([^\\/:*?\"<>|]*[^\\/:*?\"<>|. ])?$")
CHECKPOINT_NAME = r"^[A-Za-z0-9_.=-]*\{epoch(:0?[0-9]d?)?\}[A-Za-z0-9_.=-]*\.pth$"
PATH = r"^[^\x00]+$"


class Settings(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class TrainerConfig(Settings):
    """The section ``trainer``; further keys are the user's own and pass through."""

    epochs: int = Field(ge=1, description=(
        "Epochs of the whole run, those before a resume included."))
    save_dir: str = Field("saved/", min_length=1, pattern=PATH, description=(
        "Folder for what runs write."))
    save_freq: int = Field(1, ge=1, description=(
        "Epochs from one checkpoint file to the next; `save_period` is its older name."))
    save_steps: int | None = Field(None, ge=1, description=(
        "Optimizer steps after which `latest.pth` is also written inside an epoch; null: never."))
    keep_last: int = Field(0, ge=0, description=(
        "Newest epoch files to keep; 0 keeps all. Best and latest always stay."))
    async_save: bool = Field(False, description=(
        "Write checkpoints in the background, after a copy to host memory; for large models."))
    checkpoint_name: str = Field("checkpoint-epoch{epoch}.pth", description=(
        "Name of epoch files; holds `{epoch}`, or `{epoch:03d}` for leading zeros."),
        pattern=CHECKPOINT_NAME, max_length=100)
    verbosity: int = Field(2, ge=0, le=2, description=(
        "0: the end result and warnings; 1: each epoch; 2: batches, loss and lr as well."))
    monitor: str = Field("off", pattern=r"^(off|(min|max) \S+)$", description=(
        "What the best model is judged by: `min NAME` or `max NAME` of the epoch's log, or `off`."))
    early_stop: int = Field(0, description=(
        "Epochs without improvement after which the run ends; 0 or less: never."))
    min_delta: float = Field(0.0, ge=0, allow_inf_nan=False, description=(
        "By how much the monitored value must get better to count, in its own unit."))
    tensorboard: bool = Field(True, description="Write TensorBoard events.")
    log_steps: int = Field(100, ge=1, description=(
        "Batches from one log point (bar, log line, TensorBoard) to the next."))
    log_images: bool = Field(True, description=(
        "Send the first input images of each epoch to TensorBoard."))
    log_histograms: bool = Field(True, description=(
        "Send histograms of all parameters to TensorBoard once an epoch."))
    len_epoch: int | None = Field(None, ge=1, description=(
        "Batches per epoch, whatever the data's length; null: one pass over the data."))
    max_seconds: float | None = Field(None, gt=0, allow_inf_nan=False, description=(
        "Seconds after which the run saves and stops like on a signal; null: no limit."))
    check_loss_steps: int | None = Field(None, ge=1, description=(
        "Batches from one look at whether the loss is finite to the next; null: each one on the "
        "CPU, where looking costs nothing, every `log_steps` on a device."))
    deterministic: bool | Literal["warn"] = Field(False, description=(
        "Deterministic kernels only: false, true, or \"warn\" where there is none."))
    channels_last: bool = Field(False, description=(
        "Keep images and convolutions in channels-last memory layout; often faster."))
    compile: bool = Field(False, description="Compile the model with torch.compile.")


class RunConfig(Settings):
    """The keys at the top of the config that are no section."""

    model_config = ConfigDict(regex_engine="python-re")  # Rust's has no lookahead

    name: str = Field("run", pattern=FILE_NAME, max_length=100, description=(
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
    "optimizer": "A class of torch.optim.",
    "loss": "A function or class in model/loss.py.",
    "metrics": "Functions in model/metric.py, or classes of torchmetrics.",
    "lr_scheduler": "A class of torch.optim.lr_scheduler; absent: constant lr.",
}
# keys that projects had no such meaning for before; and a monitor that nobody knows means off
CLASSIC = {"name", "n_gpu", "base", "trainer.epochs", "trainer.save_dir", "trainer.save_freq",
           "trainer.verbosity", "trainer.early_stop", "trainer.tensorboard"}
NEWER_KEYS = {path: field.default
              for kind, prefix in ((RunConfig, ""), (TrainerConfig, "trainer."))
              for key, field in kind.model_fields.items() if (path := prefix + key) not in CLASSIC}
TOP_LEVEL = ["$schema", *RunConfig.model_fields, *SECTIONS, "trainer"]


def check_settings(kind: type[Settings], values: Any, prefix: str = "") -> list[str]:
    """Problems of ``values``, each with its path, what was expected and what came."""
    if not isinstance(values, dict):
        return [f"{prefix.rstrip('.')}: expected an object {{...}}, got {shown(values)}"]
    schema = _properties(kind)
    odd = [key for key in values if not isinstance(key, str) or not key.isprintable()]
    if odd:
        return [f"{prefix}{key!a}: expected printable text as a key" for key in odd]
    try:
        kind.model_validate(values)
    except ValidationError as error:
        problems = {}
        for item in error.errors():
            key = str(item["loc"][0])
            if item["type"] == "missing":
                near = known_for(key, values)
                problems[key] = f"{prefix}{key}: is missing" + (
                    f"; is {near!r} a misspelling of it?" if near else
                    f"; expected {expected(schema[key])}: {plain(schema[key]['description'])}")
            else:
                problems[key] = (f"{prefix}{key}: expected {expected(schema[key])}, got "
                                 f"{shown(values[key])}. {plain(schema[key]['description'])}")
        return list(problems.values())
    return []


@functools.cache
def _properties(kind: type[Settings]) -> dict[str, Any]:
    return kind.model_json_schema()["properties"]


def misspelt_keys(values: dict[str, Any], known: list[str], prefix: str = "") -> list[str]:
    """Keys that nobody knows and that look like a known one which is missing."""
    absent = [key for key in known if key not in values]
    return [f"{prefix}{key}: unknown key (with {shown(values[key])}){hint}"
            for key in values if key not in known
            if (hint := suggestion(key, absent, misspelling=True))]


def expected(schema: dict[str, Any]) -> str:
    """The type and range of a property of a JSON Schema in words."""
    if "anyOf" in schema:
        return " or ".join(expected(part) for part in schema["anyOf"])
    if "const" in schema:
        return json.dumps(schema["const"])
    words = {"integer": "an integer", "number": "a number", "string": "a string",
             "boolean": "true or false", "null": "null", "array": "a list of strings"}
    text = words[schema["type"]]
    if "minimum" in schema and "maximum" in schema:
        return f"{text} from {schema['minimum']:g} to {schema['maximum']:.10g}"
    if "minimum" in schema:
        return f"{text} of at least {schema['minimum']:g}"
    if "exclusiveMinimum" in schema:
        return f"{text} above {schema['exclusiveMinimum']:g}"
    if "{epoch" in schema.get("pattern", "").replace("\\", ""):
        return f"{text} like model-{{epoch:03d}}.pth, without folders"
    if "maxLength" in schema:
        return f"{text} of at most {schema['maxLength']} characters that can name a folder"
    if "minLength" in schema:
        return f"{text} that is not empty"
    return text


def shown(value: Any) -> str:
    """A value as JSON, shortened."""
    text = json.dumps(value, default=str, skipkeys=True)
    return text if len(text) <= 60 else text[:57] + "..."


def plain(description: str) -> str:
    return description.replace("`", "")


def json_schema() -> dict[str, Any]:
    """JSON Schema of a whole config: typed keys, sections, and anything else as the user's own."""
    part = {"type": "object", "required": ["type"], "properties": {
        "type": {"type": "string", "description": "A name in the module of this section."},
        "args": {"type": "object", "description": "Its keyword arguments."}}}
    named = {"anyOf": [{"type": "string"}, part, {"type": "array"}]}
    shapes = {"loss": named, "metrics": {"anyOf": [*named["anyOf"], {"type": "object"}]}}
    sections = {key: shapes.get(key, {"type": "object"} if key == "optimizer" else part)
                | {"description": text} for key, text in SECTIONS.items()}
    sections["lr_scheduler"] = {"anyOf": [part, {"type": "null"}],
                                "description": SECTIONS["lr_scheduler"]}
    trainer = TrainerConfig.model_json_schema()
    trainer["properties"]["save_period"] = trainer["properties"]["save_freq"]
    top = RunConfig.model_json_schema()["properties"]
    known = {"$schema": {"type": "string"}, **top, **sections, "trainer": trainer}
    for properties in (known, trainer["properties"]):
        for value in properties.values():
            value.pop("title", None)
    trainer.pop("title", None)
    trainer["propertyNames"] = _not_misspelt(trainer["properties"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Config of a training run", "type": "object", "required": ["trainer"],
            "properties": known, "propertyNames": _not_misspelt(known)}


def _not_misspelt(properties: dict[str, Any]) -> dict[str, Any]:
    """Refuses the likeliest typing errors: a letter left out, or two exchanged."""
    wrong = set()
    for key in properties:
        wrong |= {key[:i] + key[i + 1:] for i in range(len(key))}
        wrong |= {key[:i] + key[i + 1] + key[i] + key[i + 2:] for i in range(len(key) - 1)}
    return {"not": {"enum": sorted(wrong - set(properties))}}


def table() -> list[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of every typed key, for the README."""
    rows = []
    for kind, prefix in ((RunConfig, ""), (TrainerConfig, "trainer.")):
        schema = kind.model_json_schema()["properties"]
        for key, field in kind.model_fields.items():
            default = ("required" if field.default is PydanticUndefined
                       else f"`{json.dumps(field.default)}`")
            rows.append((f"`{prefix}{key}`", expected(schema[key]), default,
                         schema[key]["description"]))
    return rows


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
