import pytest
import torch
from torch import nn

from base.optimizers import StepWatch, each, learning_rates, trainable, warn_of_untrained


def sgd(module=None, lr=0.1):
    module = module or nn.Linear(1, 1)
    return torch.optim.SGD(module.parameters(), lr=lr)


class Silent:
    """Has only what an optimizer of one's own must have."""

    def step(self):
        pass


def test_optimizers_get_the_parameters_of_all_modules_that_are_not_frozen():
    model, criterion = nn.Linear(2, 1), nn.Linear(1, 1)
    model.bias.requires_grad_(False)
    assert trainable(model, criterion, print) == [model.weight, criterion.weight, criterion.bias]


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
    both = {"g": sgd(), "d": sgd()}
    watch = StepWatch(both)
    both["g"].step()
    both["g"].step()
    assert watch.take() == {"g"} and watch.is_waiting
    both["d"].step()
    both["g"].step()
    assert watch.take() == {"g", "d"} and not watch.is_waiting
    assert watch.take() == set() and watch.is_waiting


def test_optimizer_that_cannot_tell_is_taken_to_step_at_each_batch():
    watch = StepWatch(Silent())
    assert [watch.take(), watch.take()] == [{""}, {""}] and not watch.is_waiting
    assert StepWatch(None).take() == set()
