"""The check of a whole config: all mistakes at once, before anything is built."""

import logging
from typing import Any

from utils.config.misspellings import misspelt_keys, shown
from utils.config.settings import (
    CLASSIC,
    DEFAULTS,
    IN_TRAINER,
    OLDER_NAMES,
    TOP_LEVEL,
    Problems,
    RunConfig,
    TrainerConfig,
    check_typed,
    own_keys,
    with_current_names,
)
from utils.config.type_and_args import Modules, check_parts
from utils.errors import ConfigError

logger = logging.getLogger("config")


def check_config(config: Any, modules: dict[str, Modules], *, problems: Problems,
                 source: str) -> list[str]:
    """Checks a config, and fills in the defaults of all typed keys.

    Args:
        modules: with them names, arguments and misspelt keys are checked as well; without, the
            config is that of a project's own train.py, and is only warned of what looks wrong.
        problems: that the command line has.
        source: what the message calls the config.

    Returns:
        Paths of keys that have a meaning here but that the project uses for something else.

    Raises:
        ConfigError: lists all problems.
    """
    typed = check_typed(config)
    excused = [] if modules else [path for path in typed
                                  if path in DEFAULTS and path not in CLASSIC]
    found = problems | {path: text for path, text in typed.items() if path not in excused}
    misspelt = check_spelling(config)
    if modules and isinstance(config, dict):
        found |= misspelt | check_parts(config, modules)
    if found:
        count = f"{len(found)} problem{'s' if len(found) > 1 else ''}"
        raise ConfigError("\n  ".join([f"{source}: {count}", *(
            f"{path}: {text}" for path, text in found.items())]))
    for path in excused:
        logger.warning("%s: %s The framework takes its default: %s", path, typed[path],
                       shown(DEFAULTS[path]))
    for path, text in misspelt.items():
        logger.warning("%s: %s", path, text)
    for key in config["trainer"] if modules else ():
        like = next((known for known in IN_TRAINER if len(known) > 5 and key != known
                     and key.startswith(known) and key not in IN_TRAINER), None)
        if like is not None:
            logger.warning("trainer.%s is a key of your own; did you mean %r?", key, like)
    if modules and (own := own_keys(config)):
        logger.info("keys of your own, passed through: %s", ", ".join(own))
    for values, kind, prefix in ((config["trainer"], TrainerConfig, "trainer."),
                                 (config, RunConfig, "")):
        renamed = {new for old, new in OLDER_NAMES.items() if old in values}
        for key in kind.model_fields:
            if key not in renamed:
                values.setdefault(key, DEFAULTS[prefix + key])
    return excused


def check_spelling(config: Any) -> Problems:
    """Keys at the top and in ``trainer`` that look like a known one with a letter or two wrong."""
    trainer = config.get("trainer") if isinstance(config, dict) else None
    return {**(misspelt_keys(config, TOP_LEVEL) if isinstance(config, dict) else {}),
            **(misspelt_keys(trainer, IN_TRAINER, "trainer.") if isinstance(trainer, dict) else {})}


def run_settings(config: dict[str, Any], excused: list[str]) -> RunConfig:
    """The typed keys at the top of a config, as they are now."""
    return RunConfig.model_validate({key: value for key, value in config.items()
                                     if key not in excused})


def trainer_settings(config: dict[str, Any], excused: list[str]) -> TrainerConfig:
    """The typed keys of the section ``trainer``, as they are now."""
    section = with_current_names(config["trainer"])
    return TrainerConfig.model_validate({key: value for key, value in section.items()
                                         if f"trainer.{key}" not in excused})
