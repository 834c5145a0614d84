"""Parts with state: collected into a checkpoint and restored from it, strictly."""

from typing import Any, Protocol, runtime_checkable

from utils.errors import CheckpointError


@runtime_checkable
class Stateful(Protocol):
    """What changes during a run and matters after a restart."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Parts:
    """Several parts as one: a dict (or list) of optimizers, of schedulers, ..."""

    def __init__(self, parts: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> None:
        items = parts.items() if isinstance(parts, dict) else enumerate(parts)
        self.parts = {str(key): part for key, part in items if isinstance(part, Stateful)}

    def state_dict(self) -> dict[str, Any]:
        return collect(self.parts)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        restore(self.parts, state)


def as_part(thing: Any) -> Any:
    """A part for one stateful thing or a dict or list of them; None for anything else."""
    if isinstance(thing, (dict, list, tuple)):
        return Parts(thing)
    return thing if isinstance(thing, Stateful) else None


def collect(parts: dict[str, Any]) -> dict[str, Any]:
    """The states of all parts that are there (None is not)."""
    return {name: part.state_dict() for name, part in parts.items() if part is not None}


def restore(parts: dict[str, Any], states: dict[str, Any]) -> None:
    """Gives each part its state, in the order of ``parts``.

    Raises:
        CheckpointError: parts without state or states without part; lists both, changes nothing.
    """
    present = {name: part for name, part in parts.items() if part is not None}
    missing = sorted(present.keys() - states.keys())
    unknown = sorted(states.keys() - present.keys())
    if missing or unknown:
        raise CheckpointError(
            "the checkpoint's parts are not those of this run: "
            f"missing in the checkpoint: {', '.join(missing) or 'none'}; "
            f"unknown to the run: {', '.join(unknown) or 'none'}")
    for name, part in present.items():
        part.load_state_dict(states[name])
