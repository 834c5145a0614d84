"""Options, the files they name and ``key=value`` overrides, in their order of precedence."""

import argparse
import contextlib
import copy
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from utils.config.json_file import MAX_BYTES
from utils.config.merging import apply_override, deep_merge, read_config, set_path
from utils.config.misspellings import suggestion
from utils.config.settings import DEFAULTS, FILE_NAME, Problems
from utils.devices.device import choose_device
from utils.errors import CheckpointError, ConfigError
from utils.runs.folder import name_problem


class CommandLine:
    """What was asked for on the command line, and the config that comes of it.

    Args:
        args: what the parser made of it; options that it does not know count as not given.
        options: the declared ones, with ``flags``, ``type`` and ``target``.
        problems: that were found before.
        best_first: of a run's folder take ``model_best.pth`` before ``latest.pth``.

    Attributes:
        config: the whole config. before: the same before options and overrides changed it.
        resume: the checkpoint to go on with, or None. checkpoint: its content.
        restart: folder of a run to start anew in, for it was ended before its first checkpoint.
        source: what messages call the config.
        problems: mistakes of options and overrides, to be told with those of the config.

    Raises:
        ConfigError: there is no config or checkpoint to be read.
    """

    def __init__(self, args: argparse.Namespace, options: Sequence[Any] = (), *,
                 problems: Problems | None = None, best_first: bool = False) -> None:
        self.args = args
        self.options = options
        self.problems = dict(problems or {})
        self.resume: Path | None = None
        self.checkpoint: dict[str, Any] | None = None
        self.restart: Path | None = None
        self.source = "config"
        self._check_switches()
        try:
            if self.given("resume"):
                self._find_checkpoint(best_first)
            self.before = self._read()
        except ConfigError as error:  # no config to check: what is known by now
            raise ConfigError("\n  ".join([str(error), *(
                f"{option}: {text}" for option, text in self.problems.items())])) from error
        self.config = copy.deepcopy(self.before)
        if self.resume is not None and self.given("config"):
            self.config = deep_merge(self.config, read_config(Path(self.given("config"))))
        self._apply(self.config)

    def given(self, name: str) -> Any:
        """The value of an option, or None."""
        return getattr(self.args, name, None)

    @contextlib.contextmanager
    def _noting(self, key: str) -> Iterator[None]:
        """Keeps a mistake, to be told with all others."""
        try:
            yield
        except ConfigError as error:
            self.problems[key] = str(error)

    def _check_switches(self) -> None:
        """The options that are no keys of the config."""
        if self.given("device") is not None:
            with self._noting("--device"):
                choose_device(self.given("device"))
        if self.given("resume") and self.given("init_from"):
            self.problems["--init-from"] = (
                "a run that goes on has weights already; give either --resume or --init-from")
        overfit, run_id = self.given("overfit"), self.given("run_id")
        if overfit is not None and overfit < 1:
            self.problems["--overfit"] = f"expected a number of batches from 1 on, got {overfit}"
        if run_id and (problem := name_problem(run_id)):
            self.problems["--run-id"] = problem

    def _find_checkpoint(self, best_first: bool) -> None:
        from utils.runs.find_checkpoint import auto_run, find_checkpoint, newest_run

        resume = self.given("resume")
        try:
            if resume == "auto":
                self._need_config("--resume auto starts a run, or goes on with it")
                folder = auto_run(*self._where_runs_are(), self.given("run_id"))
                has_checkpoint = folder is not None and any(folder.glob("*.pth"))
                self.restart = None if has_checkpoint else folder
                path = folder if has_checkpoint else None
            else:
                path = newest_run(*self._where_runs_are()) if resume == "latest" else Path(resume)
            if path is not None:
                self.resume, self.checkpoint = find_checkpoint(path, best_first=best_first)
        except CheckpointError as error:
            raise ConfigError(f"--resume: {error}") from error

    def _read(self) -> dict[str, Any]:
        """The config before any change: of the checkpoint, beside it, or of the file."""
        path = self.given("config")
        if self.resume is None or self.checkpoint is None:
            self._need_config("to go on with a run, give --resume saved/models/.../latest.pth")
            self.source = str(path)
            return read_config(Path(path))
        self.source = str(self.resume)
        config = self.checkpoint.get("config")
        if isinstance(config, dict):
            return _plain(config, self.source)
        beside = self.resume.with_name("config.json")
        if beside.is_file():
            return read_config(beside)
        if path:
            return read_config(Path(path))
        raise ConfigError(f"--resume: {self.resume} holds no config and there is no config.json "
                          "beside it; give one with -c")

    def _need_config(self, reason: str) -> None:
        if not self.given("config"):
            files = [text for text in self.given("overrides") or [] if text.endswith(".json")]
            raise ConfigError(f"expected a config (-c {files[0] if files else 'config.json'}), got "
                              f"none; {reason}")

    def _apply(self, config: dict[str, Any]) -> None:
        """Declared options, then ``key=value``, then what switches set."""
        for option in self.options:
            value = self.given(_dest(option))
            if value is None:
                continue
            with self._noting(option.flags[0]):
                value = _converted(value, option)
                for target in _targets(option):
                    set_path(config, target_path(target), value)
        for text in self.given("overrides") or []:
            with self._noting(text):
                apply_override(config, text, list(DEFAULTS))
        if self.given("init_from"):
            config["init_from"] = self.given("init_from")
        if (self.given("overfit") or 0) > 0 and isinstance(config.get("trainer"), dict):
            config["trainer"]["overfit_batches"] = self.given("overfit")
        device = self.given("device")
        if device in ("cpu", "mps"):
            config["n_gpu"] = 0 if device == "cpu" else 1
        elif device is not None and config.get("n_gpu") in (0, None):
            config["n_gpu"] = 1

    def _where_runs_are(self) -> tuple[Path, str | None]:
        """The folder that runs write to, and this run's name if it is known."""
        config = read_config(Path(self.given("config"))) if self.given("config") else {}
        for text in self.given("overrides") or []:
            if text.startswith(("name=", "trainer.save_dir=")):
                apply_override(config, text, list(DEFAULTS))
        trainer = config.get("trainer")
        folder = trainer.get("save_dir") if isinstance(trainer, dict) else None
        name = config.get("name", DEFAULTS["name"] if self.given("config") else None)
        is_name = isinstance(name, str) and re.match(FILE_NAME, name)
        return (Path(folder if isinstance(folder, str) else DEFAULTS["trainer.save_dir"]),
                name if is_name else None)


def add_options(parser: argparse.ArgumentParser, options: Sequence[Any]) -> None:
    """Declares the options, each with its target and the config's value, and the overrides."""
    config = _peek_config()
    for option in options:
        extra = {key: value for key in ("help", "default", "action", "nargs", "metavar")
                 if (value := getattr(option, key, None)) is not None}
        if getattr(option, "choices", None):
            extra.setdefault("metavar", "{" + ",".join(map(str, option.choices)) + "}")
        targets = [".".join(target_path(target)) for target in _targets(option)]
        now: Any = config
        for key in targets[0].split("."):
            now = now.get(key) if isinstance(now, dict) else None
        extra["help"] = f"{extra.get('help', 'sets')} {', '.join(targets)}".strip() + (
            "" if now is None else f" (config: {now})").replace("%", "%%")
        parser.add_argument(*option.flags, dest=_dest(option), **extra)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=(
        "any key of the config: trainer.epochs=5; +key.path=value adds one, ~key.path removes one"))


def parse_options(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Problems]:
    """What was given, with the mistakes in it, which are told together with the config's.

    Raises:
        ConfigError: a mistake that leaves open what the rest means.
    """
    parser.exit_on_error = False
    problems: Problems = {}
    arguments = sys.argv[1:]
    while True:
        try:
            namespace, unknown = parser.parse_known_intermixed_args(arguments)
            break
        except argparse.ArgumentError as error:
            flags = (error.argument_name or "").split("/")
            others = _without(arguments, flags)
            if others == arguments:
                raise ConfigError(str(error)) from error
            problems[flags[-1]] = error.message
            arguments = others
    flags = re.findall(r"(?<!\S)--?[\w-]+", parser.format_help())
    for text in unknown:
        if text.startswith("-"):
            flag = text.partition("=")[0]
            problems[flag] = f"unknown option{suggestion(flag, flags)}"
    return namespace, problems


def target_path(target: str | Sequence[str]) -> tuple[str, ...]:
    """``"optimizer;args;lr"`` or a sequence of keys."""
    return tuple(target.split(";")) if isinstance(target, str) else tuple(target)


def _converted(value: Any, option: Any) -> Any:
    """An option's value in its type, each of several with ``nargs``."""
    if isinstance(value, list):
        return [_converted(item, option) for item in value]
    if isinstance(value, str) and option.type is not None:
        try:
            value = option.type(value)
        except (TypeError, ValueError, argparse.ArgumentTypeError) as error:
            kind = getattr(option.type, "__name__", str(option.type))
            raise ConfigError(f"expected a value of type {kind}, got {value!r}") from error
    choices = getattr(option, "choices", None)
    if choices and value not in choices:
        raise ConfigError(f"expected one of {', '.join(map(str, choices))}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"expected a finite number, got {value}")
    return value


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
        text = ""
        for part in json.JSONEncoder().iterencode(config):  # a small file may stand for far more
            text += part
            if len(text) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES >> 20} MiB")
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: its config is not plain JSON ({error}); give one with -c and "
                          "take the weights by --init-from") from error


def _without(arguments: list[str], flags: list[str]) -> list[str]:
    """The arguments but for an option and its value."""
    others: list[str] = []
    is_value = False
    for text in arguments:
        if text.partition("=")[0] in flags:
            is_value = "=" not in text
        elif is_value and not text.startswith("-"):
            is_value = False
        else:
            others.append(text)
    return others


def _peek_config() -> dict[str, Any]:
    """The config of the command line, for the help; nothing if it cannot be read yet."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    peek.add_argument("-c", "--config")
    try:
        given, _ = peek.parse_known_args(sys.argv[1:])
        return read_config(Path(given.config or "config.json"))
    except (ConfigError, argparse.ArgumentError):
        return {}
