"""The report of a classifier in TensorBoard."""

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import precision_score, recall_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from base.report.events import MOST_CURVES, write_events
from base.report.predictions import Predictions
from logger import TensorboardWriter

COUNT, CLASSES = 400, 3
GENERATOR = torch.Generator().manual_seed(1)
LOGITS = torch.randn(COUNT, CLASSES, generator=GENERATOR) * 2
TARGET = torch.randint(0, CLASSES, (COUNT,), generator=GENERATOR)


def found_of(output: Any, target: Any, **options: Any) -> Any:
    seen = Predictions(keep_scores=True, **options)
    seen.add(output, target)
    return seen.result()


def written(folder: Path, found: Any, names: list[str], name: str = "best-test") -> Any:
    writer = TensorboardWriter(folder, logging.getLogger("test"), True)
    writer.step = 7
    write_events(found, writer, name, names)
    writer.close()
    return EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0}).Reload()


def test_confusion_matrix_is_an_image(tmp_path: Path) -> None:
    events = written(tmp_path, found_of(LOGITS, TARGET), ["a", "b", "c"])
    image, = events.Images("best-test/confusion")
    pixels = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    assert image.step == 7 and pixels.shape[2] == 3 and len(np.unique(pixels)) > 10


@pytest.mark.parametrize("scale", [1, 1.009], ids=["exact", "rounded"])
def test_curve_of_each_class_has_its_precision_and_recall(tmp_path: Path, scale: float) -> None:
    """Also where a probability is above 1, as half precision rounds."""
    scores = LOGITS.softmax(dim=1)
    scores[:, 1] = torch.where(scores.argmax(1) == 1, 1.0, 0.0)
    scores[:, [0, 2]] *= (1 - scores[:, 1:2])
    scores[:, [0, 2]] += (1 - scores.sum(1, keepdim=True)) / 2
    found = found_of(scores * scale, TARGET)
    assert found.scores == "probabilities"
    events = written(tmp_path, found, ["a", "b", "c"])
    event, = events.Tensors("best-test/pr/1_b")
    positive, false, _, missed, precision, recall = tensor_util.make_ndarray(event.tensor_proto)
    predicted = scores[:, 1] > 0.5
    assert event.step == 7
    assert precision[64] == pytest.approx(precision_score(TARGET == 1, predicted))
    assert recall[64] == pytest.approx(recall_score(TARGET == 1, predicted))
    assert positive[0] + false[0] == COUNT and positive[64] + missed[64] == (TARGET == 1).sum()


def test_classes_of_one_name_have_a_curve_each(tmp_path: Path) -> None:
    events = written(tmp_path, found_of(LOGITS, TARGET), ["a", "a", "2"])
    assert events.Tags()["tensors"] == [f"best-test/pr/{name}" for name in ("0_a", "1_a", "2")]


def test_of_many_classes_the_worst_that_have_samples_have_curves(tmp_path: Path) -> None:
    target = torch.arange(30).repeat(10)
    scores = torch.nn.functional.one_hot(target, 40).float() * 5
    wrong = target >= 8
    scores[wrong] += torch.randn(int(wrong.sum()), 40, generator=GENERATOR) * 9
    events = written(tmp_path, found_of(scores, target), [str(number) for number in range(40)])
    shown = {int(tag.rpartition("/")[2]) for tag in events.Tags()["tensors"]}
    assert len(shown) == MOST_CURVES and shown <= set(range(8, 30))


def test_scores_that_are_too_many_leave_the_rest_of_the_report(tmp_path: Path) -> None:
    found = found_of(LOGITS, TARGET, max_entries=COUNT * 6)
    assert found.probabilities is None and len(found.confidence) == COUNT
    events = written(tmp_path, found, ["a", "b", "c"])
    assert events.Tags()["images"] == ["best-test/confusion"] and not events.Tags()["tensors"]


def test_writer_that_is_off_draws_nothing(monkeypatch: Any) -> None:
    monkeypatch.setattr("base.report.figures.confusion_figure", lambda *_: pytest.fail("drawn"))
    write_events(found_of(LOGITS, TARGET), TensorboardWriter(
        "absent", logging.getLogger("test"), False), "best-test", ["a", "b", "c"])
    assert not Path("absent").exists()
