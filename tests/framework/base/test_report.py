"""The report: what predictions are taken for, and its numbers against scikit-learn's."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, Subset, TensorDataset
from torchmetrics.functional.classification import multiclass_calibration_error

from base import BaseDataLoader, InMemoryDataset
from base.report import classification, regression, watched, write_report
from base.report.predictions import Predictions
from base.report.results import Classified
from base.report.samples import class_names, images_of, indices_of
from utils.metric_tracker import MetricTracker

COUNT, CLASSES = 300, 4
GENERATOR = torch.Generator().manual_seed(1)
LOGITS = torch.randn(COUNT, CLASSES, generator=GENERATOR) * 2
TARGET = torch.randint(0, CLASSES - 1, (COUNT,), generator=GENERATOR)  # none of the last class
NAMES = ["a", "b", "c", "d"]


def collected(output: Any, target: Any, **options: Any) -> Any:
    """In batches of 64."""
    seen = Predictions(**options)
    for start in range(0, len(output), 64):
        seen.add(output[start:start + 64], target[start:start + 64])
    return seen.result()


def why_not(output: Any, target: Any, **options: Any) -> str | None:
    seen = seen_of(output, target, **options)
    assert seen.result() is None
    return seen.why_not


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def report(seen: Predictions, loader: Any, folder: Path, **options: Any) -> dict[str, Any]:
    write_report(seen, loader, folder=folder, about={"samples": seen.num_samples}, **options)
    return json.loads((folder / "report.json").read_text())


def seen_of(output: Any, target: Any, **options: Any) -> Predictions:
    seen = Predictions(**options)
    seen.add(output, target)
    return seen


def test_scores_of_classes_are_those_of_scikit_learn() -> None:
    values = classification.summary(collected(LOGITS, TARGET), NAMES)
    guess = LOGITS.argmax(1)
    each = metrics.precision_recall_fscore_support(TARGET, guess, labels=range(CLASSES),
                                                   zero_division=0)
    for name, expected in zip(("precision", "recall", "f1", "support"), each, strict=True):
        assert [row[name] for row in values["classes"]] == pytest.approx(expected, abs=1e-6)
    assert values["accuracy"] == pytest.approx(metrics.accuracy_score(TARGET, guess))
    assert values["mean_f1"] == pytest.approx(metrics.f1_score(TARGET, guess, average="macro"))
    assert values["confusion"] == metrics.confusion_matrix(TARGET, guess).tolist()


@pytest.mark.parametrize(("scores", "kind"), [
    (LOGITS, "logits"), (LOGITS.log_softmax(1), "log-probabilities"),
    (LOGITS.softmax(1), "probabilities"), (LOGITS.softmax(1).bfloat16(), "probabilities")])
def test_kind_of_scores_is_recognised_and_changes_no_confidence(scores: Any, kind: str) -> None:
    found = collected(scores, TARGET, keep_scores=True)
    assert found.scores == kind
    tolerance = 1e-2 if scores.dtype == torch.bfloat16 else 1e-5  # it has three digits
    assert found.confidence == pytest.approx(LOGITS.softmax(1).amax(1).numpy(), abs=tolerance)
    assert np.abs(found.probabilities - LOGITS.softmax(1).numpy()).max() < tolerance


def test_one_row_that_is_no_probability_makes_all_of_them_logits() -> None:
    scores = LOGITS.softmax(1)
    scores[-1] = 0.9
    assert collected(scores, TARGET).scores == "logits"


def test_calibration_error_is_that_of_torchmetrics() -> None:
    values = classification.summary(collected(LOGITS, TARGET), NAMES)
    expected = multiclass_calibration_error(LOGITS.softmax(1), TARGET, CLASSES, n_bins=15)
    assert values["expected_calibration_error"] == pytest.approx(float(expected), abs=1e-6)
    assert sum(one["count"] for one in values["calibration"]) == COUNT


def test_small_integers_as_targets_are_counted_right() -> None:
    scores = torch.randn(COUNT, 30, generator=GENERATOR)
    target = torch.arange(COUNT) % 30
    found = collected(scores, target.to(torch.uint8))
    assert found.confusion.tolist() == metrics.confusion_matrix(target, scores.argmax(1)).tolist()


@pytest.mark.parametrize("shape", [(COUNT,), (COUNT, 1)])
@pytest.mark.parametrize("target_type", [torch.int64, torch.bool, torch.float32])
@pytest.mark.parametrize("as_probability", [True, False])
def test_one_score_for_each_sample_is_binary(shape: Any, target_type: Any,
                                             as_probability: bool) -> None:
    scores, target = LOGITS[:, 0], (LOGITS[:, 1] > 0).to(target_type)
    found = collected((scores.sigmoid() if as_probability else scores).reshape(shape), target)
    assert isinstance(found, Classified)
    assert found.scores == ("probabilities" if as_probability else "logits")
    assert found.prediction.tolist() == (scores > 0).long().tolist()
    one = scores.sigmoid()
    assert found.confidence == pytest.approx(torch.maximum(one, 1 - one).numpy(), abs=1e-5)


def test_targets_that_are_no_class_and_nan_are_left_out() -> None:
    scores, target = LOGITS.clone(), TARGET.clone()
    target[3], target[5] = -100, 255
    scores[7, 1] = torch.nan
    found = collected(scores, target)
    assert found.left_out == 3 and found.confusion.sum() == COUNT - 3
    assert not {3, 5, 7} & set(found.places.tolist())


def test_larger_set_than_is_kept_has_confusions_only(tmp_path: Path) -> None:
    seen = Predictions(max_entries=400)
    for start in range(0, COUNT, 50):
        seen.add(LOGITS[start:start + 50], TARGET[start:start + 50])
    values = report(seen, None, tmp_path)
    assert np.sum(values["confusion"]) == COUNT
    assert values["expected_calibration_error"] is None
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "confusion.png"}


def test_pixels_are_counted_and_have_no_mistakes_of_samples(tmp_path: Path) -> None:
    output = torch.randn(6, 3, 5, 5, generator=GENERATOR)
    target = torch.randint(0, 3, (6, 5, 5), generator=GENERATOR)
    values = report(seen_of(output, target), None, tmp_path)
    assert values["confusion"] == metrics.confusion_matrix(
        target.flatten(), output.argmax(1).flatten()).tolist()
    assert not (tmp_path / "mistakes.csv").exists()


def test_regression_has_the_numbers_of_scikit_learn() -> None:
    target, output = LOGITS, LOGITS + 0.3 * LOGITS.roll(1, 0)
    values = regression.summary(collected(output, target))
    assert values["r2"] == pytest.approx(metrics.r2_score(target, output), abs=1e-5)
    assert values["mae"] == pytest.approx(metrics.mean_absolute_error(target, output), abs=1e-5)
    assert values["rmse"] == pytest.approx(
        metrics.mean_squared_error(target, output) ** 0.5, abs=1e-5)
    each = metrics.r2_score(target, output, multioutput="raw_values")
    assert [one["r2"] for one in values["outputs"]] == pytest.approx(each, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_values_that_float32_cannot_hold_are_not_rounded(tmp_path: Path, dtype: Any) -> None:
    target = torch.tensor([1_000_000_001, 1_000_000_003], dtype=dtype)
    seen = seen_of(target.double() + 1, target)
    values = report(seen, None, tmp_path, predictions=tmp_path / "all.csv")
    assert values["mae"] == values["rmse"] == 1 and values["r2"] == 0
    assert [line["prediction"] for line in table(tmp_path / "all.csv")] == [
        "1000000002", "1000000004"]


def test_column_and_row_of_values_are_not_broadcast() -> None:
    assert regression.summary(collected(LOGITS[:, :1], LOGITS[:, 0]))["mae"] == 0


@pytest.mark.parametrize("value", [0.1, 0.7, 3.3])
def test_equal_targets_of_double_precision_have_no_r2(value: float) -> None:
    target = torch.full((3,), value, dtype=torch.float64)
    assert regression.summary(collected(target + 1, target))["r2"] is None


def test_equal_targets_have_no_r2() -> None:
    assert regression.summary(collected(LOGITS[:, 0], torch.full((COUNT,), 2.0)))["r2"] is None


def test_largest_errors_come_first_with_their_index(tmp_path: Path) -> None:
    target = LOGITS[:, 0]
    output = target.clone()
    output[2] += 5
    output[8] -= 7
    dataset = InMemoryDataset(LOGITS, target.flip(0))
    loader = BaseDataLoader(dataset, 16, indices=range(COUNT)[::-1])
    report(seen_of(output, target), loader, tmp_path, predictions=tmp_path / "all.csv")
    rows = table(tmp_path / "largest_errors.csv")
    assert [row["index"] for row in rows[:2]] == [str(COUNT - 9), str(COUNT - 3)]
    assert float(rows[0]["error"]) == pytest.approx(-7, abs=1e-5)
    assert [float(row["prediction"]) for row in table(tmp_path / "all.csv")] == pytest.approx(
        output.tolist())


@pytest.mark.parametrize(("output", "target"), [
    ({"a": LOGITS}, TARGET), ([LOGITS], TARGET), (LOGITS, None), (LOGITS, TARGET[:5]),
    (LOGITS, torch.randn(COUNT, 2)), (LOGITS, torch.randint(0, 4, (COUNT, 2))),
    (LOGITS.long(), TARGET), (torch.tensor(1.0), torch.tensor(1.0)),
    (LOGITS, (LOGITS > 0).float()), (LOGITS.expand(2, COUNT, 4), TARGET),
    (torch.zeros(2, 3000), torch.tensor([1, 2])), (LOGITS * torch.nan, TARGET),
    (LOGITS[:, 0] * torch.nan, TARGET > 0), (LOGITS * torch.nan, LOGITS), (LOGITS, TARGET - 9)])
def test_anything_else_has_no_report_and_is_no_error(output: Any, target: Any) -> None:
    assert why_not(output, target)


def test_values_that_are_too_many_have_no_report() -> None:
    assert "more than 100 numbers" in (why_not(LOGITS, LOGITS, max_entries=100) or "")


def test_batches_of_different_kinds_have_no_report() -> None:
    seen = seen_of(LOGITS, TARGET)
    seen.add(LOGITS, LOGITS)
    assert seen.result() is None and seen.why_not


def test_nothing_seen_is_said() -> None:
    seen = Predictions()
    assert seen.result() is None
    assert "update_batch" in (seen.why_not or "")


def test_mistakes_are_sorted_by_confidence_and_have_the_data_sets_index(tmp_path: Path) -> None:
    images = torch.rand(COUNT, 3, 6, 6, generator=GENERATOR)
    loader = BaseDataLoader(InMemoryDataset(images, TARGET), 16, shuffle=True, seed=3)
    order = torch.tensor(loader.samples_at(0, 0, COUNT))
    report(seen_of(LOGITS[order], TARGET[order]), loader, tmp_path)
    rows = table(tmp_path / "mistakes.csv")
    wrong = (LOGITS.argmax(1) != TARGET).nonzero()[:, 0].tolist()
    assert sorted(int(row["index"]) for row in rows) == wrong
    confidences = [-float(row["confidence"]) for row in rows]
    assert confidences == sorted(confidences)
    assert all(int(row["target"]) == TARGET[int(row["index"])] for row in rows)
    assert (tmp_path / "mistakes.png").stat().st_size > 0


def test_report_that_was_there_leaves_no_file_behind(tmp_path: Path) -> None:
    report(seen_of(LOGITS, TARGET), None, tmp_path)
    (tmp_path / "mine.txt").write_text("kept")
    report(seen_of(LOGITS, LOGITS), None, tmp_path)
    names = {"report.json", "scatter.png", "largest_errors.csv", "mine.txt"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_names_of_users_are_shown_as_they_are(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(torch.rand(COUNT, 1, 4, 4), TARGET))
    loader.classes = ["$x_{", "<b>,\"", "two\nlines", "\u00e9" * 50]  # type: ignore
    seen = seen_of(LOGITS, TARGET, keep_scores=True)
    values = report(seen, loader, tmp_path, classes_of=[loader], predictions=tmp_path / "p.csv")
    shown = [row["class"] for row in values["classes"]]
    assert shown == ["$x_{", "<b>,\"", "two lines", "\u00e9" * 50]
    assert table(tmp_path / "p.csv")[0].keys() >= {"probability_$x_{", "probability_<b>,\""}
    assert max(map(len, classification.console(values).splitlines())) <= 80


def test_of_many_classes_the_console_has_the_worst() -> None:
    scores = torch.randn(2000, 60, generator=GENERATOR)
    target = scores.argmax(1)
    target[target == 7] = 8
    names = [f"class {number}" for number in range(60)]
    text = classification.console(classification.summary(collected(scores, target), names))
    rows = [line for line in text.splitlines() if line.startswith("class ")]
    assert "20 classes of 60" in text
    assert rows[1].startswith("class 8 ") and len(rows) == 21
    assert max(map(len, text.splitlines())) <= 80


def test_names_come_from_the_loader_or_the_data_set_if_they_are_as_many() -> None:
    dataset = TensorDataset(LOGITS)
    dataset.classes = NAMES  # type: ignore[attr-defined]
    loader = DataLoader(Subset(dataset, range(9)))
    assert class_names([loader], 4) == NAMES
    assert class_names([loader], 3) == ["0", "1", "2"]
    loader.classes = ("x", "y", "z", "w")  # type: ignore[attr-defined]
    assert class_names([loader], 4) == ["x", "y", "z", "w"]


def test_indices_are_known_of_an_order_that_is() -> None:
    dataset, seen = InMemoryDataset(LOGITS, TARGET), TARGET.numpy()
    split = BaseDataLoader(dataset, 16, validation_split=0.1).split_validation()
    assert split is not None
    kept = split.sampler.indices
    assert indices_of(split, 30, seen[kept]) == kept.tolist()
    assert indices_of(split, 31, seen[kept]) is None
    plain = TensorDataset(LOGITS, TARGET)
    assert indices_of(DataLoader(plain), COUNT, seen) == list(range(COUNT))
    assert indices_of(DataLoader(plain, shuffle=True), COUNT, seen) is None
    assert indices_of([LOGITS], COUNT, seen) is None
    assert indices_of(DataLoader(plain), COUNT, None) is None


def test_indices_are_not_known_where_others_were_seen() -> None:
    """A loader that sorts its batches, or leaves out samples and takes others."""
    plain, seen = TensorDataset(LOGITS, TARGET), TARGET.numpy()
    assert indices_of(DataLoader(plain), COUNT, np.sort(seen)) is None
    assert indices_of(DataLoader(plain), COUNT, np.roll(seen, 1)) is None

    class Backwards(BatchSampler):
        def __iter__(self) -> Any:
            return iter([list(range(COUNT))[::-1]])

    other = Backwards(SequentialSampler(plain), COUNT, drop_last=False)
    assert indices_of(DataLoader(plain, batch_sampler=other), COUNT, seen) is None
    unread = InMemoryDataset(LOGITS)  # whose samples have no target
    assert indices_of(BaseDataLoader(unread, 16), COUNT, seen) is None


def test_images_are_stretched_and_rows_are_none() -> None:
    image, = images_of(InMemoryDataset(torch.randn(3, 3, 5, 7) * 9), [1]) or []
    assert image.shape == (5, 7, 3) and (image.min(), image.max()) == (0, 1)
    assert images_of(InMemoryDataset(LOGITS), [1]) is None
    assert images_of(None, [1]) is None


class Watched:
    """A trainer whose model gives a dict."""

    valid_metrics = MetricTracker("loss")

    @staticmethod
    def report_of(output: Any, target: Any) -> Any:
        return None if target is None else (output["scores"], target)


@pytest.mark.parametrize("target", [TARGET, None])
def test_trainer_says_what_the_report_sees(target: Any) -> None:
    trainer = Watched()
    with watched(trainer) as seen:
        trainer.valid_metrics.update_batch({"scores": LOGITS}, target, 0.5, COUNT)
    assert trainer.valid_metrics.observers == []
    assert isinstance(seen.result(), Classified) == (target is not None)


def test_no_report_is_said_in_one_line(tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.INFO):
        write_report(seen_of({"a": 1}, TARGET), None, folder=tmp_path / "r", about={"samples": 1})
    assert len(caplog.messages) == 1 and "no report" in caplog.messages[0]
    assert not (tmp_path / "r").exists()
