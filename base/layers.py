"""What a model's layers are, give and cost: the table of --dry-run."""

import contextlib
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils.flop_counter import FlopCounterMode

from base.optimizers import each
from logger.console import WIDTH, shortened
from utils.batches import tensors_in
from utils.devices.parallel import layer_by_layer, unwrap_model
from utils.devices.sharding import class_name, is_sharded, part_of

MAX_ROWS = 40
# columns, those of texts at most; the name has what is left
TYPE_WIDTH, OUTPUT_WIDTH, NUMBER_WIDTH = 20, 21, 7
ADAM_BYTES = 8.0  # of state for a parameter: two numbers in float32


@dataclass
class Layer:
    """A module that called no other one in a forward.

    Attributes:
        output: shape of its last output. calls: how often it was called.
        flops: of all its calls.
    """

    name: str
    kind: str
    output: str = ""
    calls: int = 0
    parameters: int = 0
    flops: int = 0


@dataclass
class Call:
    """One that has not returned yet."""

    name: str
    flops: int  # counted before it
    is_leaf: bool = True


@dataclass
class Watch:
    """Notes what happens in the first forward of a model: its calls, and what they keep.

    Where a model is never called itself, only parts of it, each of their calls counts.

    Attributes:
        counter: of FLOPs, or None to count none.
        layers: by name, in the order of their first calls.
        flops: of the whole forward.
        kept: bytes of each storage that is kept for the backward, by its address.
    """

    model: nn.Module
    counter: FlopCounterMode | None
    layers: dict[str, Layer] = field(default_factory=dict)
    flops: int = 0
    kept: dict[int, int] = field(default_factory=dict)
    _is_done: bool = False
    _mode: bool | None = None  # training or not, of the first call
    # DataParallel calls copies of the model in threads
    _open: dict[int, list[Call]] = field(default_factory=lambda: defaultdict(list))

    def enter(self, name: str) -> None:
        """A module is called; the model's own name is empty."""
        calls = self._open[threading.get_ident()]
        if calls:
            calls[-1].is_leaf = False
        elif self._is_done or self._mode not in (None, self.model.training):
            return
        else:
            self._mode = self.model.training
            self._is_done = not name
        calls.append(Call(name, self._count()))

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """It returns."""
        calls = self._open[threading.get_ident()]
        if not any(call.name == name for call in calls):
            return
        call = calls.pop()
        while call.name != name:  # one inside it has failed
            call = calls.pop()
        flops = self._count() - call.flops
        if not calls:
            self.flops += flops
        if call.is_leaf:
            layer = self.layers.setdefault(name, Layer(name, class_name(module)))
            layer.output, layer.parameters = _shape(output), _count(module.parameters())
            layer.calls += 1
            layer.flops += flops

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """Something is kept for the backward."""
        if self._open[threading.get_ident()] and tensor.layout == torch.strided:
            storage = tensor.untyped_storage()
            self.kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def _count(self) -> int:
        return 0 if self.counter is None else int(self.counter.get_total_flops())


def layer_table(model: nn.Module, run_one_batch: Callable[[], None], *,
                state_bytes: float = ADAM_BYTES) -> str:
    """A table of a model's layers with what the model needs in training, at most 80 columns wide.

    A layer is a module that calls no other one. What is compiled runs as it is written, for it
    could not be looked into. Where FLOPs cannot be counted, there are none in the table; the batch
    is run a second time then.

    Memory is counted on the device of the model: weights, gradients, the optimizer's state, what
    the model's forward keeps for the backward. What the loss keeps, passing results, averaged
    weights and libraries' own needs are not counted, so it is the least. Elsewhere a layer may keep
    less: for each value of a dropout the CPU keeps four bytes, a GPU one.

    Args:
        model: wrapped or not.
        run_one_batch: calls it, perhaps through its wrapper; the first call counts, in it a
            multiplication and an addition are two FLOPs.
        state_bytes: that the optimizer keeps for each parameter that it trains.

    Raises:
        Exception: whatever ``run_one_batch`` raises.
    """
    model = unwrap_model(model)
    try:
        watch = _watched(model, run_one_batch, FlopCounterMode(display=False))
    except Exception as error:
        try:
            watch = _watched(model, run_one_batch, None)
        except Exception:
            raise error from None  # that of the first time is the plainer one
    return "\n".join([*_rows(watch), *_totals(watch, state_bytes)])


def state_bytes_of(optimizers: Any) -> float:
    """Bytes that optimizers keep for each number that they train, once they have made a step."""
    count = kept = 0
    for _, one in each(optimizers):
        count += sum(parameter.numel() for group in getattr(one, "param_groups", ())
                     for parameter in group["params"])
        kept += sum(tensor.nbytes for state in getattr(one, "state", {}).values()
                    for tensor in tensors_in(state) if isinstance(tensor, torch.Tensor))
    return kept / count if count else 0.0


def _watched(model: nn.Module, run_one_batch: Callable[[], None],
             counter: FlopCounterMode | None) -> Watch:
    watch = Watch(model, counter)
    with (_hooked(model, watch), layer_by_layer(), torch.compiler.set_stance("force_eager"),
          warnings.catch_warnings()):
        # the counter's own hooks; a wrapper with which they are called once more has no FLOPs
        warnings.filterwarnings("ignore", message="Using `torch.compile")
        if counter is None:
            run_one_batch()
            return watch
        with counter, torch.autograd.graph.saved_tensors_hooks(watch.keep, lambda kept: kept):
            run_one_batch()
    return watch


@contextlib.contextmanager
def _hooked(model: nn.Module, watch: Watch) -> Iterator[None]:
    handles: list[Any] = []
    try:
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # takes no hooks

            def enter(_: Any, inputs: Any, name: str = name) -> None:
                watch.enter(name)

            def leave(module: Any, inputs: Any, output: Any, name: str = name) -> None:
                watch.leave(name, module, output)

            handles += [module.register_forward_pre_hook(enter),
                        module.register_forward_hook(leave)]
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rows(watch: Watch) -> list[str]:
    layers = list(watch.layers.values())
    if not layers:
        return ["no layers: the model was not called, or nobody can look into it"]
    shown = _largest(layers)
    texts = [("layer", "type", "output", "params", "FLOPs"), *(
        (layer.name or "(the model)", layer.kind + (f" x{layer.calls}" if layer.calls > 1 else ""),
         layer.output, _number(layer.parameters),
         "-" if not watch.flops or _has_no_formula(layer) else _number(layer.flops))
        for layer in shown)]
    name, kind, output = (max(len(row[index]) for row in texts) for index in range(3))
    kind, output = min(kind, TYPE_WIDTH), min(output, OUTPUT_WIDTH)
    widths = [min(name, WIDTH - kind - output - 2 * NUMBER_WIDTH - 8), kind, output]
    lines = ["  ".join([*(f"{shortened(text, width):<{width}}" for text, width in
                          zip(row, widths, strict=False)),
                        *(f"{text:>{NUMBER_WIDTH}}" for text in row[3:])]) for row in texts]
    left = [layer for layer in layers if layer not in shown]
    if left:
        lines.append(f"... and {len(left)} smaller layers: "
                     f"{_number(sum(layer.parameters for layer in left))} parameters, "
                     f"{_number(sum(layer.flops for layer in left))} FLOPs")
    return lines


def _largest(layers: list[Layer]) -> list[Layer]:
    """At most ``MAX_ROWS``, by their share of all FLOPs or of all parameters; in their order."""
    flops = sum(layer.flops for layer in layers) or 1
    parameters = sum(layer.parameters for layer in layers) or 1
    by_size = sorted(layers, key=lambda layer: -max(layer.flops / flops,
                                                    layer.parameters / parameters))
    names = {layer.name for layer in by_size[:MAX_ROWS]}
    return [layer for layer in layers if layer.name in names]


def _totals(watch: Watch, state_bytes: float) -> list[str]:
    parameters = list(watch.model.parameters())
    trained = [one for one in parameters if one.requires_grad]
    lines = [f"parameters   {_number(_count(parameters))}, of which {_number(_count(trained))} are "
             "trained"]
    least = "at least " if any(map(_has_no_formula, watch.layers.values())) else ""
    outside = watch.flops - sum(layer.flops for layer in watch.layers.values())
    lines.append("FLOPs        not counted" if not watch.flops else (
        f"FLOPs        {least}{_number(watch.flops)} in one forward"
        + (f", {_number(outside)} of them outside of the layers" if outside > 0 else "")))
    mine, trained_here = map(part_of, parameters), [part_of(one) for one in trained]
    needs = {"weights": _bytes([*mine, *watch.model.buffers()]),
             "gradients": _bytes(trained_here), "optimizer": state_bytes * _count(trained_here)}
    if watch.counter is not None and not is_sharded(watch.model):  # else gathered weights are kept
        held = set() if not watch.kept else {
            one.untyped_storage().data_ptr() for one in parameters if not _is_empty(one)}
        needs["activations"] = sum(size for key, size in watch.kept.items() if key not in held)
    places = {one.device.type for one in parameters}
    where = f" on {'/'.join(sorted(places))}" if places else ""
    whole = f"at least {_size(sum(needs.values()))}{where} to train with this batch:"
    parts = [f"{name} {_size(size)}" for name, size in needs.items()]
    return [*lines, f"memory       {whole}", f"             {', '.join(parts[:2])},",
            f"             {', '.join(parts[2:])}"]


def _count(parameters: Iterable[torch.Tensor]) -> int:
    return sum(one.numel() for one in parameters if not _is_empty(one))


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(one.nbytes for one in tensors if not _is_empty(one))


def _is_empty(tensor: torch.Tensor) -> bool:
    """Of a layer that learns its shape at its first call, which did not come."""
    return isinstance(tensor, (UninitializedParameter, UninitializedBuffer))


def _shape(output: Any) -> str:
    """The shape of the first tensor, and how many more there are."""
    tensors = list(tensors_in(output))
    if not tensors:
        return type(output).__name__
    more = f" +{len(tensors) - 1}" if len(tensors) > 1 else ""
    return f"({', '.join(map(str, tensors[0].shape))}){more}"


def _has_no_formula(layer: Layer) -> bool:
    """Whether it computes with its weights what torch cannot count, as an LSTM does."""
    return bool(layer.parameters) and not layer.flops


def _number(count: float) -> str:
    """Three digits and a unit: 950, 12.3k, 4.56M."""
    return _with_unit(count, 1000, ("", "k", "M", "G", "T", "P"))


def _size(count: float) -> str:
    return _with_unit(count, 1024, (" B", " KiB", " MiB", " GiB", " TiB", " PiB"))


def _with_unit(count: float, base: int, units: tuple[str, ...]) -> str:
    unit = 0
    while count >= base - 0.5 and unit < len(units) - 1:
        count, unit = count / base, unit + 1
    text = f"{count:.0f}" if unit == 0 or count >= 100 else f"{count:.3g}"
    return f"{text}{units[unit]}"
