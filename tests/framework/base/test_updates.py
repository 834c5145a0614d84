"""What is between a loss and a step: accumulation, clipping, precision; averaged weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from base import BaseDataLoader
from base.debug import describe
from parse_config import ConfigParser
from tests.framework.tiny_run import ClippingTrainer, final_state, history, train
from tests.framework.toy.trainer import Trainer
from utils.errors import ConfigError

SAMPLES = 52  # two updates of 24 and one of 4


def data() -> TensorDataset:
    rows = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(1))
    return TensorDataset(rows, (rows.sum(1) > 0).long())


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(data())


def trainer_of(folder: Path, batch_size: int, *, kind: Any = Trainer, loader: Any = None,
               optimizer: str = "SGD", **settings: Any) -> Any:
    config = ConfigParser({"name": "x", "trainer": {
        "epochs": 3, "save_dir": str(folder), "verbosity": 0, "tensorboard": False, **settings}},
        run_id="run")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    made = getattr(torch.optim, optimizer)(model.parameters(), lr=0.5)
    return kind(model, nn.functional.cross_entropy, [], made, config, torch.device("cpu"),
                DataLoader(data(), batch_size) if loader is None else loader,
                DataLoader(data(), 26))


def trained(*args: Any, **options: Any) -> Any:
    trainer = trainer_of(*args, **options)
    trainer.train()
    return trainer


def weights(trainer: Any) -> torch.Tensor:
    return torch.cat([value.flatten() for value in trainer.model.state_dict().values()])


@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 3), (4, 6), (12, 2), (1, 24)])
def test_accumulated_batches_are_one_batch(tmp_path: Path, batch_size: int,
                                           accumulate: int) -> None:
    """Also of the last, shorter group of an epoch."""
    one = trained(tmp_path / "one", 24)
    several = trained(tmp_path / "several", batch_size, accumulate=accumulate)
    assert several.counters.step == one.counters.step == 9
    torch.testing.assert_close(weights(several), weights(one), rtol=1e-5, atol=1e-6)


def test_last_group_of_a_stream_is_stepped_too(tmp_path: Path) -> None:
    one = trained(tmp_path / "one", 24)
    stream = trained(tmp_path / "stream", 8, accumulate=3, loader=BaseDataLoader(Stream(), 8))
    assert stream.counters.step == 9
    torch.testing.assert_close(weights(stream), weights(one), rtol=1e-5, atol=1e-6)


def test_gradients_are_clipped_and_their_norm_is_logged(tmp_path: Path) -> None:
    class Bare(ClippingTrainer):
        def _train_step(self, batch: Any, batch_idx: int) -> Any:
            rows, target = batch
            self.optimizer.zero_grad()
            output = self.model(rows)
            loss = self.criterion(output, target)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), 0.05)
            self.optimizer.step()
            self.train_metrics.update("gradient_norm", norm, len(target))
            return output, target, loss

    bare = trained(tmp_path / "bare", 10, kind=Bare)
    ours = trained(tmp_path / "ours", 10, clip_grad_norm=0.05)
    assert torch.equal(weights(ours), weights(bare))
    rows = [one.history.rows()[-1]["gradient_norm"] for one in (bare, ours)]
    assert rows[0] == rows[1]


def test_norm_of_an_accumulated_update_is_that_of_its_mean(tmp_path: Path) -> None:
    rows = [trained(tmp_path / str(size), size, clip_grad_norm=0.05, accumulate=24 // size)
            .history.rows()[0]["gradient_norm"] for size in (24, 8)]
    assert rows[0] == pytest.approx(rows[1], rel=1e-5)


class OnlyGoesBack(Trainer):
    def step(self, optimizer: str | None = None) -> None:
        self.optimizer.step()


@pytest.mark.parametrize("kind", [ClippingTrainer, OnlyGoesBack])
@pytest.mark.parametrize("settings", [
    {"accumulate": 2}, {"clip_grad_norm": 1.0}, {"precision": "fp16"}], ids=str)
def test_optimizer_that_is_stepped_by_hand_is_refused(tmp_path: Path, kind: Any,
                                                      settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"self\.backward\(loss\).*steps an optimizer by itself"):
        trained(tmp_path, 8, kind=kind, **settings)
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize("settings", [{"accumulate": 2}, {"clip_grad_norm": 1.0}], ids=str)
def test_optimizer_with_a_closure_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="evaluates the loss several times"):
        trained(tmp_path, 8, optimizer="LBFGS", **settings)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_computes_in_it_and_learns_the_same(tmp_path: Path,
                                                            precision: str) -> None:
    seen = []

    class Watching(Trainer):
        def _train_step(self, batch: Any, batch_idx: int) -> Any:
            result = super()._train_step(batch, batch_idx)
            seen.append(result[0].dtype)
            return result

    full = trained(tmp_path / "full", 8)
    half = trained(tmp_path / "half", 8, precision=precision, kind=Watching)
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert all(value.dtype == torch.float32 for value in half.model.state_dict().values())
    assert half.history.rows()[-1]["val_loss"] == pytest.approx(
        full.history.rows()[-1]["val_loss"], rel=0.05)


def test_updates_that_fp16_leaves_out_are_counted(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, 26, precision="fp16", epochs=2)
    trainer.updates.scaler.load_state_dict({
        **trainer.updates.scaler.state_dict(), "scale": 2.0 ** 40})  # overflows at first
    trainer.train()
    rows = trainer.history.rows()
    skipped = [row["skipped_steps"] for row in rows]
    assert skipped[0] > 0 and rows[-1]["step"] == 4 - sum(skipped)


def test_transforms_of_the_loader_are_not_computed_in_lower_precision(tmp_path: Path) -> None:
    seen = set()

    class Multiplying(TensorDataset):
        def __getitem__(self, index: Any) -> Any:
            row, target = super().__getitem__(index)
            product = row[None] @ torch.eye(6)
            seen.add(product.dtype)
            return product[0], target

    loader = DataLoader(Multiplying(*data().tensors), 8)
    trained(tmp_path, 8, precision="bf16", loader=loader)
    assert seen == {torch.float32}


def test_validation_is_done_by_the_average_of_the_weights(tmp_path: Path) -> None:
    trainer = trained(tmp_path, 13, ema_decay=0.5, epochs=1)
    own = trainer.model.state_dict()
    average = trainer.average.module.state_dict()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    kept: list[torch.Tensor] = []
    for rows, target in DataLoader(data(), 13):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(rows), target).backward()
        optimizer.step()
        now = [parameter.detach().clone() for parameter in model.parameters()]
        kept = now if not kept else [0.5 * old + 0.5 * new for old, new in
                                     zip(kept, now, strict=True)]
    for expected, key in zip(kept, average, strict=True):
        torch.testing.assert_close(average[key], expected)
    assert any(not torch.equal(own[key], average[key]) for key in own)
    rows, target = data().tensors
    loss = nn.functional.cross_entropy(trainer.average.module(rows), target)
    assert trainer.history.rows()[0]["val_loss"] == pytest.approx(float(loss.detach()))


def test_average_is_in_the_checkpoint_under_its_name(tmp_path: Path) -> None:
    folder = train(tmp_path, kind=Trainer, ema_decay=0.9)
    assert "module.0.weight" in final_state(folder)["parts"]["average"]
    assert len(history(folder)) == 2


def test_compiler_that_fails_is_one_message(tmp_path: Path) -> None:
    from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException

    from utils.devices.parallel import compiler_told
    from utils.errors import RunError

    assert issubclass(BackendCompilerFailed, TorchDynamoException)
    with pytest.raises(RunError, match="the compiler failed"), compiler_told(True):
        raise TorchDynamoException("no compiler\nmore")
    with pytest.raises(TorchDynamoException), compiler_told(False):
        raise TorchDynamoException("x")


class ForgetsByItself(Trainer):
    def zero_grad(self, optimizer: str | None = None) -> None:
        self.optimizer.zero_grad()


class GoesBackByItself(Trainer):
    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()


@pytest.mark.parametrize("kind", [ForgetsByItself, GoesBackByItself])
def test_step_is_all_that_accumulating_needs(tmp_path: Path, kind: Any) -> None:
    one = trained(tmp_path / "one", 24)
    several = trained(tmp_path / "several", 8, kind=kind, accumulate=3)
    torch.testing.assert_close(weights(several), weights(one), rtol=1e-5, atol=1e-6)


def test_clipping_alone_needs_no_backward_of_the_trainers(tmp_path: Path) -> None:
    own, plain = (trained(tmp_path / kind.__name__, 10, kind=kind, clip_grad_norm=0.05)
                  for kind in (GoesBackByItself, Trainer))
    assert torch.equal(weights(own), weights(plain))


def test_precision_is_that_of_the_dry_run_too(tmp_path: Path) -> None:
    seen = set()

    class Watching(Trainer):
        def _train_step(self, batch: Any, batch_idx: int) -> Any:
            result = super()._train_step(batch, batch_idx)
            seen.add(result[0].dtype)
            return result

    describe(trainer_of(tmp_path, 8, precision="bf16", kind=Watching))
    assert seen == {torch.bfloat16}
