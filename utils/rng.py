"""Random generators: seeding, saving, restoring, and streams that do not disturb each other."""

import contextlib
import ctypes
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

_DATA_BITS = np.random.MT19937(0)  # what np.random draws from while a batch is fetched
_MT19937_BYTES = 625 * 4  # 624 words and the place in them


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
        state = {
            "torch": torch.get_rng_state(),
            "numpy": {
                "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
                "pos": int(numpy_state["state"]["pos"]),
                "has_gauss": int(numpy_state["has_gauss"]),
                "gauss": float(numpy_state["gauss"]),
            },
            "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state_all()
        if torch.backends.mps.is_available():
            state["mps"] = torch.mps.get_rng_state()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["torch"])
        python, numpy_state = state["python"], state["numpy"]
        key = numpy_state["key"].numpy().astype(np.uint32)
        np.random.set_state(
            ("MT19937", key, numpy_state["pos"], numpy_state["has_gauss"], numpy_state["gauss"]))
        random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
        if torch.cuda.is_available() and "cuda" in state:
            for index, device_state in enumerate(state["cuda"][:torch.cuda.device_count()]):
                torch.cuda.set_rng_state(device_state, index)
        if torch.backends.mps.is_available() and "mps" in state:
            torch.mps.set_rng_state(state["mps"])


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
def seeded(seed: int) -> Iterator[None]:
    """Draws inside start from ``seed``; the CPU streams outside stay where they were.

    Costs about 30 us, so that it can stand around every batch. numpy's state takes 100 us to read
    and write; its bit generator is swapped instead.
    """
    torch_state = torch.default_generator.get_state()
    python_state = random.getstate()
    numpy_bits = np.random.get_bit_generator()
    normal = _take_cached_normal(numpy_bits)
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    is_nested = numpy_bits is _DATA_BITS
    np.random.set_bit_generator(np.random.MT19937(0) if is_nested else _DATA_BITS)
    np.random.seed(seed & 0xFFFFFFFF)
    try:
        yield
    finally:
        torch.default_generator.set_state(torch_state)
        random.setstate(python_state)
        np.random.set_bit_generator(numpy_bits)
        if normal is not None:
            state = np.random.get_state(legacy=False)
            np.random.set_state(state | {"has_gauss": 1, "gauss": normal})


def _take_cached_normal(bits: Any) -> float | None:
    """The second of a pair of normals, which numpy keeps for its next draw, if it has one.

    It is not in the bit generator, and swapping that drops it. Reading numpy's whole state for it
    takes 50 us; a draw that leaves the generator's memory as it was gave the kept number.
    """
    if not isinstance(bits, np.random.MT19937):
        return None
    memory = (ctypes.c_char * _MT19937_BYTES).from_address(bits.ctypes.state_address)
    before = memory.raw
    normal = np.random.standard_normal()
    if memory.raw == before:
        return normal
    memory.raw = before
    return None
