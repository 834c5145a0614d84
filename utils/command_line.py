"""Options, the files they name and ``key=value`` overrides, in their order of precedence."""

import argparse
import copy
import glob
import json
import logging
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.config_tree import apply_override, deep_merge, read_config, set_path
from utils.errors import CheckpointError, ConfigError
from utils.settings import FILE_NAME, RunConfig, TrainerConfig
from utils.util import is_deep

logger = logging.getLogger("config")


class CommandLine:
    """What was asked for on the command line.

    Args:
        args: what the parser made of it; options that it does not know count as not given.
        options: the declared ones, with ``flags``, ``type`` and ``target``.

    Attributes:
        resume: the checkpoint to go on with, once ``config`` was called.
        source: what messages call the config.
    """

    def __init__(self, args: argparse.Namespace, options: Sequence[Any]) -> None:
        self.args = args
        self.options = options
        self.resume: Path | None = None
        self.source = "config"

    def given(self, name: str) -> Any:
        """The value of an option, or None."""
        return getattr(self.args, name, None)

    def config(self, *, best_first: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """The whole config, and what it was before the command line changed it.

        Order, later wins: file, checkpoint's config, ``-c`` beside ``--resume``, declared options,
        ``key=value``.
        """
        device = self.given("device")
        if device is not None:
            choose_device(device)
        before = self._read(best_first)
        config = copy.deepcopy(before)
        if self.given("resume") and self.given("config"):
            config = deep_merge(config, read_config(Path(self.given("config"))))
        for option in self.options:
            value = self.given(_dest(option))
            if value is not None:
                if isinstance(value, float) and not math.isfinite(value):
                    raise ConfigError(f"{option.flags[0]}: expected a finite number, got {value}")
                for target in _targets(option):
                    set_path(config, target_path(target), value)
        known = [*RunConfig.model_fields, *(f"trainer.{key}" for key in TrainerConfig.model_fields)]
        for text in self.given("overrides") or []:
            apply_override(config, text, known)
        if self.given("init_from"):
            config["init_from"] = self.given("init_from")
        if device in ("cpu", "mps"):
            config["n_gpu"] = 0 if device == "cpu" else 1
        return config, before

    def _read(self, best_first: bool) -> dict[str, Any]:
        path, resume = self.given("config"), self.given("resume")
        if not resume:
            if not path:
                raise ConfigError("expected a config (-c config.json) or a checkpoint to go on "
                                  "with (--resume saved/models/.../latest.pth), got neither")
            self.source = str(path)
            return read_config(Path(path))
        from utils.run_folder import find_checkpoint  # needs torch, which takes seconds

        try:
            if resume == "latest":
                folder, pattern = self._where_runs_are()
                self.resume, checkpoint = find_checkpoint(folder / "models", pattern=pattern)
            else:
                self.resume, checkpoint = find_checkpoint(Path(resume), best_first=best_first)
        except CheckpointError as error:
            raise ConfigError(f"--resume: {error}") from error
        self.source = str(self.resume)
        config = checkpoint.get("config")
        if isinstance(config, dict):
            return _plain(config, self.source)
        beside = self.resume.with_name("config.json")
        if beside.is_file():
            return read_config(beside)
        if path:
            return read_config(Path(path))
        raise ConfigError(f"--resume: {self.resume} holds no config and there is no config.json "
                          "beside it; give one with -c")

    def _where_runs_are(self) -> tuple[Path, str]:
        """The folder that runs write to, and a pattern of this run's folders below it."""
        config = read_config(Path(self.given("config"))) if self.given("config") else {}
        for text in self.given("overrides") or []:
            if text.startswith(("name=", "trainer.save_dir=")):
                apply_override(config, text, ["name", "trainer.save_dir"])
        trainer = config.get("trainer")
        folder = trainer.get("save_dir") if isinstance(trainer, dict) else None
        name = config.get("name")
        is_name = isinstance(name, str) and re.match(FILE_NAME, name)
        return (Path(folder if isinstance(folder, str) else "saved/"),
                f"{glob.escape(name) if is_name else '*'}/*")


def add_options(parser: argparse.ArgumentParser, options: Sequence[Any]) -> None:
    """Declares the options, each with its target and the config's value, and the overrides."""
    config = _peek_config()
    for option in options:
        extra = {key: value for key in ("help", "choices", "default", "action", "nargs", "metavar")
                 if (value := getattr(option, key, None)) is not None}
        if option.type is not None and extra.get("action", "store") == "store":
            extra["type"] = option.type
        targets = [".".join(target_path(target)) for target in _targets(option)]
        value: Any = config
        for key in targets[0].split("."):
            value = value.get(key) if isinstance(value, dict) else None
        extra["help"] = f"{extra.get('help', 'sets')} {', '.join(targets)}".strip() + (
            "" if value is None else f" (config: {value})").replace("%", "%%")
        parser.add_argument(*option.flags, dest=_dest(option), **extra)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=(
        "any key of the config: trainer.epochs=5; +key.path=value adds one, ~key.path removes one"))


def choose_device(device: str) -> None:
    """Makes the GPUs named (``2,3``) the only ones, before CUDA starts; or none (cpu, mps)."""
    if not re.fullmatch(r"cpu|mps|\d+(,\d+)*", device):
        raise ConfigError(f"--device: expected GPU numbers like 0 or 2,3, or cpu, or mps, got "
                          f"{device!r}")
    os.environ["CUDA_VISIBLE_DEVICES"] = "" if device in ("cpu", "mps") else device


def target_path(target: str | Sequence[str]) -> tuple[str, ...]:
    """``"optimizer;args;lr"`` or a sequence of keys."""
    return tuple(target.split(";")) if isinstance(target, str) else tuple(target)


def _targets(option: Any) -> list[Any]:
    """An option's target, or its list of targets."""
    return option.target if isinstance(option.target, list) else [option.target]


def _dest(option: Any) -> str:
    """Where argparse keeps the value: the first ``--flag`` names it, dashes become underscores."""
    long = [flag for flag in option.flags if flag.startswith("--")]
    return (long or list(option.flags))[0].lstrip("-").replace("-", "_")


def _plain(config: dict[Any, Any], source: str) -> dict[str, Any]:
    """A checkpoint's config as JSON gives it: nobody knows who has written it."""
    try:
        config = json.loads(json.dumps(config))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: its config is not plain JSON ({error}); give one with -c and "
                          "take the weights by --init-from") from error
    if is_deep(config):
        raise ConfigError(f"{source}: its config is nested too deeply")
    return config


def _peek_config() -> dict[str, Any]:
    """The config of the command line, for the help; nothing if it cannot be read yet."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("-c", "--config", default="config.json")
    try:
        return read_config(Path(peek.parse_known_args(sys.argv[1:])[0].config))
    except (ConfigError, SystemExit):
        return {}
