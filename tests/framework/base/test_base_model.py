import copy
import pickle

import pytest
from torch import nn

from base import BaseModel


class Small(BaseModel):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 2)  # 8 parameters
        self.second = nn.Linear(2, 1)  # 3 parameters

    def forward(self, x):
        return self.second(self.first(x))


class Nested(BaseModel):
    def __init__(self):
        super().__init__()
        self.inner = Small()

    def forward(self, x):
        return self.inner(x)


def test_model_without_forward_does_not_start():
    class Headless(BaseModel):
        pass

    with pytest.raises(TypeError, match=r"Headless must define forward"):
        Headless()


def test_printed_model_ends_with_its_number_of_trainable_parameters():
    text = str(Small())
    assert "(first): Linear" in text and text.endswith("Trainable parameters: 11")


def test_frozen_parameters_are_not_counted():
    model = Small()
    model.first.requires_grad_(False)
    assert str(model).endswith("Trainable parameters: 3")


def test_layers_that_wait_for_a_batch_are_not_counted():
    model = Small()
    model.first = nn.LazyLinear(2)
    assert str(model).endswith("Trainable parameters: 3")


def test_nested_models_count_all_of_theirs():
    assert Nested().num_trainable_parameters() == 11


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_models_copy_and_pickle(again):
    assert str(again(Small())) == str(Small())
