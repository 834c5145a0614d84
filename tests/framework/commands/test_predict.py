"""test.py --predict: what the model says of data without targets."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.framework.commands.files import Capture, Run, contents, runs
from tests.framework.toy.data_loader.data_loaders import ToyDataLoader
from tests.framework.toy.model.model import ToyModel
from tests.framework.toy.trainer import Trainer


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def said(run: Path) -> list[dict[str, str]]:
    return table(run / "reports" / "model_best-predict" / "predictions.csv")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """The images of the toy's test set, without their classes."""
    images = ToyDataLoader(4, training=False).dataset.fields[0]  # type: ignore[attr-defined]
    path = tmp_path / "inputs.csv"
    np.savetxt(path, images.reshape(len(images), -1).numpy(), fmt="%.9g", delimiter=",")
    return path


@pytest.mark.parametrize("settings", [
    [], *(pytest.param(settings, marks=pytest.mark.slow) for settings in (
        ["trainer.ema_decay=0.9"], ["trainer.precision=bf16"],
        ["trainer.channels_last=true", "data_loader.args.batch_size=7"]))], ids=str)
def test_inputs_without_targets_get_what_testing_says_of_them(
        config_file: Path, tmp_path: Path, inputs: Path, in_process: Run,
        settings: list[str]) -> None:
    assert in_process("train.py", "-c", config_file, *settings) == 0
    run = runs(tmp_path)[0]
    tested, predicted = tmp_path / "tested.csv", tmp_path / "predicted.csv"
    assert in_process("test.py", "-r", run, "--predictions", tested) == 0
    assert in_process("test.py", "-r", run, "--predict", inputs, "--predictions", predicted) == 0
    ours, theirs = table(predicted), table(tested)
    assert [line["name"] for line in ours] == [line["index"] for line in theirs]
    assert len(ours) == 30
    for line, other in zip(ours, theirs, strict=True):
        assert line["confidence"] == line[f"probability_{line['prediction']}"]
        assert {key: line[key] for key in line if key not in ("name", "confidence")} == {
            key: other[key] for key in other if key not in ("index", "target")}


def test_table_lies_beside_the_checkpoint_and_changes_nothing_else(
        trained: Path, inputs: Path, in_process: Run) -> None:
    before = contents(trained)
    assert in_process("test.py", "-r", trained, "--predict", inputs) == 0
    after = contents(trained)
    assert after.keys() - before.keys() == {
        trained / "reports" / "model_best-predict" / "predictions.csv"}
    assert all(after[path] == content for path, content in before.items())


def test_classes_are_called_by_the_loaders_names(trained: Path, inputs: Path, in_process: Run,
                                                 monkeypatch: Any) -> None:
    monkeypatch.setattr(ToyDataLoader, "classes", ["cat", "dog", "eel"], raising=False)
    assert in_process("test.py", "-r", trained, "--predict", inputs) == 0
    assert list(said(trained)[0]) == ["name", "prediction", "confidence", "probability_cat",
                                      "probability_dog", "probability_eel"]
    assert {line["prediction"] for line in said(trained)} <= {"cat", "dog", "eel"}


def test_values_of_a_regression_are_given_as_they_are(trained: Path, inputs: Path, in_process: Run,
                                                      monkeypatch: Any) -> None:
    outputs: list[torch.Tensor] = []

    def predict_batch(self: Any, batch: Any) -> Any:
        outputs.append(self.model(batch[0])[:, :2])
        return outputs[-1]
    monkeypatch.setattr(Trainer, "predict_batch", predict_batch)
    monkeypatch.setattr(Trainer, "report_of", staticmethod(lambda output, target: (
        output[:, :2], torch.stack([target, target], dim=1).float())), raising=False)
    assert in_process("test.py", "-r", trained, "--predict", inputs) == 0
    values = [[line["prediction_0"], line["prediction_1"]] for line in said(trained)]
    assert torch.equal(torch.tensor(np.array(values, dtype=np.float32)), torch.cat(outputs))


def test_one_score_is_a_logit_where_those_of_the_test_set_are(
        trained: Path, inputs: Path, in_process: Run, monkeypatch: Any) -> None:
    """Also of inputs whose scores alone could be probabilities."""
    monkeypatch.setattr(Trainer, "predict_batch", lambda self, batch: torch.full(
        (len(batch[0]), 1), 0.25), raising=False)
    monkeypatch.setattr(Trainer, "report_of", staticmethod(lambda output, target: (
        output[:, :1] * 9, (target > 0).float())), raising=False)
    assert in_process("test.py", "-r", trained, "--predict", inputs) == 0
    assert {(line["prediction"], line["probability_1"]) for line in said(trained)} == {
        ("1", f"{torch.tensor([0, 0.25]).softmax(0)[1]:.6g}")}


def test_inputs_of_which_the_model_says_nan_have_no_prediction(
        trained: Path, inputs: Path, in_process: Run, monkeypatch: Any, capsys: Capture) -> None:
    predict_batch = Trainer.predict_batch

    def sometimes_nan(self: Any, batch: Any) -> Any:
        output = predict_batch(self, batch)
        output[0] = torch.nan
        return output
    monkeypatch.setattr(Trainer, "predict_batch", sometimes_nan)
    assert in_process("test.py", "-r", trained, "--predict", inputs) == 0
    lines = said(trained)
    assert len(lines) == 30 and [line["name"] for line in lines if not line["prediction"]] == [
        "0", "16"]
    assert "of 2 inputs, of 30, the model says NaN" in capsys.readouterr().out


def test_probabilities_are_refused_where_the_evaluation_sees_logits(
        trained: Path, inputs: Path, in_process: Run, monkeypatch: Any, capsys: Capture) -> None:
    monkeypatch.setattr(Trainer, "report_of", staticmethod(lambda output, target: (
        output * 9, target)), raising=False)
    monkeypatch.setattr(Trainer, "predict_batch", lambda self, batch: (
        self.model(batch[0]).softmax(1)), raising=False)
    assert in_process("test.py", "-r", trained, "--predict", inputs) == 1
    assert "expected logits" in capsys.readouterr().err


def test_samples_of_one_class_do_not_tell_what_one_score_is(
        trained: Path, inputs: Path, in_process: Run, monkeypatch: Any, capsys: Capture) -> None:
    monkeypatch.setattr(Trainer, "report_of", staticmethod(lambda output, target: (
        output[:, 0], torch.zeros(len(target)))), raising=False)
    assert in_process("test.py", "-r", trained, "--predict", inputs) == 1
    assert "all targets of 30 samples are 0" in capsys.readouterr().err


def test_input_is_not_overwritten(trained: Path, in_process: Run, tmp_path: Path,
                                  capsys: Capture) -> None:
    path = tmp_path / "in.csv"
    path.write_text("1,2")
    assert in_process("test.py", "-r", trained, "--predict", path, "--predictions", path) == 2
    assert "is what --predict reads" in capsys.readouterr().err and path.read_text() == "1,2"


@pytest.mark.parametrize(("output", "text"), [
    (lambda batch: {"scores": 1}, r"got \{scores: int\}"),
    (lambda batch: torch.zeros(len(batch[0]), 4), "expected scores of 3 classes for 16 inputs"),
    (lambda batch: torch.zeros(5, 3), "expected predict_batch .* 16 inputs")])
def test_output_of_another_kind_is_refused(trained: Path, inputs: Path, in_process: Run,
                                           monkeypatch: Any, capsys: Capture, output: Any,
                                           text: str) -> None:
    monkeypatch.setattr(Trainer, "predict_batch", lambda self, batch: output(batch), raising=False)
    assert in_process("test.py", "-r", trained, "--predict", inputs) == 1
    assert re.search(text, capsys.readouterr().err)
    assert not list(trained.glob("reports/*/*"))


def test_scores_of_pixels_are_refused(trained: Path, inputs: Path, in_process: Run,
                                      monkeypatch: Any, capsys: Capture) -> None:
    monkeypatch.setattr(Trainer, "report_of", staticmethod(lambda output, target: (
        output[:, :, None], target[:, None])), raising=False)
    assert in_process("test.py", "-r", trained, "--predict", inputs) == 1
    assert "more than one class for a sample" in capsys.readouterr().err


def test_loader_that_cannot_read_inputs_says_what_to_define(
        trained: Path, inputs: Path, in_process: Run, monkeypatch: Any, capsys: Capture) -> None:
    monkeypatch.delattr(ToyDataLoader, "inputs_of")
    assert in_process("test.py", "-r", trained, "--predict", inputs) == 2
    assert "ToyDataLoader cannot read data without targets: define" in capsys.readouterr().err
    assert not (trained / "reports").exists()


def test_what_the_hook_says_of_the_data_is_the_message(trained: Path, inputs: Path,
                                                       in_process: Run, monkeypatch: Any,
                                                       capsys: Capture) -> None:
    def inputs_of(self: Any, path: Path) -> Any:
        raise ValueError("row 3 is too long")

    monkeypatch.setattr(ToyDataLoader, "inputs_of", inputs_of)
    assert in_process("test.py", "-r", trained, "--predict", inputs) == 2
    assert f"error: --predict: {inputs}: row 3 is too long" in capsys.readouterr().err


@pytest.mark.parametrize("given", [(nn.Identity(), ["a"]), ([], []), ([1, 2], ["a"])], ids=str)
def test_inputs_and_names_must_be_as_many(trained: Path, inputs: Path, in_process: Run,
                                          monkeypatch: Any, capsys: Capture, given: Any) -> None:
    monkeypatch.setattr(ToyDataLoader, "inputs_of", lambda self, path: given)
    assert in_process("test.py", "-r", trained, "--predict", inputs) == 2
    assert "a data set with a length, and as many names" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "text"), [
    (["--predict", "absent"], "there is no absent"),
    (["--predict", "tests", "--split", "valid"], "without --split"),
    (["--predict", "tests", "--predictions", "absent/out.csv"], "no folder absent")])
def test_mistake_is_told_before_anything_is_built(
        trained: Path, in_process: Run, capsys: Capture, monkeypatch: Any, arguments: list[str],
        text: str) -> None:
    monkeypatch.setattr(ToyModel, "__init__", lambda self: pytest.fail("it was built"))
    assert in_process("test.py", "-r", trained, *arguments) == 2
    assert text in capsys.readouterr().err


def test_several_processes_are_refused(trained: Path, inputs: Path, in_process: Run,
                                       monkeypatch: Any, capsys: Capture) -> None:
    monkeypatch.setattr("utils.devices.processes.num_processes", lambda: 2)
    assert in_process("test.py", "-r", trained, "--predict", inputs) == 2
    assert "one process alone" in capsys.readouterr().err


def test_batches_of_one_field_or_named_data_reach_the_model() -> None:
    data = torch.ones(2)
    trainer = Trainer.__new__(Trainer)
    trainer.model = lambda given: given + 1
    for batch in (data, [data], (data,), {"data": data, "name": "x"}):
        assert torch.equal(trainer.predict_batch(batch), data + 1)
