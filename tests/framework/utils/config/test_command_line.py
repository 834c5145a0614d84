"""Options, the files they name and overrides: their order of precedence, all mistakes at once."""

import argparse
import json
import os
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from parse_config import ConfigParser
from tests.framework.utils.config.modules import MODULES
from utils.errors import ConfigError

CustomArgs = namedtuple("CustomArgs", "flags type target")
LR = CustomArgs(["--lr", "--learning_rate"], float, "optimizer;args;lr")
BS = CustomArgs(["--bs", "--batch-size"], int, ("data_loader", "args", "batch_size"))
Parse = Callable[..., ConfigParser]
Refused = Callable[..., str]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch, config_file: Path) -> Parse:
    """``parse(*arguments)``: the config that a train.py gets; its own without ``modules``."""
    def run(*arguments: Any, options: Any = (LR, BS), modules: Any = None,
            config: Path | None = config_file) -> ConfigParser:
        parser = argparse.ArgumentParser(prog="train.py")
        for flag in ("--config", "--resume", "--device"):
            parser.add_argument(flag[1:3], flag)
        for flag in ("--run-id", "--init-from"):
            parser.add_argument(flag)
        for flag in ("--new-run", "--debug"):
            parser.add_argument(flag, action="store_true")
        parser.add_argument("--overfit", type=int)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        given = [] if config is None else ["-c", config]
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, [*given, *arguments])])
        return ConfigParser.from_args(parser, options, modules)
    return run


@pytest.fixture
def refused(parse: Parse, tmp_path: Path, capsys: Capture) -> Refused:
    """``refused(*arguments)``: the message of a command that ends with status 2, writing nothing.
    """
    def run(*arguments: Any, modules: Any = MODULES, **options: Any) -> str:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stop:
            parse(*arguments, modules=modules, **options)
        assert stop.value.code == 2
        assert sorted(tmp_path.rglob("*")) == before
        message = capsys.readouterr().err
        assert message.startswith("train.py: error: ")
        return message
    return run


@pytest.fixture
def checkpoint(tmp_path: Path, config_dict: dict[str, Any]) -> Path:
    """A checkpoint in a run's folder, whose config differs from the file's."""
    path = tmp_path / "saved" / "models" / "Toy" / "first" / "latest.pth"
    path.parent.mkdir(parents=True)
    config_dict["trainer"]["epochs"] = 7
    config_dict["optimizer"]["args"]["lr"] = 0.5
    torch.save({"state_dict": {}, "config": config_dict}, path)
    return path


def test_declared_options_set_their_targets(parse: Parse) -> None:
    config = parse("--learning_rate", "0.25", "--batch-size=8")
    assert config["optimizer"]["args"]["lr"] == 0.25
    assert config["data_loader"]["args"]["batch_size"] == 8


def test_option_that_is_not_given_changes_nothing(parse: Parse,
                                                  config_dict: dict[str, Any]) -> None:
    assert parse()["optimizer"] == config_dict["optimizer"]


def test_option_may_have_several_targets(parse: Parse) -> None:
    option = CustomArgs(["--n"], int, ["trainer;epochs", ("data_loader", "args", "batch_size")])
    config = parse("--n", "3", options=[option])
    assert config["trainer"]["epochs"] == config["data_loader"]["args"]["batch_size"] == 3


def test_further_fields_of_an_option_are_honoured(parse: Parse, refused: Refused) -> None:
    option = SimpleNamespace(flags=["--seed"], type=int, target="seed", choices=[1, 2], default=2)
    assert parse(options=[option])["seed"] == 2
    assert "--seed: expected one of 1, 2, got 3" in refused("--seed", "3", options=[option])


def test_option_may_be_a_switch(parse: Parse) -> None:
    option = SimpleNamespace(flags=["--no-board"], type=None, target="trainer;tensorboard",
                             action="store_false", default=None)
    assert parse("--no-board", options=[option]).trainer.tensorboard is False


def test_help_shows_target_and_the_configs_value(parse: Parse, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "sets optimizer.args.lr (config: 0.01)" in text
    assert "sets data_loader.args.batch_size (config: 16)" in text


def test_options_may_be_empty_text(parse: Parse) -> None:
    assert parse(options="").trainer.epochs == 2


def test_namespace_serves_as_well(config_file: Path) -> None:
    config = ConfigParser.from_args(
        argparse.Namespace(config=str(config_file), lr=0.5, resume=None), [LR])
    assert config["optimizer"]["args"]["lr"] == 0.5
    with pytest.raises(ConfigError, match="expected a config"):
        ConfigParser.from_args(argparse.Namespace())


def test_overrides_may_stand_between_the_options(parse: Parse) -> None:
    config = parse("trainer.epochs=5", "--lr", "0.25", "metrics.0=top_k_acc", "arch.args.width=3")
    assert (config.trainer.epochs, config["metrics"][0]) == (5, "top_k_acc")
    assert config["arch"]["args"] == {"width": 3}


def test_base_of_a_config_is_read(parse: Parse, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('{"base": "config.json", "trainer": {"epochs": 1}}')
    config = parse(config=tmp_path / "b.json", modules=MODULES)
    assert config.trainer.epochs == 1 and config["arch"]["type"] == "ToyModel"


@pytest.mark.parametrize(("device", "visible", "n_gpu"), [
    ("2,3", "2,3", 4), ("cpu", "", 0), ("mps", "", 1), ("cuda", "", 4)])
def test_device_is_chosen_before_cuda_starts(parse: Parse, device: str, visible: str,
                                             n_gpu: int) -> None:
    config = parse("-d", device, "n_gpu=4")
    assert (os.environ["CUDA_VISIBLE_DEVICES"], config.run.n_gpu) == (visible, n_gpu)


@pytest.mark.parametrize("device", ["gpu", "0;rm", "", "1,", "cuda:0"])
def test_unknown_device_is_told(refused: Refused, device: str) -> None:
    assert "--device: expected GPU numbers" in refused(f"--device={device}")


@pytest.mark.parametrize(("arguments", "epochs", "lr"), [
    ([], 7, 0.5), (["-c", "part"], 9, 0.5), (["-c", "part", "--lr", "0.25"], 9, 0.25),
    (["-c", "part", "--lr", "0.25", "optimizer.args.lr=0.125", "trainer.epochs=11"], 11, 0.125)])
def test_later_sources_win(parse: Parse, tmp_path: Path, checkpoint: Path, arguments: list[str],
                           epochs: int, lr: float) -> None:
    (tmp_path / "part").write_text('{"trainer": {"epochs": 9}}')
    given = [tmp_path / "part" if item == "part" else item for item in arguments]
    config = parse("-r", checkpoint, *given, config=None)
    assert (config.trainer.epochs, config["optimizer"]["args"]["lr"]) == (epochs, lr)
    assert config.resume == checkpoint and config["name"] == "Toy"


def test_config_beside_a_checkpoint_without_one_is_taken(parse: Parse, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "a.pth")
    assert parse("-r", tmp_path / "a.pth", config=None).trainer.epochs == 2


def test_checkpoint_without_any_config_is_told(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    torch.save({"state_dict": {}}, tmp_path / "bare" / "a.pth")
    message = refused("-r", tmp_path / "bare" / "a.pth", config=None)
    assert "holds no config and there is no config.json beside it" in message


@pytest.mark.parametrize("config", [{"x": torch.zeros(2)}, {"x": b"1"}, {(1, 2): 3}], ids=str)
def test_config_in_a_checkpoint_that_is_no_json_is_told(refused: Refused, tmp_path: Path,
                                                        config: Any) -> None:
    torch.save({"state_dict": {}, "config": config}, tmp_path / "a.pth")
    assert "its config is not plain JSON" in refused("-r", tmp_path / "a.pth", config=None)


@pytest.mark.parametrize("override", ["trainer.save_dir={}", None])
def test_latest_is_looked_for_where_runs_write(parse: Parse, tmp_path: Path, checkpoint: Path,
                                               monkeypatch: Any, override: str | None) -> None:
    monkeypatch.chdir(tmp_path / "saved" if override else tmp_path)
    given = [override.format(tmp_path / "saved")] if override else []
    assert parse("-r", "latest", *given, config=None).resume.resolve() == checkpoint


@pytest.mark.parametrize("content", ['{"trainer": 5}', '{"trainer": {"save_dir": 5}}',
                                     '{"name": "../../**a", "trainer": {}}', '{"name": []}'])
def test_latest_beside_a_broken_config_is_told(refused: Refused, tmp_path: Path, monkeypatch: Any,
                                               content: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.json").write_text(content)
    assert "--resume: " in refused("-r", "latest", config=tmp_path / "b.json")


@pytest.mark.parametrize(("arguments", "words"), [
    ((), "expected a config (-c config.json), got none"),
    (("my.json",), "expected a config (-c my.json), got none"),
    (("-c", "none.json"), "none.json: cannot be read"),
    (("-c", "latest.pth"), "got a checkpoint; to go on with it, use --resume latest.pth"),
    (("-r", "a.json"), "expected a checkpoint (.pth), got a config; to start a run"),
    (("-r", "none.pth"), "no such file; expected a checkpoint (.pth), a run's folder"),
    (("-r", "text.pth"), "expected a checkpoint, got some other kind of file"),
    (("-r", "."), "no checkpoint (.pth) in this folder"),
    (("-r", "saved/models/Toy"), "it holds runs, the newest is saved/models/Toy/first"),
    (("-r", "auto"), "--resume auto starts a run"), (("-r", "latest"), "no run in this folder")])
def test_what_is_no_config_or_no_checkpoint_is_told_with_what_to_do(
        refused: Refused, tmp_path: Path, checkpoint: Path, monkeypatch: Any,
        arguments: tuple[str, ...], words: str) -> None:
    if arguments == ("-r", "latest"):
        checkpoint.unlink()
    else:
        (tmp_path / "latest.pth").write_bytes(checkpoint.read_bytes())
    monkeypatch.chdir(tmp_path / "saved" if arguments[:2] == ("-r", ".") else tmp_path)
    (tmp_path / "text.pth").write_text("text")
    assert words in refused(*arguments, config=None)


def test_weights_for_a_run_that_goes_on_are_refused(refused: Refused, checkpoint: Path) -> None:
    message = refused("-r", checkpoint, "--init-from", checkpoint)
    assert "--init-from: a run that goes on has weights already" in message


def test_folder_for_a_run_that_goes_on_is_refused(refused: Refused, checkpoint: Path) -> None:
    message = refused("-r", checkpoint, "trainer.save_dir=elsewhere", config=None)
    assert "goes on writes to its own folder" in message and "--new-run" in message


def test_all_mistakes_are_told_at_once(refused: Refused, tmp_path: Path,
                                       config_dict: dict[str, Any]) -> None:
    config_dict["nme"] = config_dict.pop("name")
    config_dict["trainer"] |= {"epoch": 3, "log_steps": 0}
    config_dict["optimizer"] |= {"type": "Adm"}
    config_dict["lr_scheduler"]["args"] = {"gamm": 0.1}
    config_dict["metrics"][1] = "top_k_ac"
    (tmp_path / "config.json").write_text(json.dumps(config_dict))
    message = refused("--lr", "nan", "--bs=x", "--no-such", "--overfit", "many", "--device", "gpu",
                      "--run-id", "../up", "trainer.epochs=0", "optimizr.x=1", "+a.b")
    told = [line.strip().split(": ")[0] for line in message.splitlines()[1:]]
    assert f"{tmp_path / 'config.json'}: 16 problems" in message
    assert sorted(told) == sorted([
        "--lr", "--bs", "--no-such", "--overfit", "--device", "--run-id", "optimizr.x=1", "+a.b",
        "nme", "trainer.epoch", "trainer.epochs", "trainer.log_steps", "optimizer.type",
        "lr_scheduler.args.gamm", "lr_scheduler.args.step_size", "metrics.1.type"])


@pytest.mark.parametrize(("arguments", "words"), [
    (("--overfit",), "--overfit: expected one argument"),
    (("--overfit", "x"), "--overfit: invalid int value: 'x'"),
    (("--overfit=x",), "--overfit: invalid int value: 'x'"),
    (("--overfit", "0"), "--overfit: expected a number of batches from 1 on, got 0"),
    (("--debug=5",), "--debug: ignored explicit argument '5'"),
    (("--lrr", "5"), "--lrr: unknown option; did you mean '--lr'")])
def test_mistake_in_an_option_hides_no_other(refused: Refused, arguments: tuple[str, ...],
                                             words: str) -> None:
    message = refused("trainer.epochs=0", *arguments)
    assert words in message and "trainer.epochs: expected" in message
    assert words in refused("-r", "none.pth", *arguments, config=None)


def test_option_without_the_config_that_it_wants_is_told_alone(refused: Refused) -> None:
    message = refused("-c", config=None)
    assert "expected a config" in message and "--config: expected one argument" in message


def test_log_shows_what_differs_from_the_file(parse: Parse, config_file: Path,
                                              capsys: Capture) -> None:
    parse("--lr", "0.25", "+mine=1", "~metrics.0")
    text = capsys.readouterr().out
    assert f"changes to {config_file}:" in text
    for line in ("  optimizer.args.lr: 0.01 -> 0.25", "  mine: (absent) -> 1",
                 '  metrics.0: "accuracy" -> "top_k_acc"'):
        assert line in text.splitlines()


def test_written_config_has_the_overrides_and_every_default(parse: Parse) -> None:
    config = parse("--lr", "0.25")
    written = json.loads((config.save_dir / "config.json").read_text())
    assert written == config.config
    assert written["optimizer"]["args"]["lr"] == 0.25
    assert (written["seed"], written["freeze"], written["trainer"]["keep_last"]) == (123, [], 0)
