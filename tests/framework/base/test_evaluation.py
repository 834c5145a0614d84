"""What a validation leaves behind: nothing."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from base.evaluation import evaluating
from tests.framework.tiny_run import (
    ClippingTrainer,
    final_state,
    history,
    make_trainer,
    same,
    train,
)
from utils.metric_tracker import make_tracker


def test_each_module_is_in_eval_mode_and_gets_its_own_mode_back() -> None:
    model, critic = nn.Sequential(nn.Linear(1, 1), nn.Dropout()), nn.BatchNorm1d(1)
    model[1].eval()  # a frozen part stays frozen
    with pytest.raises(KeyError), evaluating([model, critic]):
        assert not any(module.training for module in [*model.modules(), critic])
        raise KeyError
    assert [module.training for module in [*model.modules(), critic]] == [True, True, False, True]


def test_no_gradients_are_kept_and_random_streams_stay() -> None:
    model, before = nn.Linear(1, 1), torch.get_rng_state()
    with evaluating([model]):
        output = model(torch.randn(2, 1))
    assert not output.requires_grad and torch.equal(torch.get_rng_state(), before)


class Caching(nn.Module):
    """Keeps a table that it makes at its first use, be it in the validation."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.table: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.body(x)
        if self.table is None:
            self.table = torch.linspace(0.5, 1.5, output.shape[1])
        return output * self.table


def test_what_a_model_caches_in_the_validation_can_be_trained_with(tmp_path: Any) -> None:
    trainer = make_trainer(tmp_path)
    trainer.model = Caching(trainer.model)
    trainer.train()
    assert trainer.counters.epoch == 2


class WithLoss(nn.Module):
    """A criterion with parameters, a buffer and a mode."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("mean", torch.zeros(()))
        self.modes: list[bool] = []

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.modes.append(self.training)
        loss = nn.functional.cross_entropy(output * self.scale, target)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * loss.detach()
        return loss


class TrainsItsLoss(ClippingTrainer):
    def __init__(self, model: Any, criterion: Any, metrics: Any, optimizer: Any, *args: Any,
                 **options: Any) -> None:
        criterion = WithLoss()
        optimizer.add_param_group({"params": criterion.parameters(), "lr": 0.2})
        super().__init__(model, criterion, metrics, optimizer, *args, **options)


def test_criterion_is_in_eval_mode_in_the_validation_only(tmp_path: Any) -> None:
    trainer = make_trainer(tmp_path, kind=TrainsItsLoss, epochs=1, sanity_batches=0)
    trainer.train()
    assert trainer.criterion.modes == [True] * 5 + [False] and trainer.criterion.training


@pytest.mark.parametrize("stop_batch", [2, 5, 7])
def test_criterion_with_state_is_saved_and_restored(tmp_path: Any, stop_batch: int) -> None:
    whole = train(tmp_path / "whole", kind=TrainsItsLoss)
    folder = train(tmp_path / "parts", kind=TrainsItsLoss, stop_batch=stop_batch)
    train(tmp_path / "parts", kind=TrainsItsLoss, resume=folder / "latest.pth")
    state = final_state(folder)
    assert state["parts"]["criterion"].keys() == {"scale", "mean"}
    assert same(state, final_state(whole)) and history(folder) == history(whole)


class WithCritic(TrainsItsLoss):
    """Has a network more, which is made after everything else."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.critic = nn.Linear(1, 1)


def test_evaluation_of_a_checkpoint_has_the_state_of_everything(tmp_path: Any) -> None:
    whole = make_trainer(tmp_path, kind=WithCritic)
    whole.train()
    other = make_trainer(tmp_path, kind=WithCritic, resume=whole.config.save_dir / "latest.pth")
    nn.init.zeros_(other.critic.weight)
    other.evaluate(other.valid_data_loader)
    for name in ("model", "criterion", "critic"):
        assert same(getattr(other, name).state_dict(), getattr(whole, name).state_dict())


def test_metrics_that_draw_random_numbers_change_no_weight(tmp_path: Any) -> None:
    def noisy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.rand(())

    folders = []
    for name, metrics in (("without", []), ("with", [noisy])):
        trainer = make_trainer(tmp_path / name)
        trainer.train_metrics, trainer.valid_metrics = (make_tracker(metrics, "cpu")
                                                        for _ in range(2))
        trainer.train()
        folders.append(trainer.config.save_dir)
    assert same(*(final_state(folder)["state_dict"] for folder in folders))


def test_samples_that_were_evaluated_are_counted(tmp_path: Any) -> None:
    trainer = make_trainer(tmp_path)
    trainer.evaluate(trainer.data_loader)
    assert trainer.num_evaluated == 36
    trainer.evaluate(trainer.valid_data_loader)
    assert trainer.num_evaluated == 8


def test_evaluation_of_other_data_leaves_the_validation_as_it_was(tmp_path: Any) -> None:
    trainer = make_trainer(tmp_path)
    own = trainer.valid_data_loader
    with pytest.raises(TypeError):
        trainer.evaluate([None])
    assert trainer.valid_data_loader is own and trainer.model.training


class FirstSeen(ClippingTrainer):
    """Logs what its validation sees first, of a loader that draws from a generator of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        data = TensorDataset(torch.randn(64, 6), torch.zeros(64, dtype=torch.long))
        self.valid_data_loader = DataLoader(data, 4, sampler=RandomSampler(
            data, num_samples=8, generator=torch.Generator().manual_seed(5)))

    def _valid_epoch(self, epoch: int) -> dict[str, Any]:
        _, (data, _) = next(iter(self.valid_batches()))
        return {**super()._valid_epoch(epoch), "first": data[0, 0]}


@pytest.mark.parametrize("sanity_batches", [0, 2])
def test_validation_that_draws_from_its_own_generator_is_the_same_each_time(
        tmp_path: Any, sanity_batches: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"kind": FirstSeen, "epochs": 3, "sanity_batches": sanity_batches}
    rows = history(train(whole, **options))
    assert len({row["val_first"] for row in rows}) == 1
    folder = train(parts, stop_batch=7, **options)
    train(parts, resume=folder / "latest.pth", **options)
    assert history(folder) == rows


class StopsWhereItWas(IterableDataset[Any]):
    """Its state is where its last pass is; a state that was given is where the next one begins."""

    def __init__(self) -> None:
        self.place, self.first = 0, 0

    def __iter__(self) -> Any:
        first, self.first = self.first, 0
        for self.place in range(first, 8):
            yield torch.full((6,), float(self.place)), 0

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place + 1}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first = state["place"]


def test_validation_data_with_a_state_begins_anew_each_time(tmp_path: Any) -> None:
    trainer = make_trainer(tmp_path, sanity_batches=1)
    trainer.valid_data_loader = DataLoader(StopsWhereItWas(), 4)
    for _ in range(3):
        trainer.evaluate(trainer.valid_data_loader)
        assert trainer.num_evaluated == 8
