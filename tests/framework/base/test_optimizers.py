import pytest
import torch
from torch import nn

from base.optimizers import (
    StepWatch,
    each,
    learning_rates,
    other_optimizers,
    warn_of_untrained,
)


def sgd(module=None, lr=0.1):
    module = module or nn.Linear(1, 1)
    return torch.optim.SGD(module.parameters(), lr=lr)


def with_gradient(optimizer):
    """Gives all its parameters new gradients."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    return optimizer


class Silent:
    """Has only what an optimizer of one's own must have."""

    def step(self):
        pass


@pytest.mark.parametrize(("make", "names"), [
    (lambda one: one, [""]), (lambda one: {"g": one, 1: one}, ["g", "1"]),
    (lambda one: [one, one], ["0", "1"]), (lambda one: None, [])])
def test_optimizers_have_names(make, names):
    assert [name for name, _ in each(make(sgd()))] == names


def test_lr_has_the_name_of_its_optimizer():
    assert learning_rates(sgd()) == {"lr": 0.1}
    assert learning_rates({"g": sgd(), "d": sgd(lr=0.5), "own": Silent()}) == {
        "lr_g": 0.1, "lr_d": 0.5}


def test_parameters_that_no_optimizer_trains_are_told(caplog):
    model = nn.Sequential(*[nn.Linear(1, 1) for _ in range(5)])
    model[1].requires_grad_(False)
    warn_of_untrained(model, "model", [sgd(model[0]), sgd(model[2])])
    assert caplog.messages == [
        "model: no optimizer trains 3.weight, 3.bias, 4.weight, 4.bias; give them to one, or "
        "freeze them"]


@pytest.mark.parametrize(("module", "optimizers"), [
    (nn.ReLU(), sgd()), (nn.functional.mse_loss, sgd()), (nn.Linear(1, 1), None),
    (nn.Linear(1, 1), Silent())])
def test_nothing_is_told_of_what_has_no_parameters_or_is_trained_otherwise(module, optimizers,
                                                                           caplog):
    warn_of_untrained(module, "model", optimizers)
    assert not caplog.messages


def test_steps_are_noticed_since_the_last_question():
    both = {"g": with_gradient(sgd()), "d": with_gradient(sgd())}
    watch = StepWatch(both)
    both["g"].step()
    both["g"].step()
    assert watch.take() == {"g"} and watch.is_waiting
    for one in both.values():
        with_gradient(one).step()
    assert watch.take() == {"g", "d"} and not watch.is_waiting
    assert watch.take() == set() and watch.is_waiting
    assert watch.num_steps == 3


def test_optimizers_beside_the_trainers_own_are_watched_too():
    own, other = with_gradient(sgd()), with_gradient(sgd())
    attributes = {"optimizer": own, "critic_optimizer": other, "text": "x", "both": [own, other]}
    others = other_optimizers(attributes)
    assert others == [other, other]
    watch = StepWatch(own, others)
    own.step()
    assert watch.take() == {""} and watch.is_waiting


def test_optimizer_that_cannot_tell_is_taken_to_step_at_each_batch():
    watch = StepWatch(Silent())
    assert [watch.take(), watch.take()] == [{""}, {""}] and not watch.is_waiting
    assert StepWatch(None).take() == set()
