"""All optimizers and schedulers that torch has, by their names in a config: they train, and a run
that was stopped at any step and resumed finds the same bits."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import TensorDataset

from base import BaseDataLoader
from base.checkpoint.changes import steps_of_run
from base.optimizers import build_optimizers
from base.schedulers import build_scheduler
from parse_config import ConfigParser
from tests.framework.tiny_run import StopAt, final_state, history, same
from tests.framework.toy.trainer import Trainer
from train import MODULES
from utils.errors import CheckpointError, ConfigError
from utils.rng import set_seed
from utils.runs.checkpoint_file import read_checkpoint

HERE = "tests.framework.test_torch_optim"
OPTIM = {"optimizer": MODULES["optimizer"],
         "lr_scheduler": (HERE, "model.optim", "torch.optim.lr_scheduler"),
         "arch": HERE}
BATCHES, EPOCHS = 3, 2
OPTIMIZERS = [name for name, kind in vars(torch.optim).items()
              if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)
              and kind is not torch.optim.Optimizer]
SCHEDULERS = [name for name, kind in vars(lr_scheduler).items()
              if inspect.isclass(kind) and issubclass(kind, lr_scheduler.LRScheduler)
              and name not in ("LRScheduler", "_LRScheduler")]
# optimizers that take not every parameter: what they take; an Adam has the rest
NOT_ALL = {"SparseAdam": ["words.*"], "Muon": ["*.weight"]}
STEP = {"type": "StepLR", "args": {"step_size": 1, "gamma": 0.5}}
LINEAR = {"type": "LinearLR", "args": {"start_factor": 0.1, "total_iters": 3}}
ARGS: dict[str, dict[str, Any]] = {  # what has to be given
    "LambdaLR": {"lr_lambda": {"type": "halving"}},
    "MultiplicativeLR": {"lr_lambda": {"type": "halving"}},
    "MultiStepLR": {"milestones": [2]}, "StepLR": {"step_size": 1}, "ExponentialLR": {"gamma": 0.9},
    "CosineAnnealingLR": {"T_max": 5}, "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 2}, "OneCycleLR": {"max_lr": 0.1},
    "SequentialLR": {"schedulers": [LINEAR, STEP], "milestones": [1]},
    "ChainedScheduler": {"schedulers": [STEP, LINEAR]},
}


class Words(nn.Module):
    """Embeds words and scores them; sparse gradients if asked for."""

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 4, sparse=sparse)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, words) to (batch, 3)."""
        return self.head(self.dropout(self.words(x).mean(1)))


def halving() -> Any:
    return Halving()


class Halving:
    def __call__(self, epoch: int) -> float:
        return 0.5 ** epoch


def config_of(folder: Path, optimizer: Any, schedule: Any = None, resume: Path | None = None,
              **settings: Any) -> ConfigParser:
    sparse = "SparseAdam" in str(optimizer)
    return ConfigParser(
        {"name": "x", "arch": {"type": "Words", "args": {"sparse": sparse}},
         "optimizer": optimizer, "lr_scheduler": schedule,
         "trainer": {"epochs": EPOCHS, "save_dir": str(folder), "verbosity": 0, "log_steps": 1,
                     "tensorboard": False, "monitor": "min val_loss", **settings}},
        resume, run_id=None if resume else "run", modules=OPTIM)


def with_content(config: ConfigParser) -> ConfigParser:
    """The config with its checkpoint read, as the command line reads it."""
    config._checkpoint = None if config.resume is None else read_checkpoint(config.resume)
    return config


def train(folder: Path, *args: Any, stop: int | None = None, batch_size: int = 10,
          **options: Any) -> Path:
    """Trains or goes on; the folder of the checkpoints."""
    config = config_of(folder, *args, **options)
    config["data_loader"] = {"args": {"batch_size": batch_size}}
    set_seed(3)
    words = torch.randint(0, 7, (36, 5), generator=torch.Generator().manual_seed(1))
    loader = BaseDataLoader(TensorDataset(words, words[:, 0] % 3), batch_size, True, 0.2)
    model = config.init_obj("arch")
    optimizer = build_optimizers(config, model)
    num_steps = steps_of_run(with_content(config), loader)
    scheduler = build_scheduler(config, optimizer, num_steps)
    trainer = Trainer(model, nn.functional.cross_entropy, [], optimizer, config,
                      torch.device("cpu"), loader, loader.split_validation(), scheduler,
                      callbacks=(StopAt(stop),))
    trainer.counters.planned = num_steps
    try:
        trainer.train()
    except SystemExit as ended:
        assert ended.code == 143
    return config.save_dir


def assert_exact(folder: Path, *args: Any, **options: Any) -> None:
    whole = train(folder / "whole", *args, **options)
    rows = history(whole)
    assert all(torch.tensor(row["loss"]).isfinite() for row in rows)
    for stop in range(1, BATCHES * EPOCHS):
        parts = train(folder / str(stop), *args, stop=stop, **options)
        train(folder / str(stop), *args, resume=parts / "latest.pth", **options)
        assert same(final_state(parts), final_state(whole)), stop
        assert history(parts) == rows


def optimizer_of(name: str, **args: Any) -> dict[str, Any]:
    takes_lr = "lr" in inspect.signature(getattr(torch.optim, name)).parameters
    section = {"type": name, "args": {**({"lr": 0.01} if takes_lr else {}), **args}}
    if name not in NOT_ALL:
        return section
    rest = [pattern for pattern in ("words.*", "head.weight", "*.bias") if pattern not in (
        NOT_ALL[name]) and not (name == "Muon" and pattern.endswith(("weight", "words.*")))]
    return {"first": section | {"params": NOT_ALL[name]},
            "rest": {"type": "Adam", "args": {"lr": 0.01}, "params": rest}}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_trains_and_resumes_exactly(tmp_path: Path, name: str) -> None:
    assert_exact(tmp_path, optimizer_of(name))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_trains_and_resumes_exactly(tmp_path: Path, name: str) -> None:
    optimizer = optimizer_of("SGD", momentum=0.9)
    assert_exact(tmp_path, optimizer, {"type": name, "args": ARGS.get(name, {})})


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "ReduceLROnPlateau"])
def test_every_scheduler_goes_by_steps_if_told_so(tmp_path: Path, name: str) -> None:
    schedule = {"type": name, "args": ARGS.get(name, {}), "interval": "step"}
    assert_exact(tmp_path, optimizer_of("SGD", momentum=0.9), schedule, valid_steps=2)


def test_lbfgs_evaluates_the_loss_again_and_gets_further_than_one_gradient_step(
        tmp_path: Path) -> None:
    once = train(tmp_path / "once", optimizer_of("LBFGS", max_iter=1))
    often = train(tmp_path / "often", optimizer_of("LBFGS", max_iter=8))
    assert history(often)[-1]["val_loss"] < history(once)[-1]["val_loss"]
    assert history(often)[-1]["step"] == BATCHES * EPOCHS


@pytest.mark.parametrize(("optimizer", "schedule", "text"), [
    ({"type": "Muon"}, None, "optimizer.args: Muon refuses"),
    ({"type": "Adagrad"}, {"type": "OneCycleLR", "args": {"max_lr": 0.1}},
     r"lr_scheduler.args: OneCycleLR refuses"),
    ({"type": "SGD"}, {"type": "ReduceLROnPlateau", "interval": "step"}, "once an epoch"),
    ({"type": "SGD"}, {"type": "OneCycleLR", "args": {"max_lr": 0.1, "total_steps": 5,
                                                      "cycle_momentum": False}},
     "OneCycleLR ends after 5 steps, but the run makes 6"),
    ({"a": {"type": "SGD", "params": ["words.*"]}}, None,
     "in no optimizer: head.weight, head.bias"),
    ({"a": {"type": "SGD", "params": ["*"]}, "b": {"type": "SGD", "params": ["head.*"]}}, None,
     "in more than one: head.weight, head.bias"),
    ({"type": "SGD", "params": ["hed.*"]}, None, "'hed.*' names no parameter"),
    ({"type": "SGD", "groups": [{"params": ["x*"]}]}, None, r"groups\.0\.params: 'x\*' names no"),
], ids=str)
def test_what_cannot_work_together_is_refused_at_the_start(
        tmp_path: Path, optimizer: Any, schedule: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        train(tmp_path, optimizer, schedule)
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize(("changes", "problem"), [
    ({"optimizer": {"a": {"type": "SGD"}}}, r"optimizer\.a\.params: is missing"),
    ({"optimizer": {"a b": {"type": "SGD", "params": ["*"]}}}, "expected a name like generator"),
    ({"optimizer": {"type": "SGD", "groups": [{"params": ["*"], "weight_decy": 0}]}},
     r"optimizer\.groups\.0\.weight_decy: SGD has no such setting; did you mean 'weight_decay'"),
    ({"optimizer": {"type": "SGD", "groups": [{"lr": 0}]}}, r"groups\.0\.params: expected a list"),
    ({"optimizer": {"type": "SGD", "groups": 5}}, r"optimizer\.groups: expected a list like"),
    ({"optimizer": {"a": {"type": "SGD", "params": ["*"]}}, "lr_scheduler": STEP},
     "lr_scheduler: expected a section for an optimizer by its name, a"),
    ({"lr_scheduler": {"a": STEP}}, r"lr_scheduler\.a: there is one optimizer"),
    ({"lr_scheduler": {"type": "SequentialLR", "args": {"schedulers": [
        {"type": "StepLR", "args": {"step_siz": 1}}], "milestones": [1]}}},
     r"lr_scheduler\.args\.schedulers\.0\.args\.step_siz: StepLR takes no such"),
    ({"optimizer": {"type": "SGDD"}}, "did you mean 'SGD'"),
])
def test_mistakes_are_told_before_anything_is_built(changes: Any, problem: str) -> None:
    config = {"name": "x", "arch": {"type": "Words"}, "optimizer": {"type": "SGD"},
              "trainer": {"epochs": 1}} | changes
    with pytest.raises(ConfigError, match=problem):
        ConfigParser(config, modules=OPTIM)


def test_groups_have_their_settings_and_the_first_that_fits_takes_a_parameter(
        tmp_path: Path) -> None:
    section = {"type": "SGD", "args": {"lr": 0.5, "weight_decay": 0.1}, "groups": [
        {"params": ["*.bias"], "weight_decay": 0}, {"params": ["head.*"], "lr": 0.25}]}
    config = config_of(tmp_path, section)
    model = config.init_obj("arch")
    groups = build_optimizers(config, model).param_groups
    assert [(group["lr"], group["weight_decay"], len(group["params"])) for group in groups] == [
        (0.5, 0.1, 1), (0.5, 0, 1), (0.25, 0.1, 1)]
    assert groups[1]["params"][0] is model.head.bias


def test_schedule_that_follows_the_run_is_stretched_with_it(tmp_path: Path) -> None:
    """More epochs on a resume: the lr is what it would be in a run that was so long always."""
    args = (optimizer_of("SGD", momentum=0.9), {"type": "OneCycleLR", "args": {"max_lr": 0.1}})
    longer = train(tmp_path / "longer", *args, epochs=4)
    parts = train(tmp_path / "parts", *args)
    train(tmp_path / "parts", *args, resume=parts / "latest.pth", epochs=4)
    groups = [final_state(folder)["optimizer"]["param_groups"][0] for folder in (longer, parts)]
    assert groups[0]["lr"] == groups[1]["lr"]


@pytest.mark.parametrize("change", [{"batch_size": 5}, {"len_epoch": 2}], ids=str)
def test_schedule_ends_with_the_run_when_its_epochs_get_another_length(tmp_path: Path,
                                                                       change: Any) -> None:
    args = (optimizer_of("SGD"), {"type": "WarmupCosine", "args": {"warmup_steps": 1}})
    parts = train(tmp_path, *args, epochs=4, stop=5)
    train(tmp_path, *args, resume=parts / "latest.pth", epochs=4, **change)
    rates = [row["lr"] for row in history(parts)]
    assert rates[-1] == 0 and all(rates[:-1])


def test_changed_setting_of_a_group_takes_effect_on_a_resume(tmp_path: Path) -> None:
    def section(decay: float) -> dict[str, Any]:
        return {"type": "SGD", "args": {"lr": 0.1}, "groups": [
            {"params": ["*.bias"], "weight_decay": decay}]}
    parts = train(tmp_path, section(0.5), epochs=1)
    train(tmp_path, section(0.25), resume=parts / "latest.pth")
    groups = final_state(parts)["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0, 0.25]


def test_optimizer_with_other_parameters_starts_anew(tmp_path: Path) -> None:
    def section(pattern: str) -> dict[str, Any]:
        return {"type": "Adam", "groups": [{"params": [pattern], "lr": 0.1}]}
    parts = train(tmp_path, section("head.bias"), epochs=1)
    train(tmp_path, section("head.weight"), resume=parts / "latest.pth")
    assert final_state(parts)["optimizer"]["state"][0]["step"] == BATCHES


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_changed_setting_of_every_optimizer_takes_effect_on_a_resume(tmp_path: Path,
                                                                     name: str) -> None:
    section = optimizer_of(name)
    parts = train(tmp_path, section, epochs=1)
    changed = optimizer_of(name, lr=0.001)
    train(tmp_path, changed, resume=parts / "latest.pth")
    groups = final_state(parts)["optimizer"]
    groups = groups.get("first", groups)
    assert groups["param_groups"][0]["lr"] == 0.001


def test_setting_that_needs_what_the_checkpoint_lacks_is_refused(tmp_path: Path) -> None:
    parts = train(tmp_path, {"type": "Adam", "args": {"lr": 0.01}}, epochs=1)
    with pytest.raises(CheckpointError, match="with amsgrad changed, Adam needs max_exp_avg_sq"):
        train(tmp_path, {"type": "Adam", "args": {"lr": 0.01, "amsgrad": True}},
              resume=parts / "latest.pth")
