"""Accumulation with several optimizers, what fp16 leaves out, and resumes inside a group."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from base import BaseDataLoader
from base.schedulers import planned_steps
from tests.framework.base.test_updates import Stream, data, trained, trainer_of, weights
from tests.framework.tiny_run import StopAt, Trainer, final_state, history, same, train
from utils.errors import ConfigError


class Adversaries(Trainer):
    """Two networks, each with its optimizer, whose losses reach each other's parameters."""

    every = 1  # batches for a step of the first one

    def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
        super().__init__(model, *args, **options)
        torch.manual_seed(1)
        self.judge = nn.Linear(6, 1)
        self.optimizer = {"maker": torch.optim.SGD(model.parameters(), lr=0.1),
                          "judge": torch.optim.SGD(self.judge.parameters(), lr=0.1)}

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        rows, target = batch
        made = torch.cat([self.model(rows)] * 3, 1)
        if batch_idx % self.every == self.every - 1:
            self.zero_grad("maker")
            self.backward(self.judge(made).pow(2).mean())  # the judge gets gradients of it as well
            self.step("maker")
        self.zero_grad("judge")
        loss = (self.judge(rows) - self.judge(made.detach())).pow(2).mean()
        self.backward(loss)
        self.step("judge")
        return self.model(rows), target, loss


def both(trainer: Any) -> torch.Tensor:
    return torch.cat([weights(trainer), *(p.detach().flatten()
                                          for p in trainer.judge.parameters())])


def test_each_optimizer_accumulates_its_own_loss(tmp_path: Path) -> None:
    one = trained(tmp_path / "one", 24, kind=Adversaries)
    several = trained(tmp_path / "several", 8, kind=Adversaries, accumulate=3)
    torch.testing.assert_close(both(several), both(one), rtol=1e-4, atol=1e-5)


def test_optimizer_that_steps_less_often_accumulates_the_batches_of_its_steps(
        tmp_path: Path) -> None:
    class Counting(Adversaries):
        every = 2

    seen: list[str] = []
    trainer = trainer_of(tmp_path, 4, kind=Counting, accumulate=3, epochs=1)
    for name, one in trainer.optimizer.items():
        one.register_step_post_hook(lambda *_, name=name: seen.append(name))
    trainer.train()
    # 13 batches: the judge's at 3, 6, 9, 12 and the end, the maker's at 6, 12 (of 2, 4, ...)
    assert (seen.count("judge"), seen.count("maker")) == (5, 2)


class TwoRounds(Trainer):
    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        super()._train_step(batch, batch_idx)
        return super()._train_step(batch, batch_idx)


def test_two_rounds_on_a_batch_are_two_of_a_group(tmp_path: Path) -> None:
    trainer = trained(tmp_path / "rounds", 13, kind=TwoRounds, accumulate=2, epochs=1)
    one = trained(tmp_path / "one", 13, epochs=1)
    torch.testing.assert_close(weights(trainer), weights(one))
    with pytest.raises(ConfigError, match="fp16 makes one step"):
        trained(tmp_path / "fp16", 13, kind=TwoRounds, precision="fp16")


def test_samples_are_counted_as_the_trainer_says(tmp_path: Path) -> None:
    """Of the last group of an epoch: 8 samples that count once and 4 that count threefold."""
    class Counts(Trainer):
        @staticmethod
        def num_samples(batch: Any) -> int:
            return 1 if len(batch[0]) == 8 else 1000

    last = trainer_of(tmp_path, 8, kind=Counts, accumulate=100, epochs=1, optimizer="SGD")
    start = weights(last)
    last.train()
    alone = trainer_of(tmp_path / "alone", 8, kind=Counts, epochs=1,
                       loader=[(data().tensors[0][48:], data().tensors[1][48:])])
    alone.train()
    torch.testing.assert_close(weights(last) - start, weights(alone) - start, rtol=0.05, atol=1e-3)


def overflowing(folder: Path, *, kind: Any = Trainer, **settings: Any) -> Any:
    trainer = trainer_of(folder, 26, precision="fp16", epochs=2, kind=kind, **settings)
    trainer.updates.scaler.load_state_dict({
        **trainer.updates.scaler.state_dict(), "scale": 2.0 ** 40})
    return trainer


def test_steps_that_fp16_leaves_out_are_not_counted_with_a_fused_optimizer(tmp_path: Path) -> None:
    """It decides by itself whether it changes the weights."""
    trainer = overflowing(tmp_path, clip_grad_norm=1.0)
    trainer.optimizer = torch.optim.Adam(trainer.model.parameters(), fused=True)
    trainer.train()
    rows = trainer.history.rows()
    skipped = sum(row["skipped_steps"] for row in rows)
    assert skipped > 0 and rows[-1]["step"] == 4 - skipped
    assert all(row["gradient_norm"] < float("inf") for row in rows if "gradient_norm" in row)


def test_anomaly_detection_lets_fp16_overflow(tmp_path: Path) -> None:
    from base.debug import limited

    trainer = overflowing(tmp_path)
    trainer.config.is_debug = True
    try:
        limited(trainer.config, [], [])
        trainer.train()
    finally:
        torch.autograd.set_detect_anomaly(False)
    assert trainer.history.rows()[0]["skipped_steps"] > 0


def test_optimizer_without_gradients_makes_its_step_in_fp16_too(tmp_path: Path) -> None:
    class Idle(Adversaries):
        def _train_step(self, batch: Any, batch_idx: int) -> Any:
            self.zero_grad()
            output = self.model(batch[0])
            loss = self.criterion(output, batch[1])
            self.backward(loss)
            self.step()
            return output, batch[1], loss

    trainer = trained(tmp_path, 26, kind=Idle, precision="fp16", epochs=1)
    assert trainer.history.rows()[0]["step"] == 2


@pytest.mark.parametrize(("before", "after"), [
    ({"accumulate": 3}, {"accumulate": 1}), ({"accumulate": 3}, {"accumulate": 2}),
    ({"accumulate": 3, "precision": "fp16"}, {"accumulate": 3}),
    ({"accumulate": 3}, {"accumulate": 3, "precision": "fp16"})], ids=str)
def test_settings_may_change_inside_a_group(tmp_path: Path, before: Any, after: Any) -> None:
    """The step is by the mean over all samples since the one before."""
    folder = train(tmp_path, kind=Trainer, stop_batch=1, schedule="StepLR", **before)
    waiting = final_state(folder)["rank_parts"][0]["updates"]["groups"][""]
    assert (waiting["batches"], waiting["samples"]) == (1, 8)
    seen: list[torch.Tensor] = []

    class Watching(Trainer):
        def step(self, optimizer: str | None = None) -> None:
            new = next(self.model.parameters()).grad
            assert new is not None
            self.optimizer.register_step_pre_hook(lambda *_: seen.append(
                next(self.model.parameters()).grad.clone()))  # type: ignore[union-attr]
            scale = self.updates.scaler.get_scale() if self.updates.scaler else 1
            self.news.append(new / scale)
            super().step(optimizer)

    Watching.news = []  # type: ignore[attr-defined]
    train(tmp_path, kind=Watching, resume=folder / "latest.pth", **{
        "precision": "fp32", "epochs": 1, **after})
    news = Watching.news  # type: ignore[attr-defined]
    parts = [waiting["means"][0], *news][:3 if after["accumulate"] == 3 else 2]
    torch.testing.assert_close(seen[0], torch.stack(parts).mean(0), rtol=1e-3, atol=1e-5)


def test_settings_of_updates_are_turned_on_and_off_by_a_resume(tmp_path: Path,
                                                               capsys: Any) -> None:
    settings = {"accumulate": 2, "clip_grad_norm": 1.0, "precision": "fp16", "ema_decay": 0.9}
    plain = train(tmp_path / "plain", kind=Trainer, epochs=1)
    train(tmp_path / "plain", kind=Trainer, resume=plain / "latest.pth", **settings)
    assert "it starts from the weights" in capsys.readouterr().out
    assert history(plain)[-1]["gradient_norm"] > 0 and "average" in final_state(plain)["parts"]
    full = train(tmp_path / "full", kind=Trainer, **{**settings, "epochs": 1})
    off: dict[str, Any] = {"accumulate": 1, "clip_grad_norm": None, "precision": "fp32",
                           "ema_decay": None}
    train(tmp_path / "full", kind=Trainer, resume=full / "latest.pth", **off)
    assert "the average of the weights is left out" in capsys.readouterr().out
    assert "average" not in final_state(full)["parts"]


def test_average_that_a_checkpoint_does_not_have_is_that_of_its_weights(tmp_path: Path) -> None:
    from tests.framework.tiny_run import make_trainer

    folder = train(tmp_path, kind=Trainer, epochs=1)
    trainer = make_trainer(tmp_path, kind=Trainer, resume=folder / "latest.pth", ema_decay=0.9,
                           callbacks=(StopAt(None),))
    trainer.evaluate(trainer.valid_data_loader)
    assert same(dict(trainer.average.module.state_dict()), final_state(folder)["state_dict"])


def test_length_of_a_run_counts_the_batches_that_wait(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, 4, accumulate=3, epochs=1)
    trainer.counters.batch, trainer.counters.step = 2, 0
    trainer.counters.samples = 8
    loader = BaseDataLoader(data(), 4)  # 13 batches: steps at 3, 6, 9, 12, 13
    assert planned_steps(trainer.settings, loader, 1, trainer.counters, waiting=2) == 5


def test_metrics_of_another_kind_bring_no_validation_without_training(tmp_path: Path) -> None:
    class Sums:
        """Knows neither names nor whether it is empty."""

        def __init__(self) -> None:
            self.values: list[float] = []

        def update_batch(self, output: Any, target: Any, loss: Any, n: int) -> None:
            self.values.append(float(loss.detach()))

        def result(self) -> dict[str, float]:
            return {"loss": sum(self.values) / len(self.values)}

        def reset(self) -> None:
            self.values = []

    class Own(Trainer):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.train_metrics = Sums()

    trainer = trained(tmp_path, 13, kind=Own, valid_steps=2, epochs=2,
                      loader=BaseDataLoader(Stream(), 13))
    assert [row["step"] for row in trainer.history.rows()] == [2, 4, 6, 8]


def test_loader_of_another_kind_makes_another_length(tmp_path: Path) -> None:
    from base.checkpoint.changes import Changes

    def changes(**after: Any) -> Any:
        before = {"data_loader": {"type": "A", "args": {}}, "trainer": {"epochs": 3}}
        return Changes(before, {**before, **after}, has_schedule=True, follows_run=lambda _: True)

    assert changes(data_loader={"type": "B", "args": {}}).is_other_length
    assert changes(trainer={"epochs": 3, "overfit_batches": 2}).is_other_length
    assert not changes(data_loader={"type": "A", "args": {"num_workers": 3}}).is_other_length


def test_loader_of_torch_is_accumulated_alike(tmp_path: Path) -> None:
    ours, torchs = (trained(tmp_path / kind.__name__, 8, accumulate=3, loader=kind(data(), 8))
                    for kind in (BaseDataLoader, DataLoader))
    assert torch.equal(weights(ours), weights(torchs))
