"""Products with truth values by looking up columns, against products of the same numbers as floats."""

from functools import partial

import pytest
import torch
from torch import Tensor

from agent.common.observation import ObservationSpec
from agent.compute.compiled_gradient import CompiledGradient
from agent.config.algorithm import AgentConfig
from agent.config.parsing import parse
from agent.learning.gradient import AutogradGradient
from agent.learning.loss import UpdateNoise
from agent.networks.build import build_network
from agent.networks.heads.base import HeadParts
from agent.networks.heads.expected import ExpectedHead
from agent.networks.heads.registry import register_head
from agent.networks.q_network import flatten_parameters
from agent.noise import layers
from agent.noise.layers import LOOK_UP_FROM, SPARSE, Linear, NoisyLinear, product
from agent.replay.batch import Batch
from agent.running.build import _truth_values

P, Q = LOOK_UP_FROM, 7


def parameters(dtype: torch.dtype = torch.float32, p: int = P) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(Q, p, generator=generator, dtype=dtype)
    return weight.requires_grad_(), torch.randn(Q, generator=generator, dtype=dtype).requires_grad_()


def one_hot(*rows: int, p: int = P, seed: int = 2) -> Tensor:
    """Truth values [*rows, p] with one true value per row, in few columns, so that many rows share a column."""
    column = torch.randint(9, rows, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.one_hot(column, p).bool()


def gradients(y: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    return torch.autograd.grad((y * slope).sum(), tensors)


@pytest.fixture
def no_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a product with all columns raise an error."""

    def refuse(*_: object) -> None:
        raise AssertionError("all columns are multiplied")

    monkeypatch.setattr(layers.F, "linear", refuse)


@pytest.mark.parametrize("rows", [(), (1,), (33,), (4, 5), (2, 3, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_one_hot_rows_give_the_bits_of_the_product(rows: tuple[int, ...], bias: bool) -> None:
    weight, shift = parameters()
    x = one_hot(*rows)
    tensors = (weight, shift) if bias else (weight,)
    y, expected = product(x, *tensors), torch.nn.functional.linear(x.float(), *tensors)
    assert torch.equal(y, expected)
    for mine, theirs in zip(gradients(y, *tensors), gradients(expected, *tensors), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("density", [0.0, 0.001, 0.02, SPARSE - 0.01, SPARSE + 0.01, 0.5, 1.0])
@pytest.mark.parametrize("p", [1, LOOK_UP_FROM - 1, LOOK_UP_FROM, 1111])
def test_any_truth_values_give_the_product(density: float, p: int) -> None:
    weight, bias = parameters(torch.float64, p)
    x = torch.rand(17, 2, p, generator=torch.Generator().manual_seed(4)) < density
    y, expected = product(x, weight, bias), torch.nn.functional.linear(x.double(), weight, bias)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(gradients(y, weight, bias), gradients(expected, weight, bias))
    strided = torch.rand(p, 17, generator=torch.Generator().manual_seed(5)).mT < density
    torch.testing.assert_close(product(strided, weight), strided.double() @ weight.T)


def test_few_of_many_are_looked_up(no_product: None) -> None:
    weight, bias = parameters()
    product(one_hot(8), weight, bias)
    for x in (one_hot(8)[:, : P - 1], one_hot(8).logical_not(), one_hot(8).float()):
        with pytest.raises(AssertionError):
            product(x, weight[:, : x.shape[1]], bias)


def test_no_rows_and_no_gradients() -> None:
    weight, bias = parameters()
    assert product(one_hot(8)[:0], weight, bias).shape == (0, Q)
    with torch.inference_mode():
        assert not product(one_hot(8), weight, bias).requires_grad


def test_a_transform_of_the_parameters_sees_them() -> None:
    weight, bias = parameters(torch.float64)
    x = one_hot(12)

    def total(weight: Tensor, x: Tensor) -> Tensor:
        return product(x, weight, bias).square().sum()

    gradient = torch.func.grad(total)(weight, x)
    torch.testing.assert_close(gradient, torch.func.grad(total)(weight, x.double()))
    assert gradient.any()
    each = torch.vmap(lambda row: product(row, weight, bias))(x)
    torch.testing.assert_close(each, product(x, weight, bias))


@pytest.mark.parametrize("factorised", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 6])
def test_noisy_layers_take_truth_values(factorised: bool, rows: int) -> None:
    layer = NoisyLinear(P, Q, factorised=factorised, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    noise = layer.draw(rows, generator=torch.Generator().manual_seed(7)) if rows else None
    torch.testing.assert_close(layer(one_hot(6), noise), layer(one_hot(6).double(), noise))


# ---- networks


def config(**options: object) -> AgentConfig:
    index = {"form": "index", "index": 3, "prior": 0.5, "learning": "joint", "change": {"enabled": False}}
    return parse(AgentConfig, {"network": {"hidden": [8]}, "noise": index, **options})


@pytest.mark.parametrize("hidden", [[8], [9, 8]])
@pytest.mark.parametrize("dueling", [False, True])
def test_an_index_network_reads_one_hot_observations_without_a_product(hidden: list[int], dueling: bool) -> None:
    network = build_network(
        config(network={"hidden": hidden, "dueling": dueling}),
        ObservationSpec((P,), "bool"),
        4,
        torch.Generator().manual_seed(8),
    )
    index, x = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(9)), one_hot(6)
    for noise in (None, index[:1, 0], index[:, 0], index):
        assert torch.equal(network(x, noise).q_values, network(x.float(), noise).q_values)


def test_a_head_of_ones_own_gets_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    class Strict(ExpectedHead):
        takes_truth_values = False

        def outputs(self, features: Tensor, noise: object) -> Tensor:
            assert features.dtype == torch.float32
            return super().outputs(features, noise)  # type: ignore[arg-type]

    def build(parts: HeadParts) -> Strict:
        return Strict(parts.sizes)

    register_head("strict", build)
    plain = config(head="strict", noise={"enabled": False})
    network = build_network(plain, ObservationSpec((P,), "bool"), 4, torch.Generator().manual_seed(8))
    assert network(one_hot(3), None).q_values.shape == (3, 4)


def test_a_compiled_update_is_that_of_the_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The update is only traced, since the compiler's last step would take a minute."""
    monkeypatch.setattr("agent.compute.compiled.torch.compile", partial(torch.compile, backend="aot_eager"))
    algorithm, generator = config(), torch.Generator().manual_seed(10)
    network = build_network(algorithm, ObservationSpec((P,), "bool"), 4, generator)
    target = build_network(algorithm, ObservationSpec((P,), "bool"), 4, generator).requires_grad_(False)
    parameters = flatten_parameters(network)
    batch = Batch(
        one_hot(6), torch.tensor([0, 1, 2, 3, 0, 1]), torch.ones(6), torch.full((6,), 0.9), one_hot(6, seed=11)
    )
    noise = UpdateNoise(*torch.randn(3, 6, 3, generator=generator))
    found = []
    for gradient in (AutogradGradient, partial(CompiledGradient, strict=True)):
        gradient(network, target, parameters, algorithm)(batch, noise)
        assert parameters.grad is not None
        found.append(parameters.grad.clone())
    torch.testing.assert_close(*found)
    assert found[0].any()
    torch.compiler.reset()


def test_which_networks_look_up_their_observations() -> None:
    noisy = config(noise={})
    forms = [ObservationSpec((P,), "bool"), ObservationSpec((P,)), ObservationSpec((4, 12, 12), "bool")]
    counts = [[_truth_values(build_network(one, form, 4), form) for form in forms] for one in (config(), noisy)]
    assert counts == [[P, 0, 0], [0, 0, 0]]
    plain = {"enabled": False}
    implicit = [config(head="implicit_quantile", noise=plain, network={"hidden": hidden}) for hidden in ([8], [9, 8])]
    assert [_truth_values(build_network(one, forms[0], 4), forms[0]) for one in implicit] == [0, P]
    assert isinstance(build_network(config(), forms[0], 4).head.advantage.hidden, Linear)
