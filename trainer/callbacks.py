"""What is sent to TensorBoard once an epoch, or once a run, beside the numbers."""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from base.callback import Callback
from utils.batches import tensors_in
from utils.devices.parallel import layer_by_layer, unwrap_model
from utils.devices.processes import num_processes
from utils.devices.sharding import whole
from utils.rng import preserved

MAX_IMAGES = 32
HISTOGRAM_BINS = 64

logger = logging.getLogger(__name__)


class InputImages(Callback):
    """Shows the first input images of each epoch and validation, as the model gets them."""

    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        if batch_idx == 0 and (trainer.writer.enabled or trainer.trackers):
            images = first_images(batch)
            if images is not None:
                trainer.writer.add_images("input", images)
                trainer.trackers.images(f"input/{trainer.writer.mode}", images,
                                        trainer.counters.step)

    on_valid_batch_end = on_step_end


class ParameterHistograms(Callback):
    """Shows how the values of each parameter are spread."""

    adds_to_log = False

    def on_epoch_end(self, trainer: Any, epoch: int, log: dict[str, Any]) -> None:
        if not trainer.settings.tensorboard:
            return
        trainer.writer.step = trainer.counters.step
        for name, parameter in unwrap_model(trainer.model).named_parameters():
            values = whole(parameter.detach())  # by all processes, of which one writes
            if not trainer.writer.enabled:
                continue
            values = values.float().cpu()  # waits for the device
            finite = values[values.isfinite()]
            if len(finite) < values.numel():
                logger.warning("epoch %d: %d values of %s are not finite; the histogram leaves "
                               "them out", epoch, values.numel() - len(finite), name)
            if len(finite):
                trainer.writer.add_histogram(name, finite, bins=HISTOGRAM_BINS)


class ModelGraph(Callback):
    """Shows the graph of the model once, as the first batch that is trained on goes through it.

    A copy of the model is traced, in eval mode: the one that is trained stays as it is.
    """

    def __init__(self) -> None:
        self._is_done = False
        self._inputs: Any = None  # that the model was called with

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        if self._is_done or not trainer.writer.enabled or trainer.counters.step:
            return  # a run that goes on has one
        if num_processes() > 1:  # this one alone may not call a model that they share
            logger.warning("trainer.log_graph: several processes train, there is no graph")
            self._is_done = True
            return

        def keep(_: Any, inputs: Any) -> None:
            self._inputs = inputs
            handle.remove()

        handle = trainer.model.register_forward_pre_hook(keep)

    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        if self._is_done or self._inputs is None:
            return
        self._is_done, inputs, self._inputs = True, self._inputs, None
        try:
            with preserved(), torch.no_grad(), layer_by_layer(), _silence():
                model = copy.deepcopy(unwrap_model(trainer.model)).eval()
                # a copy, for a model may change them
                trainer.writer.add_graph(model, copy.deepcopy(inputs), use_strict_trace=False)
        except Exception as error:  # of the model, of its copy or of the tracing
            cause = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            logger.warning("trainer.log_graph: there is no graph, for the model cannot be traced "
                           "(%s)", cause)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """What is printed, and warned of, is not shown: the tracing says its errors twice."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def first_images(batch: Any) -> Any:
    """The first images of a batch, each stretched to the full range of brightness.

    Args:
        batch: of it, the first (n, 1 or 3, height, width) is taken for images.

    Returns:
        (n, 1 or 3, height, width) float32 in 0 to 1 on the CPU, or None where there are none.
    """
    data = next((tensor for tensor in tensors_in(batch)
                 if tensor.ndim == 4 and tensor.shape[1] in (1, 3)), None)
    if data is None:
        return None
    images = data[:MAX_IMAGES].detach().float().cpu()  # waits for the device
    low = images.amin(dim=(1, 2, 3), keepdim=True)
    high = images.amax(dim=(1, 2, 3), keepdim=True)
    return ((images - low) / (high - low).clamp_min(1e-8)).nan_to_num()
