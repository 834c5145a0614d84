import torch

from model.loss import nll_loss


def test_loss_is_the_mean_negative_log_likelihood():
    output = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    expected = -torch.log(torch.tensor([0.5, 0.75])).mean()
    assert torch.allclose(nll_loss(output, torch.tensor([0, 1])), expected)  # order of the sum
