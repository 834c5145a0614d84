import io
import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassF1Score

from model.metric import accuracy
from utils.errors import ConfigError
from utils.metric_tracker import MetricTracker, make_tracker, metric_name

OUTPUT = torch.randn(129, 4, generator=torch.Generator().manual_seed(1))
TARGET = torch.randint(0, 4, (129,), generator=torch.Generator().manual_seed(2))


class OnDevice(torch.Tensor):
    """A tensor that lets nobody wait for its value."""

    is_cpu = False

    def item(self):
        raise AssertionError("waits for the device")

    __float__ = __bool__ = __int__ = tolist = cpu = numpy = item


def tracked(metrics, batch_size=129):
    tracker = make_tracker(metrics, "cpu")
    for output, target in zip(OUTPUT.split(batch_size), TARGET.split(batch_size), strict=True):
        tracker.update_batch(output, target, torch.tensor(0.5), len(target))
    return tracker


@pytest.mark.parametrize("batch_size", [1, 64, 128, 129])
def test_accuracy_does_not_depend_on_the_batch_size(batch_size):
    """D9"""
    right = int((OUTPUT.argmax(1) == TARGET).sum())
    # float32 means of each batch are exact to 1e-7
    assert tracked([accuracy], batch_size).avg("accuracy") == pytest.approx(right / 129, abs=1e-7)


@pytest.mark.parametrize("batch_size", [1, 50, 129])
def test_metric_of_torchmetrics_is_of_the_whole_set(batch_size):
    """D10"""
    metric = MulticlassF1Score(num_classes=4)
    result = tracked([metric], batch_size).result()
    assert result["MulticlassF1Score"] == float(metric(OUTPUT, TARGET))


def test_metric_with_a_value_for_each_class_gets_a_name_for_each():
    """D10"""
    result = tracked([MulticlassF1Score(num_classes=4, average=None)]).result()
    assert list(result) == ["loss", *(f"MulticlassF1Score_{i}" for i in range(4))]


def test_confusion_matrix_has_an_entry_for_each_pair():
    """D10"""
    result = tracked([MulticlassConfusionMatrix(num_classes=4)], 50).result()
    assert sum(result[f"MulticlassConfusionMatrix_{i}"] for i in range(16)) == 129


def test_tracker_has_metrics_of_its_own():
    metric = MulticlassF1Score(num_classes=4)
    tracked([metric])
    assert not metric.update_called


def test_no_autograd_graph_is_kept():
    """D11"""
    weight = torch.ones((), requires_grad=True)
    tracker = MetricTracker("loss")
    for _ in range(2):
        tracker.update("loss", weight * 2)
        assert not getattr(tracker._totals["loss"], "requires_grad", False)


def test_total_does_not_share_memory_with_the_value():
    value = torch.tensor(1.0, dtype=torch.float64)
    tracker = MetricTracker("loss")
    tracker.update("loss", value)
    tracker.update("loss", value)
    assert float(value) == 1.0


@pytest.mark.parametrize("n", [1, 3])
def test_update_does_not_wait_for_the_device(n):
    """D50"""
    tracker = MetricTracker("loss", functions={"double": lambda output, target: output * 2})
    value = torch.tensor(2.0).as_subclass(OnDevice)
    for _ in range(2):
        tracker.update("loss", value, n)
        tracker.update_batch(value, None, value, n)


@pytest.mark.parametrize("value", [2.0, 2, np.float64(2), np.float32(2), torch.tensor(2.0)])
def test_numbers_of_every_kind_can_be_saved_safely(value):
    tracker = MetricTracker("loss")
    tracker.update("loss", value, np.int64(3))
    tracker.update("loss", value, np.int64(1))
    file = io.BytesIO()
    torch.save(tracker.state_dict(), file)
    file.seek(0)
    again = MetricTracker("loss")
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.avg("loss") == 2.0


def test_kinds_may_be_mixed():
    tracker = MetricTracker()
    for value in (torch.tensor(1.0), 2.0, np.float32(3), torch.tensor(4)):
        tracker.update("x", value)
    assert tracker.avg("x") == 2.5


def test_key_that_was_never_updated_is_absent():
    """D17"""
    tracker = MetricTracker("loss", "accuracy")
    tracker.update("loss", 1.0)
    assert tracker.result() == {"loss": 1.0}
    assert math.isnan(tracker.avg("accuracy")) and math.isnan(tracker.avg("unknown"))


def test_whole_set_metric_that_was_never_updated_is_absent():
    """D17"""
    assert make_tracker([MulticlassF1Score(num_classes=4)], "cpu").result() == {}


def test_result_is_a_fresh_dict_in_the_order_of_keys():
    tracker = MetricTracker("b", "a")
    for key in ("late", "a", "b"):
        tracker.update(key, 1.0)
    assert list(tracker.result()) == ["b", "a", "late"]
    assert tracker.result() is not tracker.result()


def test_reset_forgets_everything():
    tracker = tracked([accuracy, MulticlassF1Score(num_classes=4)])
    tracker.reset()
    assert tracker.result() == {}


def test_writer_gets_each_value():
    class Writer:
        calls = []  # noqa: RUF012

        def add_scalar(self, key, value):
            self.calls.append((key, value))

    tracker = MetricTracker("loss", writer=Writer(), functions={"accuracy": lambda *_: 0.25})
    tracker.update("loss", 1.5, 2)
    tracker.update_batch(torch.zeros(2, 3), torch.zeros(2), torch.tensor(0.5), 2)
    assert Writer.calls == [("loss", 1.5), ("loss", 0.5), ("accuracy", 0.25)]


def test_long_sums_of_float32_lose_no_digits():
    tracker = MetricTracker()
    for value in (torch.tensor(2.0**24), *[torch.tensor(1.0)] * 10):
        tracker.update("x", value)
    assert float(tracker._totals["x"]) == 2.0**24 + 10


@pytest.mark.parametrize(("value", "answer"), [(1.0, True), (math.nan, False), (math.inf, False)])
def test_one_value_that_is_not_finite_shows(value, answer):
    """D18"""
    tracker = MetricTracker()
    for item in (1.0, value, 1.0):
        tracker.update("loss", torch.tensor(item))
    assert tracker.is_finite("loss") is answer and tracker.is_finite("unknown")


def test_a_loss_that_is_not_finite_shows_at_once_in_a_batch_that_waits():
    tracker = MetricTracker("loss", functions={"accuracy": accuracy})
    batch = torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64)
    tracker.update_batch(*batch, torch.tensor(1.0), 2)
    assert tracker.is_finite("loss")
    tracker.update_batch(*batch, torch.tensor(math.nan), 2)
    assert not tracker.is_finite("loss")


def test_stopped_and_restored_in_the_middle_gives_the_same_bits():
    metrics = [accuracy, MulticlassF1Score(num_classes=4)]
    whole = tracked(metrics, 43).result()
    tracker = make_tracker(metrics, "cpu")
    for start in range(0, 129, 43):
        batch = slice(start, start + 43)
        tracker.update_batch(OUTPUT[batch], TARGET[batch], torch.tensor(0.5), 43)
        restored = make_tracker(metrics, "cpu")
        restored.load_state_dict(tracker.state_dict())
        tracker = restored
    assert tracker.result() == whole


def test_restored_totals_follow_the_values_to_their_device():
    """D30"""
    before, after = MetricTracker(), MetricTracker()
    before.update("loss", torch.tensor(1.0))
    after.load_state_dict(before.state_dict())
    after.update("loss", torch.tensor(1.0, device="meta"))
    assert after._totals["loss"].device.type == "meta"


def test_restored_whole_set_metrics_are_on_their_device():
    """D30"""
    metric = MulticlassF1Score(num_classes=4)
    after = make_tracker([metric], "meta")
    after.load_state_dict(tracked([metric]).state_dict())
    assert after.whole_set["MulticlassF1Score"].tp.device.type == "meta"


def test_metrics_may_be_other_ones_after_a_resume():
    state = tracked([MulticlassF1Score(num_classes=4)]).state_dict()
    tracker = make_tracker([accuracy], "cpu")
    tracker.load_state_dict(state)
    assert tracker.result() == {"loss": 0.5}


def test_two_metrics_of_one_name_are_an_error():
    with pytest.raises(ConfigError, match="'accuracy' is the name of two"):
        make_tracker([accuracy, accuracy], "cpu")


def test_metrics_are_named_after_function_or_class():
    assert [metric_name(metric) for metric in (accuracy, MulticlassF1Score(num_classes=4))] == [
        "accuracy", "MulticlassF1Score"]
