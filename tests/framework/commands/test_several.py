"""Several validation sets, a test set of its own, losses and metrics by name; overfitting."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.framework.commands.files import Capture, Run, rows, runs
from tests.framework.toy.data_loader.data_loaders import ToyDataLoader
from tests.framework.toy.model import metric as toy_metrics
from utils.runs.checkpoint_file import read_checkpoint

SET = {"type": "ToyDataLoader", "args": {"batch_size": 16, "shuffle": False, "training": False}}


@pytest.fixture
def write(tmp_path: Path, config_dict: dict[str, Any]) -> Any:
    """Writes the config with other sections; gives its path."""
    def write(**sections: Any) -> Path:
        path = tmp_path / "several.json"
        path.write_text(json.dumps(config_dict | sections))
        return path
    return write


def without_split(config: dict[str, Any]) -> dict[str, Any]:
    args = config["data_loader"]["args"] | {"validation_split": 0.0}
    return {"type": "ToyDataLoader", "args": args}


def test_validation_sets_have_their_names_in_the_log(tmp_path: Path, config_dict: Any, write: Any,
                                                     in_process: Run) -> None:
    half = {**SET, "args": {**SET["args"], "training": True, "indices": list(range(60))}}
    config = write(data_loader=without_split(config_dict),
                   valid_data_loader={"day": SET, "night": half})
    assert in_process("train.py", "-c", config, "trainer.monitor=max val_night_accuracy") == 0
    run, = runs(tmp_path)
    assert {"val_day_loss", "val_night_loss", "val_day_accuracy"} <= rows(run)[-1].keys()
    assert "val_loss" not in rows(run)[-1]
    best = max(row["val_night_accuracy"] for row in rows(run))
    assert read_checkpoint(run / "model_best.pth")["monitor_best"] == best
    assert in_process("train.py", "-c", config, "--dry-run",
                      "trainer.monitor=min val_day_loss") == 0
    assert in_process("train.py", "-c", config, "--debug", "trainer.monitor=min val_day_loss") == 0
    assert in_process("test.py", "--resume", run) == 0


def test_one_validation_set_stands_in_for_the_split(tmp_path: Path, config_dict: Any, write: Any,
                                                    in_process: Run) -> None:
    config = write(data_loader=without_split(config_dict), valid_data_loader=SET)
    assert in_process("train.py", "-c", config) == 0
    run, = runs(tmp_path)
    assert in_process("test.py", "--resume", run / "latest.pth") == 0
    tested = json.loads((run / "latest.test.json").read_text())
    assert tested["samples"] == 30  # the toy's noise differs from reading to reading
    assert tested["loss"] == pytest.approx(rows(run)[-1]["val_loss"], rel=0.05)


def test_split_beside_a_validation_set_is_refused(write: Any, in_process: Run,
                                                  capsys: Capture) -> None:
    assert in_process("train.py", "-c", write(valid_data_loader=SET)) == 2
    assert "keeps samples for validation as well" in capsys.readouterr().err


def test_unknown_argument_of_one_of_several_is_told(write: Any, in_process: Run,
                                                    capsys: Capture) -> None:
    wrong = {"type": "ToyDataLoader", "args": {"batch_sze": 1, "batch_size": 2}}
    assert in_process("train.py", "-c", write(valid_data_loader={"a": SET, "b": wrong})) == 2
    assert "valid_data_loader.b.args.batch_sze: ToyDataLoader takes no" in capsys.readouterr().err


def test_test_set_of_its_own_is_tested(tmp_path: Path, write: Any, in_process: Run) -> None:
    own = {"type": "ToyDataLoader", "args": {"batch_size": 7, "indices": list(range(50)),
                                             "shuffle": False}}
    assert in_process("train.py", "-c", write(test_data_loader=own), "trainer.epochs=1") == 0
    run, = runs(tmp_path)
    assert in_process("test.py", "--resume", run) == 0
    assert json.loads((run / "model_best.test.json").read_text())["samples"] == 50


@pytest.mark.parametrize("loss", ["cross_entropy", "CrossEntropyLoss", {
    "type": "cross_entropy", "args": {"label_smoothing": 0.1}}])
def test_losses_of_torch_go_by_name(tmp_path: Path, write: Any, in_process: Run,
                                    loss: Any) -> None:
    assert in_process("train.py", "-c", write(loss=loss), "trainer.epochs=1") == 0
    assert 0 < rows(runs(tmp_path)[0])[0]["val_loss"] < 3


class Hits:
    """A metric of one's own over the whole set."""

    def __init__(self, bonus: float = 0.0) -> None:
        self.bonus = bonus
        self.reset()

    def reset(self) -> None:
        self.hits, self.count = 0, 0

    def update(self, output: Any, target: Any) -> None:
        self.hits += int((output.argmax(1) == target).sum())
        self.count += len(target)

    def compute(self) -> float:
        return self.hits / self.count + self.bonus


def test_metric_of_ones_own_is_a_class_and_entries_are_named_by_class(
        tmp_path: Path, write: Any, in_process: Run, monkeypatch: Any) -> None:
    monkeypatch.setattr(toy_metrics, "Hits", Hits, raising=False)
    config = write(metrics=[
        "accuracy", {"type": "Hits", "args": {"bonus": 1.0}},
        {"type": "MulticlassF1Score", "args": {"num_classes": 3, "average": None}, "name": "f1",
         "classes": ["top", "middle", "low"]}])
    assert in_process("train.py", "-c", config, "trainer.epochs=1") == 0
    row = rows(runs(tmp_path)[0])[0]
    assert row["val_Hits"] == pytest.approx(row["val_accuracy"] + 1)
    assert {"val_f1_top", "val_f1_middle", "val_f1_low", "f1_low"} <= row.keys()


@pytest.mark.parametrize(("metric", "text"), [
    ({"type": "MulticlassF1Score", "args": {"num_classes": 3, "average": None},
      "classes": ["a", "b"]}, "MulticlassF1Score: gives 3 values, but its classes are 2: a, b"),
    ({"type": "accuracy", "classes": ["a"]}, "accuracy is a function and gives one mean"),
    ({"type": "accuracy", "classes": "a"}, "metrics.0.classes: expected a list of names"),
    ({"type": "MulticlassConfusionMatrix", "args": {"num_classes": 3}}, "is a table, not a number"),
])
def test_wrong_classes_and_a_monitored_table_are_told_before_the_first_step(
        write: Any, in_process: Run, steps: list[int], capsys: Capture, metric: Any,
        text: str) -> None:
    arguments = ["trainer.monitor=max val_MulticlassConfusionMatrix"] if "table" in text else []
    assert in_process("train.py", "-c", write(metrics=[metric]), *arguments) in (1, 2)
    assert text in capsys.readouterr().err and not steps


def test_overfitting_goes_on_with_the_same_batches(tmp_path: Path, config_file: Path,
                                                   in_process: Run) -> None:
    assert in_process("train.py", "-c", config_file, "--overfit", "2") == 0
    run, = runs(tmp_path)
    assert in_process("train.py", "--resume", run, "trainer.epochs=3") == 0
    assert [row["step"] for row in rows(run)] == [2, 4, 6]
    assert in_process("test.py", "--resume", run) == 0
    assert json.loads((run / "model_best.test.json").read_text())["samples"] == 30


def test_testing_warns_of_nothing(trained: Path, in_process: Run, capsys: Capture) -> None:
    capsys.readouterr()
    assert in_process("test.py", "--resume", trained) == 0
    assert "warning" not in capsys.readouterr().out


def test_random_transforms_of_validation_are_the_same_each_time(trained: Path) -> None:
    loader = ToyDataLoader(16, validation_split=0.2).split_validation()
    assert loader is not None
    first, second = ([batch[0].sum().item() for batch in loader] for _ in range(2))
    assert first != second  # of the loader itself; a trainer places it at its beginning


def test_test_set_is_the_same_whatever_the_epoch(trained: Path, in_process: Run) -> None:
    """Two checkpoints are compared on the same samples, random transforms included."""
    seen = []
    original = ToyDataLoader.place

    def place(self: Any, epoch: int, skip_samples: int = 0) -> None:
        seen.append(epoch)
        original(self, epoch, skip_samples)
    ToyDataLoader.place = place  # type: ignore[method-assign]
    try:
        assert in_process("test.py", "--resume", trained / "checkpoint-epoch2.pth") == 0
    finally:
        ToyDataLoader.place = original  # type: ignore[method-assign]
    assert seen == [0, 0, 1]  # made, placed for the test, and what would be next
