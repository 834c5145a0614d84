"""The command line and a JSON file become one checked config."""

import argparse
import atexit
import copy
import functools
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from logger import setup_logging
from logger.logger import LEVELS, set_console_level
from utils.config.building import built_arguments, section_at, target_of
from utils.config.check import check_config, run_settings, trainer_settings
from utils.config.command_line import CommandLine, add_options, parse_options, target_path
from utils.config.merging import differences, set_path
from utils.config.names import Modules, check_built
from utils.config.settings import Problems, RunConfig, TrainerConfig
from utils.config.type_and_args import metric_name, refusals_told, value_at
from utils.devices.processes import is_main_process
from utils.errors import ConfigError
from utils.runs.folder import RunFolder


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
        command: what was asked for on the command line.

    Attributes:
        config: the plain nested dict with all defaults; ``config["key"]`` is live.
        resume: path of the checkpoint, or None.
        folder: of the run.
        is_debug, is_dry_run: whether these were asked for.

    Raises:
        ConfigError: a ValueError that lists all problems.
    """

    log_levels = LEVELS

    def __init__(self, config: dict[str, Any], resume: str | Path | None = None,
                 modification: dict[Any, Any] | None = None, run_id: str | None = None, *,
                 new_run: bool = False, modules: dict[str, Modules] | None = None,
                 command: CommandLine | None = None) -> None:
        self.config = copy.deepcopy(config)
        for target, value in (modification or {}).items():
            if value is not None:
                set_path(self.config, target_path(target), value)
        self.modules = modules or {}
        self.resume = None if resume is None else Path(resume)
        self._checkpoint = command.checkpoint if command else None
        self._excused = check_config(
            self.config, self.modules, problems=command.problems if command else {},
            source=command.source if command else "config")
        set_console_level(self.trainer.verbosity)
        self.is_dry_run = self.is_debug = False
        self.device: str | None = None  # that --device asks for
        if command is not None:
            self._set_switches(command)
        self.folder = self._make_run_folder(run_id, new_run, command)

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
        setup_logging()
        options = list(options)
        parser = args if isinstance(args, argparse.ArgumentParser) else None
        problems: Problems = {}
        try:
            if isinstance(args, argparse.ArgumentParser):
                add_options(args, options)
                args, problems = parse_options(args)
            command = CommandLine(args, options, problems=problems, best_first=best_first)
            config = cls(command.config, command.resume, run_id=command.given("run_id"),
                         new_run=bool(command.given("new_run")), modules=modules, command=command)
        except (ConfigError, RecursionError) as error:
            if parser is None:
                raise
            text = error if isinstance(error, ConfigError) else "the config is nested too deeply"
            parser.exit(2, f"{parser.prog}: error: {text}\n")
        if changes := differences(command.before, command.config):
            logging.getLogger("config").info("changes to %s:\n%s", command.source,
                                             "\n".join(f"  {line}" for line in changes))
        return config

    def init_obj(self, name: str, module: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Builds ``module.<type>(*args, **config args, **kwargs)`` of the section ``name``.

        Args:
            name: of the section, or its path, like ``"optimizer.generator"``.
            module: anything with attributes; default the one of ``modules``. With that one,
                arguments that are ``{"type", "args"}`` themselves are built first.
            kwargs: must not repeat an argument of the config.

        Raises:
            ConfigError: no such section or name, or a repeated argument.
        """
        build = self.init_ftn(name, module, *args, **kwargs)
        section = name.split(".")[0]
        if section not in self.modules:
            return build()
        with refusals_told(name, section_at(self.config, name), build.func):
            built = build()
        check_built(built, section, name)
        return built

    initialize = init_obj  # older name

    def init_ftn(self, name: str, module: Any = None, *args: Any,
                 **kwargs: Any) -> "functools.partial[Any]":
        """Like ``init_obj``, but returns the call as a partial function."""
        section = section_at(self.config, name)
        config_args = dict(section.get("args") or {})
        repeated = sorted(config_args.keys() & kwargs.keys())
        if repeated:
            raise ConfigError(f"{name}.args: {', '.join(repeated)} would overwrite the config's; "
                              f"change config[{name!r}]['args'] instead")
        modules = module or self._modules_of(name)
        if module is None:
            config_args = built_arguments(config_args, f"{name}.args", modules, kwargs)
        target = target_of(section, name, modules)
        return functools.partial(target, *args, **config_args, **kwargs)

    def init_functions(self, name: str, module: Any = None) -> list[Callable[..., Any]]:
        """The losses, metrics or trackers that a section names: functions as they are, or with
        their arguments bound; classes as objects. Each has a ``__name__``."""
        section = value_at(self.config, name) if "." in name else self[name]
        functions: list[Any] = []
        for item in section if isinstance(section, list) else [section] if section else []:
            part: dict[str, Any] = {"type": item} if isinstance(item, str) else item
            modules = module or self._modules_of(name)
            target = target_of(part, name, modules)
            args = part.get("args") or {}
            if module is None:
                args = built_arguments(args, f"{name}.args", modules)
            function: Any = target
            if isinstance(target, type):
                with refusals_told(name, part, target):
                    function = target(**args)
            elif "classes" in part:
                raise ConfigError(f"{name}: classes name the entries of a metric of the whole set; "
                                  f"{part['type']} is a function and gives one mean")
            elif args or "name" in part:
                function = functools.partial(target, **args)
            if function is not target:
                function.__name__ = metric_name(part)
            if "classes" in part:
                function.entry_names = part["classes"]
            functions.append(function)
        return functions

    def get_logger(self, name: str, verbosity: int = 2) -> logging.Logger:
        """A logger of which the console shows warnings (0), each epoch (1), or batches too (2)."""
        set_console_level(verbosity, name)
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG)
        return logger

    @property
    def run(self) -> RunConfig:
        """The typed settings at the top of the config, as they are now."""
        return run_settings(self.config, self._excused)

    @property
    def trainer(self) -> TrainerConfig:
        """The typed settings of the section ``trainer``, as they are now."""
        return trainer_settings(self.config, self._excused)

    @property
    def save_dir(self) -> Path:
        """Folder of the run's checkpoints; made, with the log folder, on first use."""
        self.make_folder()
        return self.folder.save_dir

    @property
    def log_dir(self) -> Path:
        """Folder of the run's log, TensorBoard events and history; made on first use."""
        self.make_folder()
        return self.folder.log_dir

    def make_folder(self) -> None:
        """Makes the run's folders, unless they are there, and lets the log go to its file."""
        if not self.folder.is_made:
            self.folder.make()
            if not is_main_process():
                return
            if not self.folder.goes_on:
                self.folder.record(self.config)
            setup_logging(self.folder.log_dir)

    @property
    def checkpoint(self) -> dict[str, Any] | None:
        """The content of ``resume``, until the trainer has taken it."""
        return self._checkpoint

    def take_checkpoint(self, path: str | Path) -> dict[str, Any] | None:
        """The content of the checkpoint ``resume``, if it was read; it is not kept here."""
        if self.resume is None or Path(path) != self.resume:
            return None
        content, self._checkpoint = self._checkpoint, None
        return content

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

    # what classic projects read under these names
    _config = property(lambda self: self.config)
    _save_dir = property(lambda self: self.save_dir)
    _log_dir = property(lambda self: self.log_dir)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_checkpoint": None}  # projects keep configs in their checkpoints

    def _modules_of(self, name: str) -> Modules:
        section = name if name in self.modules else name.split(".")[0]
        if section not in self.modules:
            raise ConfigError(f"{section}: its names are looked up in no module; give one")
        return self.modules[section]

    def _make_run_folder(self, run_id: str | None, new_run: bool,
                         command: CommandLine | None) -> RunFolder:
        root = Path(self.trainer.save_dir)
        if self.is_debug:
            temporary = tempfile.mkdtemp(prefix="debug-run-")
            atexit.register(shutil.rmtree, temporary, ignore_errors=True)
            return RunFolder(Path(temporary), self.run.name)
        if command is not None and command.given("resume") == "auto":
            return RunFolder(root, self.run.name, run_id, resume=self.resume,
                             restart=command.restart)
        goes_on = self.resume is not None and run_id is None and not new_run
        folder = RunFolder(root, self.run.name, run_id, resume=self.resume if goes_on else None)
        before = command.before.get("trainer") if command else None
        if folder.goes_on and isinstance(before, dict) and (
                before.get("save_dir", self.trainer.save_dir) != self.trainer.save_dir):
            raise ConfigError(f"trainer.save_dir: {self.trainer.save_dir}: a run that goes on "
                              f"writes to its own folder, {folder.save_dir}; to write elsewhere, "
                              "add --new-run")
        return folder

    def _set_switches(self, command: CommandLine) -> None:
        self.is_debug = bool(command.given("debug"))
        self.is_dry_run = bool(command.given("dry_run"))
        self.device = command.given("device")
        if self.is_debug:  # one short epoch, from the weights of a checkpoint if one is given
            self.config["trainer"].update(epochs=1, len_epoch=None, save_steps=None)
            if self.resume is not None:
                self.config["init_from"], self.resume = str(self.resume), None
