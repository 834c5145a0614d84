import pytest
import torch

from model.model import MnistModel


@pytest.mark.parametrize("num_classes", [10, 7])
def test_output_is_log_probabilities_of_each_class(num_classes):
    model = MnistModel(num_classes).eval()
    output = model(torch.randn(3, 1, 28, 28))
    assert output.shape == (3, num_classes)
    assert torch.allclose(output.exp().sum(1), torch.ones(3))  # float32 sums


def test_dropout_is_for_training_only():
    model, images = MnistModel(), torch.randn(3, 1, 28, 28)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_layers_are_those_of_the_classic_example():
    shapes = {name: tuple(value.shape) for name, value in MnistModel().state_dict().items()}
    assert shapes == {
        "conv1.weight": (10, 1, 5, 5), "conv1.bias": (10,), "conv2.weight": (20, 10, 5, 5),
        "conv2.bias": (20,), "fc1.weight": (50, 320), "fc1.bias": (50,),
        "fc2.weight": (10, 50), "fc2.bias": (10,)}
