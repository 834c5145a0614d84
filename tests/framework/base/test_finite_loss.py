"""A loss that is not finite ends the run before anything of it is saved."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from base import BaseDataLoader
from base.finite_loss import LossCheck
from tests.framework.tiny_run import (
    STEPS_PER_EPOCH,
    ClippingTrainer,
    NoisyData,
    final_state,
    make_trainer,
    train,
)
from utils.errors import RunError
from utils.metric_tracker import MetricTracker


class Breaks(ClippingTrainer):
    """Its loss, or one that it logs beside it, is not finite at one batch of the second epoch."""

    key, batch, value = "loss", 2, math.nan

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        output, target, loss = super()._train_step(batch, batch_idx)
        if self.counters.step == STEPS_PER_EPOCH + self.batch:
            if self.key == "loss":
                return output, target, loss * self.value
            self.train_metrics.update(self.key, loss * self.value, len(target))
        return output, target, loss


@pytest.mark.parametrize(("key", "value", "batch"), [
    ("loss", math.nan, 0), ("loss", math.inf, 2), ("loss", math.nan, 4),
    ("critic_loss", math.nan, 2), ("critic_loss", math.inf, 4)])
def test_run_ends_naming_epoch_batch_and_lr_with_the_checkpoint_from_before(
        tmp_path: Path, key: str, value: float, batch: int) -> None:
    kind = type("Kind", (Breaks,), {"key": key, "value": value, "batch": batch})
    with pytest.raises(RunError, match=rf"the {key} is not finite \(epoch 2, batch {batch}, "
                                       r"lr 0\.025\)"):
        train(tmp_path, kind=kind, save_steps=1)
    counters = final_state(tmp_path / "models" / "tiny" / "run")["parts"]["counters"]
    assert counters["step"] == STEPS_PER_EPOCH + batch


class CountsTokens(ClippingTrainer):
    num_samples = staticmethod(lambda batch: 10 * len(batch[0]))


@pytest.mark.parametrize("kind", [ClippingTrainer, CountsTokens])
def test_samples_of_the_batch_are_named(tmp_path: Path, kind: Any) -> None:
    data = NoisyData()
    data.data[17] = math.nan
    trainer = make_trainer(tmp_path, validation=0.0, kind=kind)
    trainer.data_loader = BaseDataLoader(data, 4, shuffle=True, seed=2)
    with pytest.raises(RunError, match=r"The samples of the batch: \[.*17.*\]") as caught:
        trainer.train()
    named = str(caught.value).partition("batch: [")[2].partition("]")[0].split(", ")
    assert len(named) == 4 and "17" in named


@pytest.mark.parametrize(("batch_idx", "is_told"), [(2, False), (3, False), (4, True)])
def test_a_device_is_waited_for_at_log_points_only(batch_idx: int, is_told: bool) -> None:
    tracker = MetricTracker("loss")
    tracker.update("loss", math.nan)
    trainer: Any = SimpleNamespace(
        device=torch.device("meta"), log_step=4, train_metrics=tracker, optimizer=None,
        counters=SimpleNamespace(epoch=0), data_loader=None)
    if is_told:
        with pytest.raises(RunError, match=r"\(epoch 1, batch 4 or before, "):
            LossCheck().on_step_end(trainer, batch_idx, None)
    else:
        LossCheck().on_step_end(trainer, batch_idx, None)
        with pytest.raises(RunError, match=r"\(epoch 1, one of its last batches or before, "):
            LossCheck().on_epoch_end(trainer, 1, {})


class Triplets(ClippingTrainer):
    """Batches of another shape: names, three tensors, nothing to compare with."""

    def _train_step(self, batch: Any, batch_idx: int) -> Any:
        anchor, near, far = (self.model(item) for item in batch["three"])
        loss = nn.functional.triplet_margin_loss(anchor, near, far)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return None, None, loss


def test_steps_on_batches_of_another_shape_pass_all_callbacks(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, kind=Triplets, validation=0.0, verbosity=2, tensorboard=True)
    trainer.train_metrics = MetricTracker("loss")
    trainer.data_loader = [{"names": ["a", "b"], "scale": torch.tensor(2.0),
                            "three": torch.randn(3, 4, 6).unbind()} for _ in range(3)]
    trainer.train()
    assert trainer.counters.step == 6 and trainer.history.rows()[1]["loss"] > 0
