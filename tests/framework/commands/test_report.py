"""test.py's report, of the test set, the validation and the training data."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.framework.commands.files import STEPS, Capture, Run, log_dir, rows
from tests.framework.toy.data_loader.data_loaders import ToyDataLoader
from tests.framework.toy.trainer import Trainer
from utils.runs.checkpoint_file import read_checkpoint

FILES = {"report.json", "confusion.png", "calibration.png", "mistakes.csv", "mistakes.png"}


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def report(run: Path, name: str = "model_best-test") -> dict[str, Any]:
    return json.loads((run / "reports" / name / "report.json").read_text())


@pytest.mark.slow
def test_report_of_each_set_and_checkpoint_has_a_folder(trained: Path, in_process: Run) -> None:
    for arguments in ((trained,), (trained, "--split", "valid"), (trained / "latest.pth",)):
        assert in_process("test.py", "--resume", *arguments) == 0
    folders = {path.name: path for path in (trained / "reports").iterdir()}
    assert set(folders) == {"model_best-test", "model_best-valid", "latest-test"}
    for folder in folders.values():
        assert {path.name for path in folder.iterdir()} == FILES
    assert set(json.loads((trained / "model_best.test.json").read_text())) == {
        "checkpoint", "epoch", "samples", "loss", "accuracy", "top_k_acc"}


def test_report_and_metrics_agree(trained: Path, in_process: Run, capsys: Capture) -> None:
    assert in_process("test.py", "--resume", trained) == 0
    values = json.loads((trained / "model_best.test.json").read_text())
    assert report(trained)["accuracy"] == pytest.approx(values["accuracy"])
    assert report(trained)["scores"] == "log-probabilities"
    shown = capsys.readouterr().out.split("test.json\n")[-1].splitlines()
    assert "support" in shown[0]
    saved = str(trained)
    assert max(len(line) for line in shown if saved not in line) <= 80


@pytest.mark.parametrize(("split", "count"), [("test", 30), ("valid", 24), ("train", 96)])
def test_predictions_have_every_sample_of_the_set(trained: Path, tmp_path: Path, in_process: Run,
                                                  split: str, count: int) -> None:
    path = tmp_path / "out.csv"
    assert in_process("test.py", "--resume", trained, "--split", split, "--predictions", path) == 0
    lines = table(path)
    assert len({line["index"] for line in lines}) == len(lines) == count
    assert list(lines[0]) == ["index", "target", "prediction", *(
        f"probability_{number}" for number in range(3))]
    fields = ToyDataLoader(4, training=split != "test").dataset.fields  # type: ignore[attr-defined]
    assert all(int(line["target"]) == fields[1][int(line["index"])] for line in lines)


def test_validation_data_is_that_of_the_run(trained: Path, in_process: Run) -> None:
    assert in_process("test.py", "--resume", trained, "--split", "valid") == 0
    values = json.loads((trained / "model_best.valid.json").read_text())
    epoch = read_checkpoint(trained / "model_best.pth")["epoch"]
    assert values["loss"] == pytest.approx(rows(trained)[epoch - 1]["val_loss"], rel=1e-6)


def test_run_without_validation_has_none_to_report(trained: Path, in_process: Run,
                                                   capsys: Capture) -> None:
    assert in_process("test.py", "--resume", trained, "--split", "valid",
                      "data_loader.args.validation_split=0.0") == 2
    assert "no validation data" in capsys.readouterr().err


def test_several_validation_sets_have_a_report_each(trained: Path, tmp_path: Path,
                                                    in_process: Run) -> None:
    part = '{"type": "ToyDataLoader", "args": {"batch_size": 8, "training": false}}'
    assert in_process("test.py", "--resume", trained, "--split", "valid", "--predictions",
                      tmp_path / "out.csv", "data_loader.args.validation_split=0.0",
                      f'+valid_data_loader={{"one": {part}, "two": {part}}}') == 0
    assert {path.name for path in (trained / "reports").iterdir()} == {
        "model_best-valid-one", "model_best-valid-two"}
    assert {path.name for path in tmp_path.glob("*.csv")} == {"out-one.csv", "out-two.csv"}
    values = json.loads((trained / "model_best.valid.json").read_text())
    assert values["samples"] == 60 and {"one_loss", "two_loss"} <= set(values)


def test_own_valid_epoch_has_a_report(trained: Path, in_process: Run, monkeypatch: Any) -> None:
    def own(self: Any, epoch: int) -> dict[str, Any]:
        self.model.eval()
        with torch.no_grad():
            for data, target in self.valid_data_loader:
                output = self.model(data)
                self.valid_metrics.update_batch(output, target, self.criterion(output, target),
                                                len(target))
        return self.valid_metrics.result()
    monkeypatch.setattr(Trainer, "_valid_epoch", own)
    assert in_process("test.py", "--resume", trained) == 0
    assert report(trained)["predictions"] == 30
    assert (trained / "reports" / "model_best-test" / "mistakes.png").exists()


def test_output_that_cannot_be_reported_is_no_error(trained: Path, tmp_path: Path, in_process: Run,
                                                    monkeypatch: Any, capsys: Capture) -> None:
    monkeypatch.setattr(Trainer, "report_of", staticmethod(lambda output, target: (
        {"scores": output}, target)), raising=False)
    path = tmp_path / "out.csv"
    assert in_process("test.py", "--resume", trained, "--predictions", path) == 0
    shown = capsys.readouterr().out
    assert "no report beyond these values" in shown and "out.csv is not written" in shown
    assert not path.exists() and not (trained / "reports").exists()
    assert (trained / "model_best.test.json").exists()


def test_regression_has_a_report(trained: Path, in_process: Run, monkeypatch: Any) -> None:
    monkeypatch.setattr(Trainer, "report_of", staticmethod(lambda output, target: (
        output[:, 0], target.float())), raising=False)
    assert in_process("test.py", "--resume", trained) == 0
    assert {path.name for path in (trained / "reports" / "model_best-test").iterdir()} == {
        "report.json", "scatter.png", "largest_errors.csv"}


def test_several_processes_have_no_report(trained: Path, in_process: Run, monkeypatch: Any,
                                          capsys: Capture) -> None:
    monkeypatch.setattr("base.report.report.num_processes", lambda: 2)
    assert in_process("test.py", "--resume", trained) == 0
    assert "one process alone" in capsys.readouterr().out
    assert not (trained / "reports").exists()


def events_of(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(log_dir(run) / "test"), size_guidance={"tensors": 0}).Reload()


@pytest.mark.slow
def test_each_set_and_checkpoint_has_events_at_the_models_step(trained: Path,
                                                               in_process: Run) -> None:
    best = read_checkpoint(trained / "model_best.pth")["parts"]["counters"]["step"]
    training = contents_of_events(trained)
    for arguments in ((trained,), (trained, "--split", "valid"), (trained / "latest.pth",),
                      (trained / "checkpoint-epoch1.pth",)):
        assert in_process("test.py", "--resume", *arguments) == 0
    events = events_of(trained)
    names = {"model_best-test": best, "model_best-valid": best, "latest-test": 2 * STEPS,
             "checkpoint-epoch1-test": STEPS}
    assert {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]
            } == {f"{name}/confusion": [step] for name, step in names.items()}
    assert {tag: [event.step for event in events.Tensors(tag)] for tag in events.Tags()["tensors"]
            } == {f"{name}/pr/{number}": [step] for name, step in names.items()
                  for number in range(3)}
    assert contents_of_events(trained) == training


def contents_of_events(run: Path) -> dict[Path, bytes]:
    """Those of the training."""
    return {path: path.read_bytes() for path in log_dir(run).glob("*tfevents*")}


@pytest.mark.parametrize("case", ["off", "elsewhere", "regression"])
def test_there_are_no_events_where_none_are_wanted(trained: Path, tmp_path: Path, in_process: Run,
                                                   monkeypatch: Any, case: str) -> None:
    checkpoint, arguments = trained / "latest.pth", []
    if case == "off":
        arguments = ["trainer.tensorboard=false"]
    elif case == "elsewhere":
        checkpoint = tmp_path / "elsewhere.pth"
        checkpoint.write_bytes((trained / "latest.pth").read_bytes())
    else:
        monkeypatch.setattr(Trainer, "report_of", staticmethod(lambda output, target: (
            output[:, 0], target.float())), raising=False)
    before = set(tmp_path.rglob("*tfevents*"))
    assert in_process("test.py", "--resume", checkpoint, *arguments) == 0
    assert set(tmp_path.rglob("*tfevents*")) == before
    assert len(list((tmp_path / "saved" / "log" / "Toy").iterdir())) == 1


def test_events_that_cannot_be_written_are_told_and_end_nothing(trained: Path, in_process: Run,
                                                                capsys: Capture) -> None:
    (log_dir(trained) / "test").write_text("a file where the folder would be")
    assert in_process("test.py", "--resume", trained) == 0
    assert "TensorBoard's events cannot be written" in capsys.readouterr().out
    assert (trained / "reports" / "model_best-test" / "confusion.png").exists()
    assert (trained / "model_best.test.json").exists()


def test_without_tensorboard_there_is_the_rest_of_the_report(trained: Path, in_process: Run,
                                                             monkeypatch: Any) -> None:
    monkeypatch.setattr("logger.visualization.BACKENDS", ("no_such_package",))
    assert in_process("test.py", "--resume", trained) == 0
    assert not (log_dir(trained) / "test").exists()
    assert (trained / "reports" / "model_best-test" / "confusion.png").exists()


@pytest.mark.parametrize(("arguments", "text"), [
    (["--predictions", "absent/out.csv"], "no folder absent"), (["--split", "tset"], "--split")])
def test_mistake_is_told_before_anything_is_done(trained: Path, in_process: Run, capsys: Capture,
                                                 arguments: list[str], text: str) -> None:
    assert in_process("test.py", "--resume", trained, *arguments) == 2
    assert text in capsys.readouterr().err
    assert not (trained / "model_best.test.json").exists()


def test_report_stays_where_only_several_processes_test_the_same_again(
        trained: Path, in_process: Run, monkeypatch: Any) -> None:
    """And goes where the model is another one."""
    assert in_process("test.py", "--resume", trained / "latest.pth") == 0
    before = report(trained, "latest-test")
    monkeypatch.setattr("base.report.report.num_processes", lambda: 2)
    assert in_process("test.py", "--resume", trained / "latest.pth") == 0
    assert report(trained, "latest-test") == before
    path = trained / "reports" / "latest-test" / "report.json"
    path.write_text(json.dumps(before | {"epoch": 1}))
    assert in_process("test.py", "--resume", trained / "latest.pth") == 0
    assert not path.exists()
