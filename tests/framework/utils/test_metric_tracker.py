import io
import math
import random

import numpy as np
import pytest
import torch
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)
from torchmetrics.detection import IntersectionOverUnion
from torchmetrics.segmentation import MeanIoU
from torchmetrics.text import CharErrorRate

from tests.framework.toy.model.metric import accuracy
from utils.errors import RunError
from utils.metric_tracker import MetricTracker, make_tracker
from utils.rng import RandomState, equal_states, set_seed

OUTPUT = torch.randn(129, 4, generator=torch.Generator().manual_seed(1))
TARGET = torch.randint(0, 4, (129,), generator=torch.Generator().manual_seed(2))


class OnDevice(torch.Tensor):
    """A tensor that lets nobody wait for its value."""

    is_cpu = False

    def item(self):
        raise AssertionError("waits for the device")

    __float__ = __bool__ = __int__ = tolist = cpu = numpy = item


def random_accuracy(output, target):
    """Of a random half of the samples; which half, all three generators decide."""
    order = torch.randperm(len(output)).roll(random.randrange(9)).roll(np.random.randint(9))
    return accuracy(output[order[::2]], target[order[::2]])


def both():
    collection = MetricCollection([MulticlassPrecision(num_classes=4, average=None),
                                   MulticlassRecall(num_classes=4)])
    collection.__name__ = "both"
    return collection


def tracked(metrics, batch_size=129):
    tracker = make_tracker(metrics, "cpu")
    for output, target in zip(OUTPUT.split(batch_size), TARGET.split(batch_size), strict=True):
        tracker.update_batch(output, target, torch.tensor(0.5), len(target))
    return tracker


@pytest.mark.parametrize("batch_size", [1, 64, 128, 129])
def test_accuracy_does_not_depend_on_the_batch_size(batch_size):
    right = int((OUTPUT.argmax(1) == TARGET).sum())
    # float32 means of each batch are exact to 1e-7
    assert tracked([accuracy], batch_size).avg("accuracy") == pytest.approx(right / 129, abs=1e-7)


@pytest.mark.parametrize("batch_size", [1, 50, 129])
def test_metric_of_torchmetrics_is_of_the_whole_set(batch_size):
    metric = MulticlassF1Score(num_classes=4)
    result = tracked([metric], batch_size).result()
    assert result["MulticlassF1Score"] == float(metric(OUTPUT, TARGET))


def test_metric_with_a_value_for_each_class_gets_a_name_for_each():
    result = tracked([MulticlassF1Score(num_classes=4, average=None)]).result()
    assert list(result) == ["loss", *(f"MulticlassF1Score_{i}" for i in range(4))]
    assert all(type(value) is float for value in result.values())


def test_metric_with_several_names_gets_an_entry_for_each():
    assert list(tracked([both()], 50).result()) == [
        "loss", *(f"both_MulticlassPrecision_{i}" for i in range(4)), "both_MulticlassRecall"]


def test_confusion_matrix_is_one_entry_a_table():
    matrix = tracked([MulticlassConfusionMatrix(num_classes=4)], 50).result()[
        "MulticlassConfusionMatrix"]
    assert [len(row) for row in matrix] == [4] * 4 and sum(map(sum, matrix)) == 129


def test_tracker_has_metrics_of_its_own():
    metric = MulticlassF1Score(num_classes=4)
    tracked([metric])
    assert not metric.update_called


def test_no_autograd_graph_is_kept():
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


@pytest.mark.parametrize(("value", "described"), [
    ((0.5, 0.25), "a tuple"), (torch.zeros(3), r"a Tensor of shape \(3,\)"), (None, "a NoneType"),
    (np.zeros(2), r"a ndarray of shape \(2,\)"), ({"a": 1.0}, "a dict")])
def test_metric_that_returns_no_number_is_one_error_with_its_name(value, described):
    tracker = MetricTracker("loss", functions={"both": lambda *_: value})
    with pytest.raises(RunError, match=f"both: expected a number.*got {described}"):
        tracker.update_batch(OUTPUT, TARGET, 0.5, 129)


def test_whole_set_metric_that_returns_a_tuple_is_one_error_with_its_name():
    metric = MeanMetric()
    metric.compute = lambda: (0.5, 0.25)
    tracker = MetricTracker("loss", whole_set={"both": metric})
    tracker.update("loss", 1.0)
    with pytest.raises(RunError, match=r"both: expected a tensor, a number or a dict.*tuple"):
        tracker.result()


def test_key_that_was_never_updated_is_absent():
    tracker = MetricTracker("loss", "accuracy")
    tracker.update("loss", 1.0)
    assert tracker.result() == {"loss": 1.0}
    assert math.isnan(tracker.avg("accuracy")) and math.isnan(tracker.avg("unknown"))


def test_whole_set_metric_that_was_never_updated_is_absent():
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
    assert tracker.result() == {} and tracker.state_dict() == {} and not tracker.last


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


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("key", "answer"), [("loss", "loss"), ("critic_loss", "critic_loss"),
                                             ("accuracy", None)])
def test_one_loss_that_is_not_finite_shows(key, answer, value):
    tracker = MetricTracker("loss", "accuracy")
    for item in (1.0, value, 1.0):
        assert tracker.not_finite() is None or item == 1.0
        tracker.update(key, torch.tensor(item))
    assert tracker.not_finite() == answer


@pytest.mark.parametrize("changed", [0, 1])
def test_metric_is_evaluated_on_its_batch_before_anything_changes_it(changed):
    """Be it a buffer that the loader uses again, or an output that is a view of the weights."""
    batch = OUTPUT.clone(), TARGET.clone()
    before = float(accuracy(*batch))
    tracker = make_tracker([accuracy], "cpu")
    tracker.update_batch(*batch, torch.tensor(0.5), 129)
    batch[changed].copy_(batch[changed].roll(1, 0))
    assert tracker.result()["accuracy"] == before != float(accuracy(*batch))


def test_metric_that_draws_random_numbers_changes_no_stream_of_the_training():
    set_seed(5)
    before = RandomState().state_dict()
    tracked([random_accuracy], 43)
    after = RandomState().state_dict()
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"]["key"], after["numpy"]["key"])
    assert torch.equal(before["python"]["words"], after["python"]["words"])


class Reservoir:
    """Keeps some of the batches: from the second on it draws which."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.kept = []

    def update(self, output, target):
        if self.kept:
            torch.rand(3)
        self.kept.append(output.mean())

    def compute(self):
        return torch.stack(self.kept).mean()


def test_metric_with_a_memory_may_begin_to_draw_at_any_batch():
    set_seed(5)
    before = RandomState().state_dict()["torch"]
    assert len(tracked([Reservoir()], 43).whole_set["Reservoir"].kept) > 1
    assert torch.equal(RandomState().state_dict()["torch"], before)


def test_metric_that_draws_random_numbers_says_the_same_of_the_same_data():
    set_seed(5)
    first = tracked([random_accuracy], 43)
    set_seed(6)
    assert tracked([random_accuracy], 43).result() == first.result()


def test_metric_may_work_in_place():
    def softened(output, target):
        return output.exp_().clamp_(max=1).mean()

    tracker = make_tracker([softened], "cpu")
    tracker.update_batch(OUTPUT.clone().requires_grad_(), TARGET, torch.tensor(0.5), 129)
    assert 0 < tracker.avg("softened") < 1


def test_stopped_and_restored_in_the_middle_gives_the_same_bits():
    metrics = [accuracy, random_accuracy, MulticlassF1Score(num_classes=4), both()]
    whole = tracked(metrics, 13).result()
    tracker = make_tracker(metrics, "cpu")
    for number, batch in enumerate(zip(OUTPUT.split(13), TARGET.split(13), strict=True)):
        tracker.update_batch(*batch, torch.tensor(0.5), len(batch[1]))
        if number % 3 == 2:
            restored = make_tracker(metrics, "cpu")
            restored.load_state_dict(tracker.state_dict())
            tracker = restored
    assert tracker.result() == whole and tracker.last["loss"] == 0.5


def test_loss_that_was_not_finite_is_remembered_by_a_resumed_run():
    before, after = MetricTracker("loss"), MetricTracker("loss")
    before.update("loss", math.nan)
    after.load_state_dict(before.state_dict())
    assert after.not_finite() == "loss"


def test_restored_totals_follow_the_values_to_their_device():
    before, after = MetricTracker(), MetricTracker()
    before.update("loss", torch.tensor(1.0))
    after.load_state_dict(before.state_dict())
    after.update("loss", torch.tensor(1.0, device="meta"))
    assert after._totals["loss"].device.type == "meta"


def test_restored_whole_set_metrics_are_on_their_device():
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
    with pytest.raises(ValueError, match="'accuracy' is the name of two"):
        make_tracker([accuracy, accuracy], "cpu")


def test_mean_over_no_samples_counts_for_nothing():
    tracker = MetricTracker("loss")
    tracker.update("loss", 1.0, 2)
    tracker.update("loss", math.nan, 0)
    assert tracker.result() == {"loss": 1.0}


class Spread:
    """A metric of one's own: the range of what it saw."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.seen = []

    def update(self, output, target):
        self.seen.append(output.max())

    def compute(self):
        return max(self.seen) - min(self.seen)


def test_metric_of_ones_own_is_restored_in_the_middle():
    def tracker():
        return make_tracker([Spread()], "cpu")

    whole, before, after = tracker(), tracker(), tracker()
    for index, part in enumerate(OUTPUT.split(40)):
        whole.update_batch(part, None, 0.0, len(part))
        (before if index < 2 else after).update_batch(part, None, 0.0, len(part))
        if index == 1:
            after.load_state_dict(before.state_dict())
    assert after.result() == whole.result()
    assert not tracker().whole_set["Spread"].seen


def boxes(*corners):
    return [{"boxes": torch.tensor([box], dtype=torch.float32), "labels": torch.tensor([0]),
             "scores": torch.tensor([0.9])} for box in corners]


@pytest.mark.parametrize(("metric", "parts"), [
    (CharErrorRate(), [(["abc", "x"], ["abd", "x"]), (["hello"], ["hallo"])]),
    (MeanIoU(3, per_class=True, input_format="index"), [
        (torch.tensor([[[0, 1]]]), torch.tensor([[[0, 2]]])),
        (torch.tensor([[[1, 1]]]), torch.tensor([[[1, 2]]]))]),
    (IntersectionOverUnion(), [(boxes([0, 0, 2, 2]), boxes([0, 0, 2, 1])),
                               (boxes([1, 1, 3, 3]), boxes([1, 1, 3, 3]))])],
    ids=lambda value: type(value).__name__)
def test_text_segmentation_and_detection_are_of_the_whole_set_and_go_on(metric, parts):
    whole, before, after = (make_tracker([metric], "cpu") for _ in range(3))
    alone = metric.clone()
    for index, (output, target) in enumerate(parts):
        alone.update(output, target)
        for tracker in (whole, after if index else before):
            if index and tracker is after:
                after.load_state_dict(before.state_dict())
            tracker.update_batch(output, target, 0.5, len(target))
    expected = alone.compute()
    expected = expected["iou"] if isinstance(expected, dict) else expected
    found = [value for name, value in whole.result().items() if name != "loss"]
    assert found == expected.reshape(-1).tolist()
    assert after.result() == whole.result()


class Bootstrapped:
    """Draws wherever a metric of the whole set may, by all three generators."""

    def reset(self):
        self.offset, self.values = random.random(), []

    def update(self, output, target):
        self.values.append(float(accuracy(output, target)))

    def compute(self):
        draw = np.random.choice(self.values) + random.random() + torch.rand(()).item()
        return draw + self.offset


def test_draws_of_the_whole_set_change_no_training_and_are_the_same_each_time():
    set_seed(3)
    before = RandomState().state_dict()
    tracker = tracked([Bootstrapped()], 50)
    values = [tracker.result() for _ in range(2)]
    after = RandomState().state_dict()
    random.random()
    torch.rand(3)
    assert values[0] == values[1] == tracked([Bootstrapped()], 50).result()
    assert equal_states(before, after)
