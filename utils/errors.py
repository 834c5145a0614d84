"""Errors that are told in one message, without a traceback, and the exit status of each."""

import contextlib
import sys
from collections.abc import Iterator


class ConfigError(ValueError):
    """A mistake in the command line or the config; scripts exit with status 2."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, written or used here; scripts exit with status 1."""


class RunError(RuntimeError):
    """The run cannot go on (data missing, loss not finite, folder in use); exit status 1."""


@contextlib.contextmanager
def clean_exit() -> Iterator[None]:
    """Turns the errors above into a message on standard error and an exit status."""
    try:
        yield
    except (ConfigError, CheckpointError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
