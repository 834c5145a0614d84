"""The command line and a JSON file become one checked config."""

import argparse
import atexit
import contextlib
import copy
import functools
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from logger import setup_logging
from utils.command_line import CommandLine, add_options, target_path
from utils.config_check import (
    Modules,
    check_built,
    check_parts,
    check_typed,
    own_keys,
    refusal,
    resolve_name,
)
from utils.config_tree import differences, set_path
from utils.errors import ConfigError
from utils.run_folder import RunFolder
from utils.settings import NEWER_KEYS, RunConfig, TrainerConfig, shown

LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}


class ConfigParser:
    """A checked config, and the folders and names that follow from it.

    The run's folders appear when ``save_dir`` or ``log_dir`` is first asked for; until then
    nothing is written.

    Args:
        config: nested dict; copied.
        resume: checkpoint to go on with. One that lies in a run's folder goes on in that folder.
        modification: values to set, by path: ``{"optimizer;args;lr": 0.1}`` or tuples of keys.
        run_id: name of the run's folder; default a timestamp, "" none: the folder of ``name``.
        new_run: start a folder of its own although ``resume`` lies in one.
        modules: for each section that is built, the module (or modules) its names are in. With
            them the check is strict: misspelt keys, names and arguments are errors as well.

    Attributes:
        config: the plain nested dict, defaults of ``trainer`` filled in; ``config["key"]`` is live.
        run, trainer: its typed settings as they were at the start.
        resume: path of the checkpoint, or None.
        num_batches: take only so many batches of each loader (--debug, --overfit), or None.

    Raises:
        ConfigError: a ValueError that lists all problems.
    """

    def __init__(self, config: dict[str, Any], resume: str | Path | None = None,
                 modification: dict[Any, Any] | None = None, run_id: str | None = None, *,
                 new_run: bool = False, modules: dict[str, Modules] | None = None,
                 source: str = "config") -> None:
        self.config = copy.deepcopy(config)
        for target, value in (modification or {}).items():
            if value is not None:
                set_path(self.config, target_path(target), value)
        self.modules = modules or {}
        excused = self._check(source)
        trainer = self.config["trainer"]
        self.run = RunConfig.model_validate(
            {key: value for key, value in self.config.items() if key not in excused})
        older = {"save_freq": trainer["save_period"]} if "save_period" in trainer else {}
        self.trainer = TrainerConfig.model_validate(
            {key: value for key, value in (trainer | older).items()
             if f"trainer.{key}" not in excused})
        logger = self.get_logger("config", self.trainer.verbosity)
        if self.modules and (own := own_keys(self.config)):
            logger.debug("keys of your own, passed through: %s", ", ".join(own))
        for key in TrainerConfig.model_fields:
            if key != "save_freq" or "save_period" not in trainer:
                trainer.setdefault(key, getattr(self.trainer, key))
        self.resume = None if resume is None else Path(resume)
        self.num_batches: int | None = None
        self.is_dry_run = self.is_debug = self.is_overfit = False
        self._folder = RunFolder(Path(trainer["save_dir"]), self.run.name, run_id,
                                 resume=None if new_run else self.resume)

    @classmethod
    def from_args(cls, args: argparse.ArgumentParser | argparse.Namespace,
                  options: Iterable[Any] = (), modules: dict[str, Modules] | None = None,
                  *, best_first: bool = False) -> "ConfigParser":
        """Reads the command line, the files it names and its overrides.

        Args:
            args: a parser with any of ``--config``, ``--resume``, ``--device``, ``--run-id``,
                ``--new-run``, ``--init-from``, ``--debug``, ``--overfit``, ``--dry-run``; or what
                one has parsed.
            options: with ``flags``, ``type`` and ``target``, and what else ``add_argument`` takes.
            modules: as in the constructor.
            best_first: of a run folder take ``model_best.pth`` before ``latest.pth``.

        Raises:
            ConfigError: or, for a parser, SystemExit with status 2 after its message.
        """
        if isinstance(args, argparse.Namespace):
            return cls._from_namespace(args, list(options), modules, best_first)
        options = list(options)
        add_options(args, options)
        namespace = args.parse_intermixed_args()
        try:
            return cls._from_namespace(namespace, options, modules, best_first)
        except ConfigError as error:
            args.exit(2, f"{args.prog}: error: {error}\n")

    @classmethod
    def _from_namespace(cls, args: argparse.Namespace, options: list[Any],
                        modules: dict[str, Modules] | None, best_first: bool) -> "ConfigParser":
        setup_logging()
        command = CommandLine(args, options)
        config, before = command.config(best_first=best_first)
        parser = cls(config, command.resume, run_id=command.given("run_id"),
                     new_run=bool(command.given("new_run")), modules=modules, source=command.source)
        parser._set_switches(command)
        changes = differences(before, config)
        if changes:
            logging.getLogger("config").info("changes to %s:\n%s", command.source,
                                             "\n".join(f"  {line}" for line in changes))
        return parser

    def init_obj(self, name: str, module: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Builds ``module.<type>(*args, **config args, **kwargs)`` of the section ``name``.

        Args:
            module: anything with attributes; default the one of ``modules``.
            kwargs: must not repeat an argument of the config.

        Raises:
            ConfigError: no such section or name, or a repeated argument.
        """
        build = self.init_ftn(name, module, *args, **kwargs)
        if name not in self.modules:
            return build()
        with _refusals_told(name, self[name]):
            built = build()
        check_built(built, name)
        return built

    initialize = init_obj  # older name

    def init_ftn(self, name: str, module: Any = None, *args: Any,
                 **kwargs: Any) -> Callable[..., Any]:
        """Like ``init_obj``, but returns the call as a partial function."""
        section = self[name]
        if not isinstance(section, dict) or "type" not in section:
            raise ConfigError(f'{name}: expected {{"type": ..., "args": {{...}}}}, got {section!r}')
        return _bind(name, section, module or self.modules.get(name), args, kwargs)

    def init_functions(self, name: str, module: Any = None) -> list[Callable[..., Any]]:
        """The losses or metrics that a section names: functions as they are, or with their
        arguments bound; classes as objects. Each has a ``__name__``."""
        section = self[name]
        module = module or self.modules.get(name)
        functions = []
        if section is None:
            return []
        for item in section if isinstance(section, list) else [section]:
            item = {"type": item} if isinstance(item, str) else item
            target = resolve_name(item["type"], module, f"{name}.type")
            args = item.get("args") or {}
            if isinstance(target, type):
                with _refusals_told(name, item):
                    function = target(**args)
            elif args or "name" in item:
                function = functools.partial(target, **args)
            else:
                function = target
            if function is not target:
                function.__name__ = item.get("name", item["type"])
            functions.append(function)
        return functions

    def get_logger(self, name: str, verbosity: int = 2) -> logging.Logger:
        """A logger that shows warnings (0), each epoch (1), or batches as well (2)."""
        if verbosity not in LEVELS:
            raise ValueError(f"verbosity must be one of {list(LEVELS)}, got {verbosity!r}")
        logger = logging.getLogger(name)
        logger.setLevel(LEVELS[verbosity])
        return logger

    def get(self, key: str, default: Any = None) -> Any:
        return self.config.get(key, default)

    def keys(self) -> Iterable[str]:
        return self.config.keys()

    def items(self) -> Iterable[tuple[str, Any]]:
        return self.config.items()

    def __getitem__(self, key: str) -> Any:
        try:
            return self.config[key]
        except KeyError:
            raise ConfigError(f"the config has no section or key {key!r}; it has: "
                              f"{', '.join(self.config)}") from None

    def __setitem__(self, key: str, value: Any) -> None:
        self.config[key] = value

    def __contains__(self, key: object) -> bool:
        return key in self.config

    def __iter__(self) -> Iterator[str]:
        return iter(self.config)

    @property
    def save_dir(self) -> Path:
        """Folder of the run's checkpoints; made, with the log folder, on first use."""
        return self._made_folder().save_dir

    @property
    def log_dir(self) -> Path:
        """Folder of the run's log, TensorBoard events and history; made on first use."""
        return self._made_folder().log_dir

    def _made_folder(self) -> RunFolder:
        if not self._folder.is_made:
            kept = self._folder.make(self.config)
            setup_logging(self._folder.log_dir, kept_bytes=kept)
        return self._folder

    def _check(self, source: str) -> list[str]:
        """Raises all problems together; returns the paths of those that are only warned about."""
        logger = logging.getLogger("config")
        problems = check_typed(self.config, strict=bool(self.modules))
        # under a project's own train.py a key that is newer than it may be the project's
        excused = [] if self.modules else [
            text for text in problems if text.partition(":")[0] in NEWER_KEYS]
        problems = [text for text in problems if text not in excused]
        if isinstance(self.config, dict):
            problems += check_parts(self.config, self.modules)
        if problems:
            count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
            raise ConfigError("\n  ".join([f"{source}: {count}", *problems]))
        for text in excused:
            logger.warning("%s The framework takes its default: %s", text,
                           NEWER_KEYS[text.partition(":")[0]])
        return [text.partition(":")[0] for text in excused]

    def _set_switches(self, command: CommandLine) -> None:
        self.is_debug = bool(command.given("debug"))
        self.is_dry_run = bool(command.given("dry_run"))
        self.is_overfit = command.given("overfit") is not None
        self.num_batches = 2 if self.is_debug else command.given("overfit")
        if self.num_batches is not None and self.num_batches < 1:
            raise ConfigError(f"--overfit: expected a number of batches from 1 on, got "
                              f"{self.num_batches}")
        if self.is_debug:
            folder = tempfile.mkdtemp(prefix="debug-run-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            self._folder = RunFolder(Path(folder), self.run.name, None)
            self.trainer = self.trainer.model_copy(update={"epochs": 1})


@contextlib.contextmanager
def _refusals_told(name: str, section: dict[str, Any]) -> Iterator[None]:
    """Turns a value that torch or the framework refuses into a mistake in the config."""
    try:
        yield
    except (TypeError, ValueError) as error:
        text = refusal(error)
        if text is None or isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{name}.args: {section['type']} refuses "
                          f"{shown(section.get('args') or {})}: {text}") from error


def _bind(name: str, section: dict[str, Any], module: Any, args: tuple[Any, ...],
          kwargs: dict[str, Any]) -> Callable[..., Any]:
    """The call that builds ``section``."""
    config_args = dict(section.get("args") or {})
    repeated = sorted(config_args.keys() & kwargs.keys())
    if repeated:
        raise ConfigError(f"{name}.args: {', '.join(repeated)} would overwrite the config's; "
                          f"change config[{name!r}]['args'] instead")
    target = resolve_name(section["type"], module, f"{name}.type")
    return functools.partial(target, *args, **config_args, **kwargs)
