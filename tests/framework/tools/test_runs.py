"""The list of runs: what is found, how it is told, grouped, chosen, sorted and drawn."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from logger.history import History
from tests.framework.conftest import ROOT
from tools.runs import main
from tools.runs_table import best_row, find_runs, read_run, read_runs
from utils.errors import ConfigError, RunError
from utils.runs.folder import RunFolder

Capture = pytest.CaptureFixture[str]
LOSSES = (0.9, 0.5, 0.7)


def make_run(root: Path, run: str, *, losses: Any = LOSSES, state: str = "finished",
             name: str = "Toy", lr: float = 0.1, seed: int = 1, monitor: str = "min val_loss",
             reason: str = "", more: dict[str, Any] | None = None) -> RunFolder:
    """A run as train.py leaves it, with these values of ``val_loss``; it still has its lock."""
    folder = RunFolder(root / "saved", name, run)
    folder.make()
    folder.record({"name": name, "seed": seed, "optimizer": {"type": "Adam", "args": {"lr": lr}},
                   "trainer": {"epochs": 3, "monitor": monitor, "save_dir": str(root / run)},
                   **(more or {})})
    history = History(lambda: folder.log_dir)
    for epoch, loss in enumerate(losses, 1):
        history.append({"epoch": epoch, "loss": 1.0, "val_loss": loss, "lr": lr}, step=5 * epoch,
                       seconds=60.0)
        history.write()
    if state != "running":
        folder.tell(state, reason=reason, epoch=len(losses))
    return folder


def ended_run(root: Path, run: str, **options: Any) -> Path:
    folder = make_run(root, run, **options)
    folder.release()
    return folder.save_dir


def state_of(run: Path) -> str:
    return str(read_run(run)[0]["state"])


def log_of(run: Path) -> Path:
    return run.parents[2] / "log" / run.parent.name / run.name / "history.jsonl"


def shown(capsys: Capture, root: Path, *options: str) -> list[list[str]]:
    """The words of each line of the first table, its heading among them."""
    main([str(root / "saved"), *options])
    text = capsys.readouterr().out
    return [line.split() for line in text.split("\n\n")[1].splitlines()]


def first_column(capsys: Capture, root: Path, *options: str) -> list[str]:
    return [words[0] for words in shown(capsys, root, "--each", "--columns", "run", *options)[1:]]


def test_run_of_train_py_is_told_in_full(tmp_path: Path, config_file: Path,
                                         in_process: Any) -> None:
    assert in_process("train.py", "-c", config_file, "--run-id", "one", "seed=7") == 0
    frame = read_runs(tmp_path / "saved")
    row = frame.iloc[0]
    assert list(row[["name", "run", "state", "monitor", "epochs", "steps", "seed"]]) == [
        "Toy", "one", "finished", "min val_loss", 2, 12, 7]
    assert row["best"] <= row["last.val_loss"] and row["best_epoch"] in (1, 2)
    assert row["data_loader.args.batch_size"] == 16 and row["loss"] == "nll_loss"


def test_best_last_value_and_duration(tmp_path: Path) -> None:
    row, rows = read_run(ended_run(tmp_path, "a"))
    assert (row["best"], row["best_epoch"], row["best_step"]) == (0.5, 2, 10)
    assert (row["last.val_loss"], row["duration"], len(rows)) == (0.7, 180.0, 3)


@pytest.mark.parametrize(("monitor", "min_delta", "epoch"), [
    ("min x", 0.0, 4), ("max x", 0.0, 2), ("min x", 0.3, 3), ("off", 0.0, None),
    ("min y", 0.0, None), ("nonsense", 0.0, None)])
def test_best_is_the_one_that_the_monitor_took(monitor: str, min_delta: float,
                                               epoch: int | None) -> None:
    values = [math.nan, 0.9, 0.5, 0.4]
    rows = [{"epoch": epoch, "x": value} for epoch, value in enumerate(values, 1)]
    assert best_row(rows, monitor, min_delta).get("epoch") == epoch


def test_running_run_is_not_disturbed_and_without_its_lock_it_was_killed(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "a", state="running")
    before = sorted(tmp_path.rglob("*"))
    assert state_of(folder.save_dir) == "running"
    with pytest.raises(Timeout):
        FileLock(folder.save_dir / ".lock", timeout=0).acquire()
    folder.release()
    assert state_of(folder.save_dir) == "killed"
    assert sorted(tmp_path.rglob("*")) == before
    (folder.save_dir / ".lock").unlink()
    assert state_of(folder.save_dir) == "killed"
    assert not (folder.save_dir / ".lock").exists()


@pytest.mark.parametrize("state", ["finished", "stopped early", "stopped"])
def test_state_is_that_of_the_end(tmp_path: Path, state: str) -> None:
    assert state_of(ended_run(tmp_path, "a", state=state, reason="why")) == state


def test_failed_run_has_its_reason(tmp_path: Path, capsys: Capture) -> None:
    reason = "ValueError: \x1b[31m " + 10 * "long reason "
    ended_run(tmp_path, "a", state="failed", reason=reason)
    main([str(tmp_path / "saved")])
    text = capsys.readouterr().out
    assert "failed: ValueError: ?[31m" in text and text.count("reason") > 9
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(("file", "content", "state"), [
    ("config.json", None, "finished; no config"),
    ("config.json", b'{"a": ', "finished; config damaged"),
    ("config.json", b'{"trainer": 3}', "finished; config damaged"),
    ("config.json", b"[" * 100000, "finished; config damaged"),
    ("status.json", None, "no status"),
    ("status.json", b"\xff", "status damaged"),
    ("status.json", b'{"state": [1], "epoch": {}, "time": 3}', "status damaged"),
    ("history.jsonl", None, "finished; no history"),
    ("history.jsonl", b'{"epoch": 1, "val_loss": 0.1}\n{"epoch": 2, "va',
     "finished; history: line 2 damaged"),
    ("history.jsonl", b"\x00\xff\n[1]\n3\n", "finished; history: 3 lines damaged; no history"),
    ("history.jsonl", b'{"epoch": 1, "val_loss": NaN, "loss": Infinity}',
     "finished; val_loss, loss not finite"),
    ("history.jsonl", b'{"epoch": [1], "step": {}, "seconds": "x", "time": 7, "\\u001b": 1}',
     "finished; no val_loss in the history"),
    ("history.jsonl", b'{"val_loss": 1' + 400 * b"0" + b"}",
     "finished; no val_loss in the history"),
])
def test_damaged_run_is_a_row_that_says_so(tmp_path: Path, capsys: Capture, file: str,
                                           content: bytes | None, state: str) -> None:
    run = ended_run(tmp_path, "a")
    ended_run(tmp_path, "b", seed=2)
    path = log_of(run) if file == "history.jsonl" else run / file
    path.unlink() if content is None else path.write_bytes(content)
    assert state_of(run) == state
    for options in ([], ["--each"], ["--sort", "steps"], ["--csv", str(tmp_path / "a.csv")],
                    ["--plot", "val_loss", "--out", str(tmp_path / "a.png")]):
        main([str(tmp_path / "saved"), *options])
    assert "b" in capsys.readouterr().out


def test_last_line_that_a_running_run_is_writing_is_no_damage(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "a", state="running")
    with open(log_of(folder.save_dir), "a") as file:
        file.write('{"epoch": 4, "st')
    assert state_of(folder.save_dir) == "running"
    folder.release()
    assert state_of(folder.save_dir) == "killed; history: line 4 damaged"


def test_runs_are_found_below_any_folder_and_once(tmp_path: Path) -> None:
    runs = [ended_run(tmp_path / "x", "a"), ended_run(tmp_path / "x" / "y", "b"),
            ended_run(tmp_path / "x", "", name="plain")]
    (tmp_path / "x" / "saved" / "models" / "other" / "no_run").mkdir(parents=True)
    assert set(find_runs([tmp_path, tmp_path / "x"])) == set(runs)
    assert find_runs([runs[0], runs[0].parent]) == [runs[0]]
    assert [read_run(run)[0]["name"] for run in find_runs([runs[2]])] == ["plain"]


def test_without_runs_one_message_and_a_status(tmp_path: Path) -> None:
    def status(*arguments: Any) -> tuple[int, int]:
        done = subprocess.run([sys.executable, "-m", "tools.runs", *map(str, arguments)], cwd=ROOT,
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout == ""
        return done.returncode, len(done.stderr.splitlines())
    assert status(tmp_path) == (1, 1)
    assert status(tmp_path / "absent") == (2, 1)


def test_seeds_of_one_config_are_one_row_with_mean_deviation_and_count(tmp_path: Path,
                                                                       capsys: Capture) -> None:
    for seed, best in enumerate((0.1, 0.2, 0.3)):
        ended_run(tmp_path, f"low{seed}", seed=seed, losses=[best], lr=0.1)
        ended_run(tmp_path, f"high{seed}", seed=seed, losses=[best + 1], lr=1.0)
    ended_run(tmp_path, "alone", losses=[0.7], lr=10.0)
    assert shown(capsys, tmp_path, "--columns", "run,mean,sd,n,optimizer.args.lr") == [
        ["run", "mean", "sd", "n", "optimizer.args.lr"], ["low0", "+2", "0.20", "0.10", "3", "0.1"],
        ["alone", "0.7", "-", "1", "10"], ["high0", "+2", "1.20", "0.10", "3", "1"]]
    assert len(shown(capsys, tmp_path, "--each")) == 8


def test_unfinished_runs_and_the_same_seed_again_do_not_count(tmp_path: Path,
                                                              capsys: Capture) -> None:
    for run, seed in (("a", 1), ("b", 2), ("c", 2)):
        ended_run(tmp_path, run, seed=seed, losses=[seed])
    ended_run(tmp_path, "d", seed=3, losses=[99], state="failed")
    assert shown(capsys, tmp_path, "--columns", "mean,n,state")[1] == [
        "1.50", "2", "3", "finished,", "1", "failed"]


def test_settings_that_differ_are_shown_and_the_others_are_not(tmp_path: Path,
                                                               capsys: Capture) -> None:
    ended_run(tmp_path, "a", more={"mine": {"x": None, "y": {}}, "freeze": []})
    ended_run(tmp_path, "b", more={"mine": {"z": [1, 2]}})
    main([str(tmp_path / "saved")])
    text = capsys.readouterr().out
    assert "mine.z" in text and "[1, 2]" in text
    assert not any(key in text for key in ("mine.x", "mine.y", "freeze", "save_dir", "args.lr"))


def test_best_comes_first_by_the_mode_else_the_newest(tmp_path: Path, capsys: Capture) -> None:
    for run, value in (("a", 1.0), ("b", 3.0), ("c", math.nan), ("d", 2.0)):
        status = ended_run(tmp_path, run, losses=[value], monitor="max val_loss") / "status.json"
        content = json.loads(status.read_text()) | {"time": f"2098-01-01 00:00:0{ord(run) - 97}"}
        status.write_text(json.dumps(content))
    assert first_column(capsys, tmp_path) == ["b", "d", "a", "c"]
    assert first_column(capsys, tmp_path, "--sort", "val_loss") == ["a", "d", "b", "c"]
    assert first_column(capsys, tmp_path, "--sort", "run", "--desc") == ["d", "c", "b", "a"]
    assert first_column(capsys, tmp_path, "--last", "2") == ["d", "c"]
    ended_run(tmp_path, "e", monitor="min val_loss")
    assert first_column(capsys, tmp_path) == ["d", "c", "b", "a", "e"]


@pytest.mark.parametrize(("test", "runs"), [
    ("run=a", ["a"]), ("name=T*", ["a", "b"]), ("state=failed", ["b"]), ("seed=1.0", ["a", "b"]),
    ("optimizer.args.lr=0.2", ["b"]), ("mine=-", ["a"]), ("mine=yes", ["b"])])
def test_where_chooses_runs(tmp_path: Path, capsys: Capture, test: str, runs: list[str]) -> None:
    ended_run(tmp_path, "a")
    ended_run(tmp_path, "b", lr=0.2, state="failed", reason="X: y", more={"mine": "yes"})
    assert sorted(first_column(capsys, tmp_path, "--where", test)) == runs


@pytest.mark.parametrize(("options", "message"), [
    (["--where", "sed=1"], "no 'sed'; did you mean 'seed'"), (["--where", "seed"], "KEY=VALUE"),
    (["--sort", "lr"], "may be last.lr or optimizer.args.lr"), (["--columns", "?"], "have no '?'"),
    (["--plot", "val_los"], "did you mean 'val_loss'"), (["--plot", "loss", "--out", "a"], "PNG")])
def test_what_there_is_not_is_a_mistake(tmp_path: Path, options: list[str], message: str) -> None:
    ended_run(tmp_path, "a")
    with pytest.raises(ConfigError) as error:
        main([str(tmp_path / "saved"), *options])
    assert message in str(error.value)


@pytest.mark.parametrize(("options", "message"), [
    (["--desc"], "--desc puts the highest of --sort KEY first"),
    (["--out", "a.png"], "--plot NAME"), (["--last", "0"], "at least 1 run, got 0")])
def test_option_that_has_no_effect_is_a_mistake(tmp_path: Path, capsys: Capture,
                                                options: list[str], message: str) -> None:
    ended_run(tmp_path, "a")
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "saved"), *options])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_no_run_chosen_is_told(tmp_path: Path) -> None:
    ended_run(tmp_path, "a")
    with pytest.raises(RunError, match=r"none of 1 runs .* has seed=5"):
        main([str(tmp_path / "saved"), "--where", "seed=5"])


def test_csv_has_every_run_and_column_and_the_plot_is_written(tmp_path: Path,
                                                              capsys: Capture) -> None:
    import pandas as pd

    for seed in (1, 2):
        ended_run(tmp_path, f"a{seed}", seed=seed)
    main([str(tmp_path / "saved"), "--csv", str(tmp_path / "a.csv"), "--plot", "val_loss", "--out",
          str(tmp_path / "a.png")])
    frame = pd.read_csv(tmp_path / "a.csv")
    assert list(frame["run"]) == ["a1", "a2"] and list(frame["best"]) == [0.5, 0.5]
    assert {"trainer.save_dir", "last.val_loss", "path"} <= set(frame)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "with 2 of 2 runs" in capsys.readouterr().out


def test_wide_tables_go_on_below_with_the_names_again(tmp_path: Path, capsys: Capture) -> None:
    for index in range(2):
        ended_run(tmp_path, f"run{index}", more={f"key{i}": index for i in range(30)})
    main([str(tmp_path / "saved")])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("run1") > 2 and "key29" in text


def test_runs_of_other_numbers_of_processes_are_not_one(tmp_path: Path, capsys: Capture) -> None:
    folder = make_run(tmp_path, "two", losses=(0.3,), state="running", seed=2)
    folder.tell("finished", epoch=1, processes=2)
    folder.release()
    ended_run(tmp_path, "one")
    lines = shown(capsys, tmp_path)
    assert [line[0] for line in lines] == ["run", "two", "one"]
    assert lines[0][-2:] == ["seed", "processes"] or "processes" in lines[0]
