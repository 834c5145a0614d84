"""A run that was stopped anywhere and resumed ends with the same bits as one that was not."""

import functools
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from base import BaseDataLoader, BaseTrainer, Callback
from base.checkpoint import saver
from parse_config import ConfigParser
from tests.framework.tiny_run import (
    STEPS_PER_EPOCH,
    ClippingTrainer,
    NoisyData,
    final_state,
    history,
    make_trainer,
    noisy,
    same,
    train,
)
from tests.framework.toy.trainer import Trainer
from utils.errors import CheckpointError, RunError
from utils.runs.checkpoint_file import read_checkpoint


class TwoNetworks(ClippingTrainer):
    """Holds a second network with an optimizer, an average of the first, and a generator."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.critic = nn.Linear(2, 1)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=0.1)
        self.ema = torch.optim.swa_utils.AveragedModel(
            self.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
        self.noise = torch.Generator().manual_seed(3)

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        output, target, loss = super()._train_step(batch, batch_idx)
        noise = torch.randn(output.shape, generator=self.noise)
        score = self.critic(output.detach() + noise).square().mean()
        self.critic_optimizer.zero_grad()
        score.backward()
        self.critic_optimizer.step()
        self.ema.update_parameters(self.model)
        self.train_metrics.update("critic_loss", score, len(target))
        return output, target, loss


class Accumulating(ClippingTrainer):
    """Steps after every third batch, across epochs."""

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        data, target = batch
        output = self.model(data)
        loss = self.criterion(output, target)
        (loss / 3).backward()
        if batch_idx % 3 == 2:
            self.optimizer.step()
            self.optimizer.zero_grad()
        return output, target, loss


class CriticAccumulates(TwoNetworks):
    """The second network's optimizer steps after every third batch."""

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        output, target, loss = ClippingTrainer._train_step(self, batch, batch_idx)
        self.critic(output.detach()).square().mean().backward()
        if batch_idx % 3 == 2:
            self.critic_optimizer.step()
            self.critic_optimizer.zero_grad()
        return output, target, loss


class HoldsAMetric(ClippingTrainer):
    """Has a metric of torchmetrics as an attribute."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.mean = torchmetrics.MeanMetric()

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        output, target, loss = super()._train_step(batch, batch_idx)
        self.mean.update(output.detach().abs().mean())
        return output, target, loss

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        log = super()._train_epoch(epoch)
        with warnings.catch_warnings():  # it does not know that it saw something before the stop
            warnings.simplefilter("ignore")
            log["mean"] = float(self.mean.compute())
        self.mean.reset()
        return log


class LeavesEarly(ClippingTrainer):
    """Leaves the epoch by break."""

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        self.model.train()
        for batch_idx, batch in self.train_batches():
            self.train_metrics.update("loss", self._train_step(batch, batch_idx)[2])
            if batch_idx == 2:
                break
        return {**self.train_metrics.result(), **self.validate()}


class LeavesAtTheEnd(ClippingTrainer):
    """Leaves the epoch by break after its last batch."""

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        for batch_idx, batch in self.train_batches():
            self.train_metrics.update("loss", self._train_step(batch, batch_idx)[2])
            if batch_idx == STEPS_PER_EPOCH - 1:
                break
        return {**self.train_metrics.result(), **self.validate()}


def plain_data() -> TensorDataset:
    data = torch.randn(36, 6, generator=torch.Generator().manual_seed(1))
    return TensorDataset(data, (data.sum(1) > 0).long())


def torchs_loader(**options: Any) -> Any:
    return DataLoader(plain_data(), 8, **options)


class Remembers(IterableDataset[Any]):
    """A stream that knows where it is; counts what it reads."""

    def __init__(self) -> None:
        self.place, self.num_read = 0, 0

    def __iter__(self) -> Any:
        data, target = plain_data().tensors
        for place in range(self.place, 36):
            self.place, self.num_read = place + 1, self.num_read + 1
            yield noisy(data[place]), target[place]
        self.place = 0

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class CountsPasses(Remembers):
    """One whose state does not return to its beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def __iter__(self) -> Any:
        data, target = plain_data().tensors
        for place in range(self.place, 36):
            self.place = place + 1
            yield noisy(data[place]) + self.passes, target[place]
        self.place, self.passes = 0, self.passes + 1

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place, "passes": self.passes}


class SparseBuffer(ClippingTrainer):
    """Has a sparse tensor among the model's buffers."""

    def __init__(self, *args: Any, **options: Any) -> None:
        args[0].register_buffer("graph", torch.eye(6).to_sparse())
        super().__init__(*args, **options)


def own_generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


class ReadsTheLoader(Callback):
    """Looks at training data of its own accord, in the middle of an epoch and after it."""

    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        if batch_idx == 1:
            next(iter(trainer.data_loader))

    def on_epoch_end(self, trainer: Any, epoch: int, log: dict[str, Any]) -> None:
        log["read"] = sum(len(target) for _, target in trainer.data_loader)


KINDS: dict[str, dict[str, Any]] = {
    "StepLR": {},
    "OneCycleLR": {"schedule": "OneCycleLR"},
    "ReduceLROnPlateau": {"schedule": "ReduceLROnPlateau"},
    "two optimizers": {"optimizers": 2},
    "two networks": {"kind": TwoNetworks},
    "accumulating": {"kind": Accumulating},
    "callback reads": {"callbacks": (ReadsTheLoader(),)},
    "stream": {"is_stream": True},
    "len_epoch": {"len_epoch": 3, "epochs": 4},
    "critic accumulates": {"kind": CriticAccumulates},
    "metric held": {"kind": HoldsAMetric},
    "left by break": {"kind": LeavesEarly, "epochs": 4},
    "left by break at the end": {"kind": LeavesAtTheEnd, "epochs": 3},
    "torch's loader": {"make_loader": lambda: torchs_loader(
        shuffle=True, generator=own_generator())},
    "torch's sampler": {"make_loader": lambda: torchs_loader(
        sampler=RandomSampler(plain_data(), generator=own_generator()))},
    "stream with a state": {"make_loader": lambda: BaseDataLoader(Remembers(), 8)},
    "stream with a state of all passes": {"make_loader": lambda: BaseDataLoader(CountsPasses(), 8)},
    "the same, len_epoch": {"make_loader": lambda: BaseDataLoader(CountsPasses(), 8),
                            "len_epoch": 3, "epochs": 4},
    "the same, valid_steps": {"make_loader": lambda: BaseDataLoader(CountsPasses(), 8),
                              "valid_steps": 5, "monitor": "min loss"},
    "sparse buffer": {"kind": SparseBuffer},
    "accumulate": {"kind": Trainer, "accumulate": 3, "schedule": "OneCycleLR"},
    "accumulate, len_epoch": {"kind": Trainer, "accumulate": 2, "len_epoch": 3, "epochs": 4},
    "accumulate, stream": {"kind": Trainer, "accumulate": 2, "is_stream": True, "valid_steps": 2},
    "accumulate, clip, average": {"kind": Trainer, "accumulate": 2, "clip_grad_norm": 0.1,
                                  "ema_decay": 0.9, "save_steps": 1},
    "bf16": {"kind": Trainer, "precision": "bf16"},
    "fp16": {"kind": Trainer, "precision": "fp16", "clip_grad_norm": 0.5},
    "valid_steps": {"valid_steps": 2, "early_stop": 9, "keep_best": 2},
    "valid_steps across epochs": {"valid_steps": 4, "schedule": "ReduceLROnPlateau"},
    "valid_steps, epochs end with them": {"valid_steps": 5, "save_steps": 1},
    "valid_steps, len_epoch": {"valid_steps": 2, "len_epoch": 3, "epochs": 4},
    "valid_steps, stream": {"valid_steps": 3, "is_stream": True},
    "max_steps": {"max_steps": 7, "epochs": None},
    "max_steps, valid_steps": {"max_steps": 8, "valid_steps": 3, "schedule": "OneCycleLR"},
    "two workers": {"num_workers": 2},
    "stream, two workers": {"is_stream": True, "num_workers": 2},
    "callback reads, two workers": {"callbacks": (ReadsTheLoader(),), "num_workers": 2,
                                    "len_epoch": 3, "epochs": 4},
}
BATCHES = range(1, 2 * STEPS_PER_EPOCH + 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs that were never stopped, by their kind."""
    @functools.cache
    def run(kind: str) -> Path:
        return train(tmp_path_factory.mktemp("whole"), **KINDS[kind])
    return run


def assert_same_end(parts: Path, whole: Path) -> None:
    assert same(final_state(parts), final_state(whole))
    assert same(final_state(parts, "model_best.pth"), final_state(whole, "model_best.pth"))
    assert history(parts) == history(whole)


# every second stop of a kind, and of the next kind the others, is among the quick tests
@pytest.mark.parametrize(("kind", "stop_batch"), [
    pytest.param(kind, stop, marks=[pytest.mark.slow] * ((index + stop) % 2))
    for index, kind in enumerate(kind for kind in KINDS if "workers" not in kind)
    for stop in BATCHES])
def test_resumed_run_equals_uninterrupted_run(tmp_path: Path, whole: Any, kind: str,
                                              stop_batch: int) -> None:
    folder = train(tmp_path, stop_batch=stop_batch, **KINDS[kind])
    train(tmp_path, resume=folder / "latest.pth", **KINDS[kind])
    assert_same_end(folder, whole(kind))


@pytest.mark.slow
@pytest.mark.parametrize("stop_batch", BATCHES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "workers" in kind])
def test_resumed_run_with_workers_equals_uninterrupted_run(tmp_path: Path, whole: Any, kind: str,
                                                           stop_batch: int) -> None:
    folder = train(tmp_path, stop_batch=stop_batch, **KINDS[kind])
    train(tmp_path, resume=folder / "latest.pth", **KINDS[kind])
    assert_same_end(folder, whole(kind))


def test_stream_with_a_state_is_not_read_again(tmp_path: Path) -> None:
    folder = train(tmp_path, stop_batch=4, **KINDS["stream with a state"])
    data = Remembers()
    train(tmp_path, resume=folder / "latest.pth", epochs=1,
          make_loader=lambda: BaseDataLoader(data, 8))
    assert data.num_read == 4


def test_plateau_follows_the_value_that_is_monitored_now(tmp_path: Path) -> None:
    """As if it had been monitored from the start."""
    options: dict[str, Any] = {"schedule": "ReduceLROnPlateau", "epochs": 4}
    whole = train(tmp_path / "whole", monitor="min val_accuracy", **options)
    parts = train(tmp_path / "parts", monitor="min val_loss", **options | {"epochs": 2})
    train(tmp_path / "parts", monitor="min val_accuracy", resume=parts / "latest.pth", **options)
    one, other = (final_state(folder)["parts"]["lr_scheduler"] for folder in (whole, parts))
    assert (one["best"], one["num_bad_epochs"]) == (other["best"], other["num_bad_epochs"])


def test_three_interruptions_in_a_row_change_nothing(tmp_path: Path, whole: Any) -> None:
    folder = train(tmp_path, stop_batch=2)
    for stop_batch in (3, 7, None):
        train(tmp_path, resume=folder / "latest.pth", stop_batch=stop_batch)
    assert_same_end(folder, whole("StepLR"))


def test_stop_on_the_last_batch_finishes_the_epoch(tmp_path: Path) -> None:
    folder = train(tmp_path, stop_batch=STEPS_PER_EPOCH)
    assert read_checkpoint(folder / "latest.pth")["parts"]["counters"] == {
        "epoch": 1, "batch": 0, "step": STEPS_PER_EPOCH, "passes": 1, "samples": 0,
        "unvalidated": 0, "planned": None}


def test_stop_inside_an_epoch_keeps_its_place(tmp_path: Path) -> None:
    folder = train(tmp_path, stop_batch=STEPS_PER_EPOCH + 2)
    assert read_checkpoint(folder / "latest.pth")["parts"]["counters"] == {
        "epoch": 1, "batch": 2, "step": STEPS_PER_EPOCH + 2, "passes": 1, "samples": 16,
        "unvalidated": 2, "planned": None}


def test_gradients_that_wait_for_their_step_are_saved_and_no_others(tmp_path: Path) -> None:
    waiting = train(tmp_path / "a", stop_batch=2, kind=Accumulating)
    assert len(read_checkpoint(waiting / "latest.pth")["rank_parts"][0]["gradients"]) == 4
    used = train(tmp_path / "b", stop_batch=2)
    assert "gradients" not in read_checkpoint(used / "latest.pth")["rank_parts"][0]


@pytest.mark.parametrize("save_steps", [1, 2, 3])
def test_saving_inside_epochs_changes_nothing(tmp_path: Path, whole: Any, save_steps: int) -> None:
    assert_same_end(train(tmp_path, save_steps=save_steps), whole("StepLR"))


def test_saving_in_the_background_changes_nothing(tmp_path: Path, whole: Any) -> None:
    assert_same_end(train(tmp_path, async_save=True, save_steps=1), whole("StepLR"))


def test_number_of_workers_changes_nothing(tmp_path: Path, whole: Any) -> None:
    assert same(without_setup(train(tmp_path, num_workers=1)), without_setup(whole("StepLR")))


def without_setup(folder: Path) -> dict[str, Any]:
    state = final_state(folder)
    del state["parts"]["train_data"]
    return state


@pytest.mark.parametrize("settings", [
    {"validation": 0.0}, {"tensorboard": True}, {"verbosity": 2}, {"log_steps": 3},
    {"sanity_batches": 0}], ids=str)
def test_what_is_watched_changes_no_weight(tmp_path: Path, whole: Any,
                                           settings: dict[str, Any]) -> None:
    state = final_state(train(tmp_path, **settings))
    for key in ("state_dict", "optimizer"):
        assert same(state[key], final_state(whole("StepLR"))[key])


def test_workers_may_change_on_resume(tmp_path: Path, whole: Any) -> None:
    folder = train(tmp_path, stop_batch=3, num_workers=2)
    train(tmp_path, resume=folder / "latest.pth", num_workers=0)
    assert_same_end(folder, whole("StepLR"))


def test_finished_run_goes_on_to_more_epochs(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", epochs=3)
    folder = train(tmp_path / "parts", epochs=2)
    train(tmp_path / "parts", resume=folder / "latest.pth", epochs=3)
    assert_same_end(folder, whole)


def test_resuming_an_older_epoch_drops_the_later_rows(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", epochs=3)
    folder = train(tmp_path / "parts", epochs=3)
    train(tmp_path / "parts", resume=folder / "checkpoint-epoch1.pth", epochs=3)
    assert_same_end(folder, whole)


class StopWhileValidating(Callback):
    """Asks the run to stop while its validation data is read, in the first epoch."""

    def on_valid_batch_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        trainer.stop._note(signal.SIGUSR1, None)


def test_stop_during_validation_finishes_the_epoch_and_changes_nothing(tmp_path: Path,
                                                                       whole: Any) -> None:
    folder = train(tmp_path, callbacks=(StopWhileValidating(),), status=128 + signal.SIGUSR1)
    assert read_checkpoint(folder / "latest.pth")["parts"]["counters"]["epoch"] == 1
    train(tmp_path, resume=folder / "latest.pth")
    assert_same_end(folder, whole("StepLR"))


@pytest.mark.parametrize("save", [1, 2, 5])
def test_stop_during_a_save_changes_nothing(tmp_path: Path, whole: Any, save: int,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """A real SIGTERM inside the write of a file: the file is finished, then the run stops."""
    write, calls = saver.write_checkpoint, []

    def signalled(path: Path, state: dict[str, Any]) -> None:
        calls.append(path)
        if len(calls) == save:
            os.kill(os.getpid(), signal.SIGTERM)
        write(path, state)

    monkeypatch.setattr(saver, "write_checkpoint", signalled)
    folder = train(tmp_path, save_steps=1)
    assert final_state(folder)["parts"]["counters"]["step"] < 2 * STEPS_PER_EPOCH
    train(tmp_path, resume=folder / "latest.pth", save_steps=1)
    assert_same_end(folder, whole("StepLR"))


class SeenSamples(Callback):
    """Notes which samples were trained on."""

    def __init__(self) -> None:
        self.targets: list[int] = []

    def on_step_end(self, trainer: Any, batch_idx: int, batch: Any) -> None:
        self.targets += batch[1].tolist()


class Numbered(NoisyData):
    """Its target is the number of the sample."""

    def __getitem__(self, index: int) -> Any:
        return self.data[index], torch.tensor(index)


def trainer_of(loader: Any, folder: Path, resume: Path | None = None, **settings: Any) -> Any:
    """A tiny trainer over another loader, without validation, that notes its samples."""
    seen = SeenSamples()
    trainer = make_trainer(folder, resume=resume, validation=0.0, callbacks=(seen,), **settings)
    trainer.criterion = lambda output, target: output.square().mean()
    trainer.data_loader, trainer.seen = loader, seen
    return trainer


def stopped(trainer: Any, batch: int) -> Path:
    class Stop(Callback):
        def on_step_end(self, trainer: Any, batch_idx: int, _: Any) -> None:
            if batch_idx + 1 == batch:
                trainer.stop.received = signal.SIGTERM

    trainer.callbacks.add(Stop())
    with pytest.raises(SystemExit):
        trainer.train()
    return trainer.config.save_dir / "latest.pth"


@pytest.mark.parametrize(("before", "after"), [(8, 4), (4, 8), (8, 3), (3, 8)])
@pytest.mark.parametrize("len_epoch", [None, 20])
def test_batch_size_changed_in_mid_pass_trains_each_sample_once(
        tmp_path: Path, before: int, after: int, len_epoch: int | None) -> None:
    from base import BaseDataLoader

    def loader(batch_size: int) -> Any:
        return BaseDataLoader(Numbered(), batch_size, shuffle=True, seed=5)

    first = trainer_of(loader(before), tmp_path, epochs=1, len_epoch=len_epoch)
    latest = stopped(first, 3)
    second = trainer_of(loader(after), tmp_path, latest, epochs=1, len_epoch=len_epoch)
    second.train()
    one_pass = (first.seen.targets + second.seen.targets)[:44]
    assert sorted(one_pass) == list(range(44))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_plain_loader_goes_on_in_the_same_order(tmp_path: Path, num_workers: int) -> None:
    """Without a generator of its own: its order comes from the training's random stream."""
    def loader() -> Any:
        return DataLoader(Numbered(), batch_size=8, shuffle=True, num_workers=num_workers)

    whole = trainer_of(loader(), tmp_path / "whole")
    whole.train()
    first = trainer_of(loader(), tmp_path / "parts")
    latest = stopped(first, 3)
    second = trainer_of(loader(), tmp_path / "parts", latest)
    second.train()
    assert first.seen.targets + second.seen.targets == whole.seen.targets


def test_stream_read_otherwise_in_mid_pass_is_refused(tmp_path: Path) -> None:
    folder = train(tmp_path, is_stream=True, num_workers=2, stop_batch=2)
    with pytest.raises(RunError, match="num_workers"):
        train(tmp_path, resume=folder / "latest.pth", is_stream=True, num_workers=3)
    with pytest.raises(RunError, match="batch_size"):
        train(tmp_path, resume=folder / "latest.pth", is_stream=True, num_workers=2, batch_size=4)


def test_place_in_a_stream_that_no_batch_reaches_is_refused(tmp_path: Path) -> None:
    folder = train(tmp_path, is_stream=True, stop_batch=1)
    with pytest.raises(RunError, match="batch_size"):
        train(tmp_path, resume=folder / "latest.pth", is_stream=True, batch_size=3)


def test_part_without_state_and_state_without_part_are_refused_by_name(tmp_path: Path) -> None:
    plain = train(tmp_path / "a", stop_batch=2)
    with pytest.raises(CheckpointError, match=r"missing.*critic, critic_optimizer, ema, noise"):
        train(tmp_path / "a", resume=plain / "latest.pth", kind=TwoNetworks)
    two = train(tmp_path / "b", stop_batch=2, kind=TwoNetworks)
    with pytest.raises(CheckpointError, match=r"unknown to the run: critic, critic_optimizer"):
        train(tmp_path / "b", resume=two / "latest.pth")


def test_loader_of_tensors_that_repeats_itself_is_read_again(tmp_path: Path) -> None:
    data = TensorDataset(torch.randn(20, 6), torch.arange(20))
    first = trainer_of(DataLoader(data, batch_size=4), tmp_path)
    latest = stopped(first, 2)
    second = trainer_of(DataLoader(data, batch_size=4), tmp_path, latest, epochs=1)
    second.train()
    assert first.seen.targets + second.seen.targets == list(range(20))


class Failing(ClippingTrainer):
    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        if self.counters.step == 2:
            raise ZeroDivisionError
        return super()._train_step(batch, batch_idx)


def test_batch_that_failed_is_not_counted(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, kind=Failing)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert trainer.counters.batch == 2


class OnlyTrains(BaseTrainer):
    """The least that a trainer is."""

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        for _, (data, target) in self.train_batches():
            self.zero_grad()
            loss = self.criterion(self.model(data), target)
            self.backward(loss)
            self.step()
            self.train_metrics.update("loss", loss, len(target))
        return self.train_metrics.result()


def test_trainer_needs_no_more_than_an_epoch(tmp_path: Path) -> None:
    data = DataLoader(plain_data(), 8)
    model = nn.Linear(6, 2)
    config = ConfigParser({"name": "least", "trainer": {
        "epochs": 2, "save_dir": str(tmp_path), "monitor": "min loss", "verbosity": 0}})
    OnlyTrains(model, nn.functional.cross_entropy, [], torch.optim.SGD(model.parameters(), lr=0.1),
               config, device=torch.device("cpu"), data_loader=data).train()
    assert (config.save_dir / "model_best.pth").exists()


class OwnTracker(ClippingTrainer):
    """Keeps its means in an object of another kind."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.train_metrics = torchmetrics.MeanMetric()

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        self.model.train()
        for batch_idx, batch in self.train_batches():
            self.train_metrics.update(self._train_step(batch, batch_idx)[2].detach())
        with warnings.catch_warnings():  # it does not know that it saw something before the stop
            warnings.simplefilter("ignore")
            return {"loss": float(self.train_metrics.compute()), **self.validate()}


def test_tracker_of_another_kind_goes_on_inside_an_epoch(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", kind=OwnTracker)
    parts = train(tmp_path / "parts", kind=OwnTracker, stop_batch=3)
    train(tmp_path / "parts", kind=OwnTracker, resume=parts / "latest.pth")
    assert history(parts) == history(whole)
