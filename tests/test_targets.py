"""Targets and losses against numbers worked out by hand."""

import pytest
import torch
from torch import Tensor

from agent.learning.targets import greedy
from agent.networks.heads.base import bellman_target, gather_actions
from agent.networks.heads.expected import td_loss


def test_greedy_is_the_best_action_and_the_first_of_equals() -> None:
    q_values = torch.tensor([[1.0, 3.0, 2.0], [-1.0, -2.0, -3.0], [5.0, 5.0, 5.0], [0.0, 2.0, 2.0]])
    assert greedy(q_values).tolist() == [1, 0, 0, 1]
    assert greedy(q_values).dtype == torch.int64


def test_gather_takes_the_value_of_each_rows_action() -> None:
    q_values = torch.tensor([[1.0, 3.0, 2.0], [-1.0, -2.0, -3.0], [5.0, 6.0, 7.0]])
    assert gather_actions(q_values, torch.tensor([2, 0, 1])).tolist() == [2.0, -1.0, 6.0]


def test_leading_dimensions_are_kept() -> None:
    q_values = torch.arange(24.0).view(2, 4, 3)
    action = torch.tensor([[0, 1, 2, 0], [1, 1, 0, 2]])
    assert gather_actions(q_values, action).tolist() == [[0.0, 4.0, 8.0, 9.0], [13.0, 16.0, 18.0, 23.0]]
    assert greedy(q_values).tolist() == [[2, 2, 2, 2], [2, 2, 2, 2]]


def test_bellman_target_by_hand() -> None:
    """The target is R + discount·v, for one step, three steps of γ = 0.9, an ending (discount 0), a time limit (γ)."""
    reward = torch.tensor([1.0, 2.71, -1.0, -1.0])
    discount = torch.tensor([0.9, 0.729, 0.0, 0.9])
    value = torch.tensor([10.0, 10.0, 10.0, -5.0])
    torch.testing.assert_close(bellman_target(reward, discount, value), torch.tensor([10.0, 10.0, -1.0, -5.5]))


def test_a_terminal_state_has_no_future() -> None:
    target = bellman_target(torch.tensor([2.0]), torch.zeros(1), torch.tensor([3.4e38]))
    assert target.tolist() == [2.0]


@pytest.mark.parametrize(
    ("error", "huber", "squared"),
    [(0.0, 0.0, 0.0), (0.5, 0.125, 0.125), (-0.5, 0.125, 0.125), (1.0, 0.5, 0.5), (3.0, 2.5, 4.5), (-10.0, 9.5, 50.0)],
)
def test_losses_by_hand(error: float, huber: float, squared: float) -> None:
    target = torch.tensor([7.0])
    assert float(td_loss(target + error, target, "huber")) == pytest.approx(huber)
    assert float(td_loss(target + error, target, "squared")) == pytest.approx(squared)


@pytest.mark.parametrize(("error", "loss"), [(1.0, 0.5), (-4.0, 8.0), (6.0, 16.0), (-10.0, 32.0)])
def test_hubers_threshold_by_hand(error: float, loss: float) -> None:
    """The loss is ½·error² within ±4, and 4·(|error| − 2) beyond."""
    target = torch.tensor([7.0])
    assert float(td_loss(target + error, target, "huber", 4.0)) == pytest.approx(loss)


def test_gradients_are_the_error_and_the_error_clipped() -> None:
    errors = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0])

    def gradient(name: str) -> Tensor:
        value = errors.clone().requires_grad_()
        (result,) = torch.autograd.grad(td_loss(value, torch.zeros(5), name).sum(), value)  # type: ignore[arg-type]
        return result

    assert gradient("squared").tolist() == errors.tolist()
    assert gradient("huber").tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_losses_are_not_reduced() -> None:
    value, target = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2)
    assert td_loss(value, target, "huber").tolist() == [[0.5, 1.5], [2.5, 3.5]]
    assert td_loss(value, target, "squared").tolist() == [[0.5, 2.0], [4.5, 8.0]]
