"""The commands of the README, on tiny data."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.tiny_run import final_state, history, same
from utils.checkpoint_file import read_checkpoint

Run = Callable[..., int]


def runs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "saved" / "models" / "Mnist_LeNet").glob("*"))


def log_dir(run: Path) -> Path:
    return run.parents[2] / "log" / run.parent.name / run.name


@pytest.fixture
def trained(tmp_path: Path, config_file: Path, in_process: Run) -> Path:
    """Folder of a run of two epochs."""
    assert in_process("train.py", "-c", config_file) == 0
    return runs(tmp_path)[0]


def test_run_leaves_its_files(trained: Path) -> None:
    """D14, D15, D27, D49: checkpoints, config, log, history and events."""
    assert {file.name for file in trained.iterdir()} - {".lock"} == {
        "checkpoint-epoch1.pth", "checkpoint-epoch2.pth", "latest.pth", "model_best.pth",
        "config.json", "environment.json"}
    names = {file.name.split(".")[0] for file in log_dir(trained).iterdir()}
    assert names == {"info", "events", "history"}
    lines = (log_dir(trained) / "history.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert {"loss", "accuracy", "top_k_acc", "lr", "val_loss", "val_accuracy"} <= set(rows[0])


def test_a_run_does_not_import_the_compiler(config_file: Path) -> None:
    """Importing it takes over a second, as much as the rest of the way to the first step."""
    command = [sys.executable, "-X", "importtime", "train.py", "-c", str(config_file)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
    assert result.returncode == 0 and "torch.optim" in imported
    assert "torch._dynamo" not in imported


def test_log_file_has_batch_lines_and_the_model(trained: Path) -> None:
    """D45: what was logged before the folder existed is there as well."""
    text = (log_dir(trained) / "info.log").read_text()
    assert "epoch 1  batch 0/9  loss" in text
    assert "Trainable parameters: 21840" in text
    assert "finished 2 epochs" in text


def test_events_have_means_lr_images_and_histograms(trained: Path) -> None:
    """D49: once an epoch, for training and validation."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(log_dir(trained))).Reload()
    tags = events.Tags()
    assert {"loss/train", "loss/valid", "accuracy/train", "accuracy/valid", "lr/train",
            "batch_loss/train"} <= set(tags["scalars"])
    assert any(tag.startswith("input/train") for tag in tags["images"])
    assert any(tag.startswith("input/valid") for tag in tags["images"])
    assert {"conv1.weight", "fc2.bias"} <= set(tags["histograms"])
    assert [event.step for event in events.Scalars("loss/valid")] == [9, 18]


def test_checkpoint_loads_without_the_project(trained: Path, tmp_path: Path) -> None:
    """D4, D5, D6: plain types only, in a Python that does not know the project."""
    code = ("import sys, torch; c = torch.load(sys.argv[1], weights_only=True);"
            "print(c['arch'], c['epoch'], c['config']['name'], len(c['state_dict']))")
    result = subprocess.run([sys.executable, "-c", code, trained / "latest.pth"], cwd=tmp_path,
                            capture_output=True, text=True, timeout=120)
    assert result.stdout.split() == ["MnistModel", "2", "Mnist_LeNet", "8"], result.stderr


def test_environment_of_the_run_is_noted(trained: Path) -> None:
    noted = json.loads((trained / "environment.json").read_text())
    assert noted["packages"]["torch"] == torch.__version__.split("+")[0] or (
        noted["packages"]["torch"] == torch.__version__)
    assert "train.py -c" in noted["command"]


@pytest.mark.parametrize("what", ["latest.pth", "."])
def test_resume_goes_on_in_the_same_folder(trained: Path, tmp_path: Path, in_process: Run,
                                           what: str) -> None:
    """D26: one log, one history, no doubled rows."""
    assert in_process("train.py", "--resume", trained / what, "trainer.epochs=3") == 0
    assert runs(tmp_path) == [trained]
    lines = (log_dir(trained) / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


def test_resume_latest_finds_the_newest_run_of_that_name(trained: Path, config_file: Path,
                                                         in_process: Run) -> None:
    assert in_process("train.py", "-c", config_file, "--resume", "latest", "trainer.epochs=3") == 0
    assert read_checkpoint(trained / "latest.pth")["epoch"] == 3


def test_resuming_from_an_earlier_epoch_doubles_nothing(trained: Path, in_process: Run) -> None:
    """D26: log lines, rows and events after the checkpoint are dropped."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    before = (log_dir(trained) / "history.jsonl").read_bytes()
    time.sleep(1.1)  # events are read in the order of their files' names, which have seconds
    assert in_process("train.py", "--resume", trained / "checkpoint-epoch1.pth") == 0
    assert (log_dir(trained) / "history.jsonl").read_bytes() == before
    text = (log_dir(trained) / "info.log").read_text()
    assert text.count("epoch 2  batch 0/9") == 1
    events = EventAccumulator(str(log_dir(trained))).Reload()
    assert [event.step for event in events.Scalars("loss/valid")] == [9, 18]


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_example_ends_with_the_same_bits(tmp_path: Path, config_file: Path,
                                                 in_process: Run, workers: int) -> None:
    """D19, D22, D23: with TensorBoard, metrics, channels_last, the fused optimizer and all."""
    train = functools.partial(in_process, "train.py", "-c", config_file, "--run-id")
    assert train("whole") == 0
    assert train("parts", "trainer.max_seconds=1e-6") == 124
    whole, parts = (tmp_path / "saved" / "models" / "Mnist_LeNet" / name
                    for name in ("whole", "parts"))
    assert read_checkpoint(parts / "latest.pth")["parts"]["progress"]["batch"] == 1
    assert in_process("train.py", "--resume", parts, "trainer.max_seconds=null",
                      f"data_loader.args.num_workers={workers}") == 0
    assert same(final_state(parts), final_state(whole))
    assert history(parts) == history(whole)


def test_new_run_branches_off(trained: Path, tmp_path: Path, in_process: Run) -> None:
    assert in_process("train.py", "--resume", trained, "--new-run", "trainer.epochs=3") == 0
    assert len(runs(tmp_path)) == 2
    assert read_checkpoint(trained / "latest.pth")["epoch"] == 2


def test_run_id_names_the_folder(tmp_path: Path, config_file: Path, in_process: Run) -> None:
    assert in_process("train.py", "-c", config_file, "--run-id", "first", "trainer.epochs=1") == 0
    assert [run.name for run in runs(tmp_path)] == ["first"]
    assert in_process("train.py", "-c", config_file, "--run-id", "first") == 2


def test_lr_on_resume_takes_effect_and_is_logged(trained: Path, in_process: Run,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    """D25: an override given on resume, as old -> new."""
    assert in_process("train.py", "--resume", trained, "--lr", "0.5", "trainer.epochs=3") == 0
    assert read_checkpoint(trained / "latest.pth")["optimizer"]["param_groups"][0]["lr"] == 0.5
    assert "optimizer.args.lr: 0.002 -> 0.5" in capsys.readouterr().out


def test_fine_tuning_merges_deeply(trained: Path, tmp_path: Path, in_process: Run) -> None:
    """D28: a partial config changes only what it names."""
    part = tmp_path / "part.json"
    part.write_text('{"optimizer": {"args": {"lr": 0.02}}, "trainer": {"epochs": 3}}')
    assert in_process("train.py", "-c", part, "--resume", trained) == 0
    checkpoint = read_checkpoint(trained / "latest.pth")
    assert checkpoint["epoch"] == 3
    assert checkpoint["config"]["optimizer"]["args"] == {
        "lr": 0.02, "weight_decay": 0, "amsgrad": True, "fused": True}


def test_best_of_another_metric_is_not_taken_over(trained: Path, in_process: Run) -> None:
    """D29: a best loss is no best accuracy."""
    assert in_process("train.py", "--resume", trained, "trainer.epochs=3",
                      "trainer.monitor=max val_accuracy") == 0
    assert read_checkpoint(trained / "latest.pth")["monitor_best"] <= 1


def test_declared_options_set_their_targets(tmp_path: Path, config_file: Path,
                                            in_process: Run) -> None:
    assert in_process("train.py", "-c", config_file, "--lr", "0.01", "--bs", "50",
                      "trainer.epochs=1", "--device", "cpu") == 0
    config = json.loads((runs(tmp_path)[0] / "config.json").read_text())
    assert config["optimizer"]["args"]["lr"] == 0.01
    assert config["data_loader"]["args"]["batch_size"] == 50


def test_test_writes_a_table_and_json_and_no_run(trained: Path, tmp_path: Path, in_process: Run,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    """D42: from the checkpoint alone, on the test set."""
    assert in_process("test.py", "--resume", trained / "model_best.pth") == 0
    result = json.loads((trained / "model_best.test.json").read_text())
    assert result["samples"] == 60
    assert set(result) == {"checkpoint", "epoch", "samples", "loss", "accuracy", "top_k_acc"}
    assert "accuracy" in capsys.readouterr().out
    assert runs(tmp_path) == [trained]


def test_test_with_whole_set_metrics(tmp_path: Path, config_dict: dict[str, Any],
                                     in_process: Run) -> None:
    """D10, D41: metrics of torchmetrics and arguments, named in the config."""
    config_dict["metrics"] = [
        "accuracy", {"type": "top_k_acc", "args": {"k": 5}, "name": "top_5"},
        {"type": "MulticlassF1Score", "args": {"num_classes": 10}}]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_dict))
    assert in_process("train.py", "-c", path, "trainer.epochs=1") == 0
    run = runs(tmp_path)[0]
    assert in_process("test.py", "--resume", run) == 0
    result = json.loads((run / "model_best.test.json").read_text())
    assert {"accuracy", "top_5", "MulticlassF1Score"} <= set(result)


def test_init_from_takes_weights_only(trained: Path, tmp_path: Path, config_file: Path,
                                      in_process: Run) -> None:
    assert in_process("train.py", "-c", config_file, "--init-from", trained / "latest.pth",
                      "trainer.epochs=1", "+freeze=[\"conv*\"]") == 0
    old = read_checkpoint(trained / "latest.pth")
    run = next(run for run in runs(tmp_path) if run != trained)
    new = read_checkpoint(run / "latest.pth")
    assert new["epoch"] == 1
    assert torch.equal(old["state_dict"]["conv1.weight"], new["state_dict"]["conv1.weight"])
    assert not torch.equal(old["state_dict"]["fc1.weight"], new["state_dict"]["fc1.weight"])


def test_debug_leaves_nothing(tmp_path: Path, config_file: Path, in_process: Run) -> None:
    try:
        assert in_process("train.py", "-c", config_file, "--debug") == 0
        assert torch.is_anomaly_enabled()
    finally:
        torch.autograd.set_detect_anomaly(False)
    assert not (tmp_path / "saved").exists()


def test_overfit_trains_on_the_same_batches(tmp_path: Path, config_file: Path,
                                            in_process: Run) -> None:
    assert in_process("train.py", "-c", config_file, "--overfit", "2") == 0
    assert read_checkpoint(runs(tmp_path)[0] / "latest.pth")["parts"]["progress"]["step"] == 4


def test_dry_run_shows_everything_and_writes_nothing(tmp_path: Path, config_file: Path,
                                                     in_process: Run,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    assert in_process("train.py", "-c", config_file, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "Trainable parameters: 21840" in text
    assert "(float32 (20, 1, 28, 28), int64 (20,))" in text
    assert "training: 9 batches per epoch" in text
    assert '"batch_size": 20' in text
    assert not (tmp_path / "saved").exists()


def test_time_limit_saves_and_stops(tmp_path: Path, config_file: Path, in_process: Run) -> None:
    assert in_process("train.py", "-c", config_file, "trainer.max_seconds=0.000001") == 124
    assert read_checkpoint(runs(tmp_path)[0] / "latest.pth")["parts"]["progress"]["batch"] == 1


def test_loss_that_is_not_finite_stops_before_the_step(trained: Path, in_process: Run,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    """D18: names epoch, batch, lr and samples; the last checkpoint stays good."""
    assert in_process("train.py", "--resume", trained, "--lr", "1e30", "trainer.epochs=4") == 1
    message = capsys.readouterr().err
    assert "the loss is not finite (epoch 3, batch" in message
    assert "lr 1e+30" in message
    assert "samples of the batch: [" in message
    checkpoint = read_checkpoint(trained / "latest.pth")
    assert checkpoint["epoch"] == 2
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())


def test_unknown_monitor_is_refused_before_the_first_epoch(
        tmp_path: Path, config_file: Path, in_process: Run,
        capsys: pytest.CaptureFixture[str]) -> None:
    assert in_process("train.py", "-c", config_file, "trainer.monitor=max val_acuracy") == 1
    assert "val_accuracy" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "words"), [
    ([], "-c config.json"),
    (["-c", "nowhere.json"], "nowhere.json"),
    (["--resume", "config.json"], "use -c config.json"),
    (["--resume", "README.md"], "checkpoint"),
    (["--resume", "nowhere.pth"], "no such file"),
    (["--resume", "tests"], "no checkpoint"),
    (["-c", "config.json", "--device", "two"], "--device"),
    (["-c", "config.json", "--run-id", "../up"], "--run-id"),
    (["-c", "config.json", "trainer.epoch=3"], "trainer.epochs"),
    (["-c", "config.json", "optimizer.type=Adamm"], "Adam"),
    (["-c", "config.json", "--bs", "many"], "many"),
])
def test_bad_input_gets_one_message_and_status_2(
        tmp_path: Path, in_process: Run, capsys: pytest.CaptureFixture[str],
        arguments: list[str], words: str) -> None:
    """D38, D43: what was expected, what came, where to mend it."""
    saved = ROOT / "saved"
    before = sorted(saved.rglob("*")) if saved.exists() else []
    assert in_process("train.py", *arguments) == 2
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
    assert (sorted(saved.rglob("*")) if saved.exists() else []) == before


def test_help_is_quick_and_does_not_import_torch() -> None:
    code = ("import runpy, sys; sys.argv = ['train.py', '--help']\n"
            "try: runpy.run_path('train.py', run_name='__main__')\n"
            "except SystemExit: print('torch' in sys.modules)")
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                            timeout=60)
    assert result.stdout.splitlines()[-1] == "False"
    for option in ("--config", "--resume", "--device", "--lr", "--bs", "--run-id", "--new-run",
                   "--init-from", "--debug", "--overfit", "--dry-run", "key=value"):
        assert option in result.stdout


def start(config_file: Path, *arguments: str) -> "subprocess.Popen[str]":
    """A run of its own process group, which has trained some steps when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-u", "train.py", "-c", str(config_file), "trainer.epochs=10000",
         "trainer.early_stop=0", "trainer.log_steps=1", "trainer.tensorboard=false", *arguments],
        cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"})
    for line in process.stdout:
        if line.startswith("epoch 2  batch 3"):
            return process
    raise AssertionError(f"the run ended with {process.wait()}")


def children(process_id: int) -> list[int]:
    """Living processes of the group, by their id."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == process_id and fields[0] != "Z":
            found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("number", "workers"), [
    (signal.SIGTERM, 2), (signal.SIGINT, 0), (signal.SIGUSR1, 0)])
def test_signal_saves_inside_the_epoch_and_says_how_to_go_on(
        tmp_path: Path, config_file: Path, number: int, workers: int) -> None:
    """D35: status 128 + signal; no loader worker is left behind."""
    process = start(config_file, f"data_loader.args.num_workers={workers}")
    os.killpg(process.pid, number)  # as a terminal or a scheduler does, workers included
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + number, text
    latest = runs(tmp_path)[0] / "latest.pth"
    assert f"python train.py --resume {latest}" in text
    assert read_checkpoint(latest)["parts"]["progress"]["batch"] > 0
    assert children(process.pid) == []
    log = (log_dir(runs(tmp_path)[0]) / "info.log").read_text()
    assert f"stopped by {signal.Signals(number).name}" in log


@pytest.mark.slow
def test_folder_of_a_living_run_is_refused(tmp_path: Path, config_file: Path,
                                           run_script: Any) -> None:
    process = start(config_file)
    try:
        result = run_script("train.py", "--resume", runs(tmp_path)[0])
        assert result.returncode == 1
        assert "another process" in result.stderr
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_error_in_user_code_shows_its_traceback_and_keeps_the_checkpoint(
        tmp_path: Path, config_file: Path) -> None:
    """D35: the log is closed properly and has the traceback, too."""
    code = ("import runpy, sys, model.metric as metric\n"
            "def accuracy(output, target, calls=[]):\n"
            "    calls.append(1)\n"
            "    if len(calls) > 15: raise ZeroDivisionError('mine')\n"
            "    return 1.0\n"
            "metric.accuracy = accuracy\n"
            f"sys.argv = ['train.py', '-c', {str(config_file)!r}, 'trainer.epochs=9']\n"
            "runpy.run_path('train.py', run_name='__main__')\n")
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                            timeout=120)
    assert result.returncode == 1
    assert result.stderr.rstrip().endswith("ZeroDivisionError: mine")
    run = runs(tmp_path)[0]
    assert read_checkpoint(run / "latest.pth")["epoch"] == 1
    log = (log_dir(run) / "info.log").read_text()
    assert "ZeroDivisionError: mine" in log
    assert "go on with" in log


@pytest.mark.slow
def test_second_interrupt_quits_at_once(tmp_path: Path, config_file: Path) -> None:
    code = ("import runpy, signal, sys, os\n"
            "from base import Callback\n"
            "import trainer.trainer as t\n"
            "class Twice(Callback):\n"
            "    def on_step_end(self, trainer, batch_idx, batch):\n"
            "        os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGINT)\n"
            "        print('not reached')\n"
            "t.InputImages = Twice\n"
            f"sys.argv = ['train.py', '-c', {str(config_file)!r}]\n"
            "runpy.run_path('train.py', run_name='__main__')\n")
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                            timeout=120)
    assert result.returncode == 130, result.stderr
    assert "not reached" not in result.stdout


@pytest.mark.slow
def test_compiled_model_saves_the_keys_of_the_bare_one(tmp_path: Path, config_file: Path,
                                                       run_script: Any) -> None:
    """D31: no ``_orig_mod.`` in the keys; ``arch`` names the model."""
    result = run_script("train.py", "-c", config_file, "trainer.compile=true", "trainer.epochs=1",
                        timeout=300)
    assert result.returncode == 0, result.stderr
    checkpoint = read_checkpoint(runs(tmp_path)[0] / "latest.pth")
    assert checkpoint["arch"] == "MnistModel"
    assert "conv1.weight" in checkpoint["state_dict"]


@pytest.mark.parametrize("mode", ["true", '"warn"'])
def test_deterministic_kernels_are_a_setting(config_file: Path, in_process: Run,
                                             mode: str) -> None:
    """D51: and train the example."""
    try:
        assert in_process("train.py", "-c", config_file, "trainer.epochs=1",
                          f"trainer.deterministic={mode}") == 0
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled() == (mode != "true")
    finally:
        torch.use_deterministic_algorithms(False)


def test_several_processes_are_refused(config_file: Path, in_process: Run,
                                       monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert in_process("train.py", "-c", config_file) == 2
    assert "torchrun" in capsys.readouterr().err
