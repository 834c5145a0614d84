import copy
import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from base import Callback
from base.profile import SKIPPED, TRACE, Profile, profiling, shares_of
from tests.framework.tiny_run import (
    ClippingTrainer,
    final_state,
    history,
    make_trainer,
    same,
    train,
)
from tests.framework.toy.trainer import Trainer


class Slow(ClippingTrainer):
    """A step of its own in which nearly all time is spent where one says."""

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        data, target = batch
        output = self.model(data)
        loss = self.criterion(output, target)
        for _ in range(20):  # many backwards
            loss.backward(retain_graph=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return output, target, loss


class Fails(ClippingTrainer):
    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        if self.counters.step == SKIPPED + 2:
            raise ValueError("broken step")
        return super()._train_step(batch, batch_idx)


class OwnLoop(Trainer):
    """Draws from the loader by itself."""

    def _train_epoch(self, epoch: int) -> Any:
        for data, target in self.data_loader:
            loss = self.criterion(self.model(data), target)
            loss.backward()
            self.optimizer.step()
        return {"loss": loss.item(), **self.validate()}


class Copies(Callback):
    """Copies the network at each step, as one with a slow twin does."""

    def __init__(self) -> None:
        self.copies: list[nn.Module] = []

    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        self.copies.append(copy.deepcopy(trainer.model))


def trace_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(gzip.decompress(
        (folder / "log" / "tiny" / "run" / TRACE).read_bytes()))
    return content


def names_in(trace: dict[str, Any]) -> list[str]:
    return [event["name"] for event in trace["traceEvents"] if event.get("ph") == "X"]


def run(folder: Path, steps: int = 3, **options: Any) -> Any:
    """A trainer after its training with a profile."""
    trainer = make_trainer(folder, **options)
    trainer.callbacks.add(Profile(steps))
    trainer.train()
    return trainer


def is_hooked(trainer: Any) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks
               for module in trainer.model.modules())


def lines_in(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def span(name: str, start: float, end: float) -> Any:
    return SimpleNamespace(name=name, time_range=SimpleNamespace(start=start, end=end))


def test_trace_has_the_steps_that_were_asked_for(tmp_path: Path) -> None:
    run(tmp_path, steps=3)
    names = names_in(trace_of(tmp_path))
    assert sum(name.startswith("ProfilerStep") for name in names) == 3
    assert names.count("profile: optimizer") == 3
    assert names.count("profile: step ends") == 3


def test_profiled_run_is_equal_to_one_that_is_not(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain")
    profiled = train(tmp_path / "profiled", callbacks=(Profile(3),))
    assert names_in(trace_of(tmp_path / "profiled"))
    assert same(final_state(plain), final_state(profiled))
    assert history(plain) == history(profiled)


def test_resumed_run_keeps_its_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = train(tmp_path, stop_batch=9, callbacks=(Profile(1),))
    before = (tmp_path / "log" / "tiny" / "run" / TRACE).read_bytes()
    train(tmp_path, resume=checkpoints / "latest.pth", callbacks=(Profile(1),), epochs=4,
          verbosity=1)
    assert (tmp_path / "log" / "tiny" / "run" / TRACE).read_bytes() == before
    assert any("is there already" in line for line in lines_in(capsys))


def test_resumed_run_without_a_trace_is_profiled(tmp_path: Path) -> None:
    checkpoints = train(tmp_path, stop_batch=2)
    train(tmp_path, resume=checkpoints / "latest.pth", callbacks=(Profile(2),))
    assert names_in(trace_of(tmp_path)).count("profile: step ends") == 2


def test_run_that_is_shorter_writes_what_there_is(tmp_path: Path) -> None:
    trainer = run(tmp_path, steps=1000)
    assert names_in(trace_of(tmp_path)).count("profile: step ends") == (
        trainer.counters.step - SKIPPED)
    assert not is_hooked(trainer)


def test_run_that_is_too_short_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, max_steps=SKIPPED)
    assert any(f"more than {SKIPPED} training steps" in line for line in lines_in(capsys))
    assert not (tmp_path / "log" / "tiny" / "run" / TRACE).exists()


def test_loop_that_draws_for_itself_is_told_why_there_is_no_profile(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, kind=OwnLoop)
    assert any("nothing was profiled" in line and "self.train_batches()" in line
               for line in lines_in(capsys))


def test_run_that_fails_ends_by_its_own_error_with_a_trace(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken step"):
        run(tmp_path, steps=5, kind=Fails)
    assert names_in(trace_of(tmp_path)).count("profile: step ends") == 2


def test_hooks_are_gone_after_the_profile(tmp_path: Path) -> None:
    seen: list[bool] = []

    class Look(Callback):
        def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
            seen.append(is_hooked(trainer))

    trainer = make_trainer(tmp_path)
    trainer.callbacks.add(Profile(2))
    trainer.callbacks.add(Look())
    trainer.train()
    assert seen[:8] == [False] * 4 + [True] * 2 + [False] * 2


def test_report_fits_the_console_and_shares_the_time(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, steps=3, verbosity=1)
    lines = lines_in(capsys)
    first = next(index for index, line in enumerate(lines) if line.startswith("profile of"))
    assert lines[first].startswith(f"profile of steps {SKIPPED + 1} to {SKIPPED + 3}:")
    shares = [float(line.split()[-1].rstrip("%")) for line in lines[first + 1:first + 6]]
    assert sum(shares) == pytest.approx(100, abs=0.3)  # rounded to tenths
    assert len(lines[first + 7:first + 17]) == 10
    assert all(len(line) <= 80 for line in lines[first:first + 17])


def test_backward_of_a_step_that_calls_it_by_itself_is_found(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, kind=Slow, verbosity=1)
    shares = {line.split()[0]: float(line.split()[-1].rstrip("%")) for line in lines_in(capsys)
              if line.startswith(("  forward ", "  backward ", "  optimizer "))}
    assert shares["backward"] > 10  # it sleeps there


@pytest.mark.slow
def test_compiled_model_is_profiled(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.model = torch.compile(trainer.model, backend="eager")
    trainer.callbacks.add(Profile(3))
    trainer.train()
    assert names_in(trace_of(tmp_path)).count("profile: forward") >= 3
    assert not trainer.model._forward_hooks


def test_accumulated_batches_make_one_step(tmp_path: Path) -> None:
    run(tmp_path, steps=2, kind=Trainer, accumulate=2, epochs=4)
    names = names_in(trace_of(tmp_path))
    assert names.count("profile: step ends") == 3  # the last batch of an epoch, and two
    assert names.count("profile: optimizer") == 2


def test_network_can_be_copied_while_it_is_profiled(tmp_path: Path) -> None:
    copies = Copies()
    run(tmp_path, steps=3, callbacks=(copies,))
    copies.copies[SKIPPED](torch.zeros(1, 6))  # it is of no profile any more
    assert len(copies.copies) == 10


def test_several_optimizers_are_all_found(tmp_path: Path) -> None:
    run(tmp_path, steps=2, optimizers=2)
    assert names_in(trace_of(tmp_path)).count("profile: optimizer") == 4


def test_trace_that_cannot_be_written_does_not_end_the_run(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer(tmp_path)
    (tmp_path / "log" / "tiny" / "run" / TRACE / "is a folder").mkdir(parents=True)
    trainer.callbacks.add(Profile(2))
    trainer.train()
    assert trainer.counters.epoch == 2
    assert any("cannot be written" in line for line in lines_in(capsys))


def test_shares_count_nested_time_once_and_leave_out_what_is_between_steps() -> None:
    node = "autograd::engine::evaluate_function: AddmmBackward0"
    wall, shares = shares_of([
        span("profile: step begins", 0, 0), span("profile: forward", 10, 30),
        span("profile: forward", 15, 20), span(node, 30, 60),
        span("profile: forward", 40, 50),  # again inside the backward
        span("profile: optimizer", 60, 70), span("profile: step ends", 100, 100),
        span("profile: forward", 110, 190), span("profile: step begins", 200, 200),  # validation
        span("profile: forward", 200, 210), span("profile: step ends", 300, 300)],
        seconds_waited=5e-6)
    assert wall == 200
    assert {key: round(value) for key, value in shares.items()} == {
        "data loading": 5, "forward": 30, "backward": 30, "optimizer": 10, "everything else": 125}


def test_settings_without_a_profile_have_no_callback() -> None:
    assert profiling(SimpleNamespace(profile_steps=0)) == []
    assert profiling(SimpleNamespace(profile_steps=20))[0].steps == 20


def test_profile_of_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Profile(0)
