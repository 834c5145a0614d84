"""Random generators: seeding, saving, restoring, and streams that do not disturb each other."""

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def set_seed(seed: int) -> None:
    """Seeds python, numpy and torch (CPU and every device).

    Args:
        seed: 0 to 2**32 - 1; 0 is a seed like any other.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def mix_seed(*numbers: int) -> int:
    """One seed of 63 bits from several numbers, the same on every machine."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def set_deterministic(mode: bool | str) -> None:
    """Lets torch choose deterministic kernels: True, False, or "warn" where there is none."""
    if mode or torch.are_deterministic_algorithms_enabled():  # the call alone takes a second
        torch.use_deterministic_algorithms(bool(mode), warn_only=mode == "warn")
    torch.backends.cudnn.benchmark = False if mode else torch.backends.cudnn.benchmark


class RandomState:
    """The generators of this process as a part with state: plain types and tensors only."""

    def state_dict(self) -> dict[str, Any]:
        numpy_state = np.random.get_state(legacy=False)
        version, words, gauss = random.getstate()
        return _torch_state() | {
            "numpy": {
                "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
                "pos": int(numpy_state["state"]["pos"]),
                "has_gauss": int(numpy_state["has_gauss"]),
                "gauss": float(numpy_state["gauss"]),
            },
            "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _set_torch_state(state)
        python, numpy_state = state["python"], state["numpy"]
        key = numpy_state["key"].numpy().astype(np.uint32)
        np.random.set_state(
            ("MT19937", key, numpy_state["pos"], numpy_state["has_gauss"], numpy_state["gauss"]))
        random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Whatever is drawn inside leaves the random streams outside where they were."""
    generators = RandomState()
    state = generators.state_dict()
    try:
        yield
    finally:
        generators.load_state_dict(state)


@contextlib.contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Draws inside start from ``seed``, of ``set_seed``; the streams outside, of every device, stay
    where they were."""
    with preserved():
        set_seed(seed)
        yield


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The same for any seed and the streams of the CPU alone.

    Costs 100 us: stands around what takes longer, as reading a batch of samples does.
    """
    torch_state = torch.default_generator.get_state()
    numpy_state, python_state = np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(torch_state)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


class OwnStream:
    """Context whose draws come from a stream of its own; the one outside does not notice.

    All generators are swapped at the first use after a ``restart`` or a ``watch``, which takes
    0.4 ms; then those from which was drawn there: all, torch's, which takes 10 us, or none.

    Args:
        may_draw_later: swap torch's at each use, for what may draw without having done so at first.
    """

    def __init__(self, *, may_draw_later: bool = False) -> None:
        self._may_draw_later = may_draw_later
        self._generators = RandomState()
        self.restart()

    def restart(self) -> None:
        """The next use draws the same numbers as the first one did."""
        with isolated(0):
            self._own = self._generators.state_dict()
        self.watch()

    def watch(self) -> None:
        """What draws here from now on may be another thing than before."""
        self._swapped, self._is_first = "all", True

    def __enter__(self) -> None:
        if self._swapped == "none":
            return
        self._outside = self._state()
        self._set(self._own)

    def __exit__(self, *exception: object) -> None:
        if self._swapped == "none":
            return
        before, now = self._own, self._state()
        self._set(self._outside)
        self._own = before | now
        if self._is_first:
            drawn = {key for key in now if not equal_states(before.get(key), now[key])}
            self._is_first = False
            self._swapped = "all" if drawn & {"numpy", "python"} else (
                "torch" if drawn or self._may_draw_later else "none")

    def state_dict(self) -> dict[str, Any]:
        return {"own": self._own, "swapped": self._swapped, "is_first": self._is_first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._own = dict(state["own"])
        self._swapped, self._is_first = state.get("swapped", "all"), state["is_first"]

    def _state(self) -> dict[str, Any]:
        return self._generators.state_dict() if self._swapped == "all" else _torch_state()

    def _set(self, state: dict[str, Any]) -> None:
        if self._swapped == "all":
            self._generators.load_state_dict(state)
        else:
            _set_torch_state(state)


def _torch_state() -> dict[str, Any]:
    state: dict[str, Any] = {"torch": torch.default_generator.get_state()}
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def _set_torch_state(state: dict[str, Any]) -> None:
    torch.default_generator.set_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        for index, device_state in enumerate(state["cuda"][:torch.cuda.device_count()]):
            torch.cuda.set_rng_state(device_state, index)
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def equal_states(one: Any, other: Any) -> bool:
    """Whether two states are the same, of generators or whatever else has one. What cannot be
    compared, as sparse tensors, is not."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal_states, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal_states(one[key], other[key])
                                                  for key in one)
    try:
        return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
