"""NoisyLinear against the noisy weight matrix written out, entry by entry."""

from math import prod, sqrt

import pytest
import torch
from torch import Tensor, nn

from agent.noise.distributions import LayerNoise
from agent.noise.layers import FACTORISED_SIGMA0, INDEPENDENT_SIGMA, Linear, NoisyLinear

FORMS = pytest.mark.parametrize("factorised", [True, False], ids=["factorised", "independent"])
BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])


def make(p: int, q: int, *, factorised: bool = True, bias: bool = True, seed: int = 0) -> NoisyLinear:
    """A layer in double precision whose σ are all different, and some of them negative."""
    generator = torch.Generator().manual_seed(seed)
    layer = NoisyLinear(p, q, bias, factorised=factorised, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        for sigma in (layer.sigma_weight, layer.sigma_bias):
            if sigma is not None:
                sigma.normal_(generator=generator)
    return layer


def values(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw(layer: NoisyLinear, rows: int, seed: int = 2) -> LayerNoise:
    return layer.draw(rows, generator=torch.Generator().manual_seed(seed))


def weight_noise(layer: NoisyLinear, noise: LayerNoise, row: int) -> Tensor:
    """ε_w [q, p] of one draw, by its definition: entry (i, j) is f(ε_i)·f(ε_j), or a number of its own."""
    p, q = layer.in_features, layer.out_features
    entries = torch.empty(q, p, dtype=torch.float64)
    for i in range(q):
        for j in range(p):
            if layer.factorised:
                entries[i, j] = noise.output[row, i] * noise.input[row, j]
            else:
                entries[i, j] = noise.input[row, i * p + j]
    return entries


def reference(layer: NoisyLinear, x: Tensor, noise: LayerNoise) -> Tensor:
    """y [..., q] of x [..., p], with the noisy matrix of every row of x formed."""
    rows, many = [x] if x.dim() == 1 else list(x), len(noise.output) > 1
    result = []
    for index, one in enumerate(rows):
        row = index if many else 0
        weight = layer.weight + layer.sigma_weight * weight_noise(layer, noise, row)
        y = one @ weight.T
        if layer.bias is not None and layer.sigma_bias is not None:
            y = y + layer.bias + layer.sigma_bias * noise.output[row]
        result.append(y)
    return result[0] if x.dim() == 1 else torch.stack(result)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# ---- the same layer for all shapes of noise and input


@FORMS
@BIAS
@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ((6, 3), 1),  # a batch under one draw
        ((6, 3), 6),  # and one draw per row
        ((1, 3), 1),
        ((3,), 1),  # a single vector
        ((6, 4, 3), 1),  # dimensions between row and features
        ((6, 4, 3), 6),  # grouped: 6 draws for 24 rows
        ((1, 4, 3), 1),
        ((5, 2, 4, 3), 5),
        ((6, 1, 3), 6),
    ],
)
def test_agrees_with_the_noisy_matrix(factorised: bool, bias: bool, shape: tuple[int, ...], rows: int) -> None:
    layer = make(3, 5, factorised=factorised, bias=bias)
    x, noise = values(*shape), draw(layer, rows)
    close(layer(x, noise), reference(layer, x, noise))


@FORMS
def test_sizes_of_one(factorised: bool) -> None:
    for p, q in [(1, 1), (1, 4), (4, 1)]:
        layer = make(p, q, factorised=factorised)
        for shape, rows in [((1,), 1), ((1, 1), 1), ((3, 1), 1), ((3, 1), 3), ((1, 2, 1), 1)]:
            x, noise = values(*shape[:-1], p), draw(layer, rows)
            close(layer(x, noise), reference(layer, x, noise))


@FORMS
def test_shared_noise_is_per_row_noise_that_repeats(factorised: bool) -> None:
    layer = make(4, 3, factorised=factorised)
    x, noise = values(6, 4), draw(layer, 1)
    repeated = LayerNoise(noise.input.repeat(6, 1), noise.output.repeat(6, 1))
    close(layer(x, noise), layer(x, repeated))


@FORMS
def test_noise_may_be_a_slice_of_a_larger_draw(factorised: bool) -> None:
    layer = make(4, 3, factorised=factorised)
    a, b = layer.noise_sizes
    flat = values(6, a + b + 7)
    noise = LayerNoise(flat[:, 2 : 2 + a], flat[:, 2 + a : 2 + a + b])  # views that are not contiguous
    x = values(6, 2, 4)
    close(layer(x, noise), reference(layer, x, noise))
    shared = LayerNoise(noise.input[:1], noise.output[:1])
    close(layer(x, shared), reference(layer, x, shared))


@FORMS
def test_single_precision_agrees_to_its_own_precision(factorised: bool, device: torch.device) -> None:
    wide = make(64, 32, factorised=factorised)
    layer = NoisyLinear(64, 32, factorised=factorised, device=device)
    layer.load_state_dict(wide.state_dict())
    x = values(16, 64)
    for rows in (1, 16):
        noise = draw(wide, rows)
        narrow = LayerNoise(*(part.float().to(device) for part in noise))
        y = layer(x.float().to(device), narrow)
        torch.testing.assert_close(y.cpu().double(), reference(wide, x, noise), rtol=1e-4, atol=1e-4)


@FORMS
@pytest.mark.parametrize(("shape", "rows"), [((3,), 2), ((1, 3), 2), ((4, 3), 2), ((4, 3), 3), ((2, 4, 3), 4)])
def test_refuses_noise_of_another_number_of_rows(factorised: bool, shape: tuple[int, ...], rows: int) -> None:
    layer = make(3, 5, factorised=factorised)
    with pytest.raises(ValueError, match=f"{rows} draws"):
        layer(values(*shape), draw(layer, rows))


# ---- the mean layer, and nn.Linear


@FORMS
@BIAS
@pytest.mark.parametrize("shape", [(3,), (1, 3), (6, 3), (2, 6, 3)])
def test_without_noise_it_is_nn_linear_with_the_same_weights(
    factorised: bool, bias: bool, shape: tuple[int, ...]
) -> None:
    layer, plain = make(3, 5, factorised=factorised, bias=bias), nn.Linear(3, 5, bias, dtype=torch.float64)
    loaded = layer.load_state_dict(plain.state_dict(), strict=False)
    assert loaded.unexpected_keys == []
    assert loaded.missing_keys == ["sigma_weight", "sigma_bias"][: 1 + bias]
    x = values(*shape)
    assert torch.equal(layer(x), plain(x))
    assert torch.equal(layer(x, None), plain(x))


@FORMS
def test_zero_noise_and_zero_sigma_are_the_mean_layer(factorised: bool) -> None:
    layer, x = make(3, 5, factorised=factorised), values(6, 3)
    noise = draw(layer, 6)
    close(layer(x, LayerNoise(*(torch.zeros_like(part) for part in noise))), layer(x))
    with torch.no_grad():
        layer.sigma_weight.zero_()
        assert layer.sigma_bias is not None
        layer.sigma_bias.zero_()
    close(layer(x, noise), layer(x))


def test_the_plain_layer_is_nn_linear_and_ignores_noise() -> None:
    layer, plain = Linear(3, 5), nn.Linear(3, 5)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(x, draw(NoisyLinear(3, 5), 6)), plain(x))
    assert layer.noise_sizes == (0, 0)


# ---- nothing is stored, nothing is switched


@FORMS
@BIAS
def test_state_dict_holds_mu_and_sigma_alone_and_forward_leaves_it(factorised: bool, bias: bool) -> None:
    layer = make(3, 5, factorised=factorised, bias=bias)
    names = ["weight", "bias", "sigma_weight", "sigma_bias"] if bias else ["weight", "sigma_weight"]
    assert sorted(layer.state_dict()) == sorted(names)
    assert sorted(name for name, _ in layer.named_parameters()) == sorted(names)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    for rows in (1, 6):
        layer(values(6, 3), draw(layer, rows))
    after = layer.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@FORMS
def test_train_and_eval_change_nothing(factorised: bool) -> None:
    layer, x = make(3, 5, factorised=factorised), values(6, 3)
    for noise in (None, draw(layer, 1), draw(layer, 6)):
        assert torch.equal(layer.train()(x, noise), layer.eval()(x, noise))
        assert not noise or not torch.equal(layer.eval()(x, noise), layer.eval()(x))


# ---- the noise itself


def test_rank_one_when_factorised_and_full_rank_when_not() -> None:
    """The layer's output gives the matrix that a draw adds: y(eⱼ) − y(0) = column j."""
    for factorised, rank in [(True, 1), (False, 5)]:
        layer = make(7, 5, factorised=factorised)
        with torch.no_grad():
            layer.weight.zero_()
            layer.sigma_weight.fill_(1.0)
        noise = draw(layer, 1)
        noisy = (layer(torch.eye(7, dtype=torch.float64), noise) - layer(torch.zeros(7, dtype=torch.float64), noise)).T
        close(noisy, weight_noise(layer, noise, 0))
        assert torch.linalg.matrix_rank(noisy) == rank


@FORMS
def test_rows_have_noise_of_their_own(factorised: bool) -> None:
    """With one input in 20 000 rows, outputs of different rows are uncorrelated, and under one draw they are equal."""
    layer = make(3, 4, factorised=factorised)
    x = values(3).expand(20_000, 3)
    y = layer(x, draw(layer, 20_000)).detach()
    pairs = torch.corrcoef(torch.cat([y[:10_000], y[10_000:]], dim=1).T)[:4, 4:]
    assert float(pairs.abs().max()) < 5 / sqrt(10_000)
    assert float(y.std(dim=0).min()) > 0.1
    shared = layer(x, draw(layer, 1)).detach()
    close(shared, shared[:1].expand_as(shared))


def test_variance_of_the_output_is_the_closed_form() -> None:
    """Per row: Var y_i = Σ_j σ_ij² x_j²·v + σ_i²·m, v = 2/π and m = √(2/π) if factorised, and both 1 if not.

    Factorised, weight and bias share f(ε_out), and columns are uncorrelated because f(ε_in) has mean 0.
    """
    n = 200_000
    for factorised, v, m in [(True, 2 / torch.pi, sqrt(2 / torch.pi)), (False, 1.0, 1.0)]:
        layer = make(3, 4, factorised=factorised)
        x = values(3)
        y = layer(x.expand(n, 3), draw(layer, n)).detach()
        assert layer.sigma_bias is not None
        expected = (layer.sigma_weight.square() @ x.square()) * v + layer.sigma_bias.square() * m
        torch.testing.assert_close(y.var(dim=0), expected.detach(), rtol=0.03, atol=0)
        assert bool(((y.mean(dim=0) - layer(x).detach()).abs() < 5 * (expected / n).sqrt()).all())


# ---- initialisation


def within(parameter: Tensor, bound: float) -> bool:
    """Whether a parameter is uniform on ±bound: it fills the range, and has the mean and variance of a uniform one."""
    x, n = parameter.detach().reshape(-1).double(), parameter.numel()
    filled = bound * (1 - 20 / n) < float(x.abs().max()) <= bound * (1 + 1e-6)
    centred = abs(float(x.mean())) < 5 * bound / sqrt(3 * n)
    return filled and centred and abs(float(x.square().mean()) / (bound**2 / 3) - 1) < 5 * sqrt(0.8 / n)


def only(parameter: Tensor) -> float:
    """The number that all entries of a parameter have."""
    low, high = parameter.detach().aminmax()
    assert float(low) == float(high)
    return float(low)


@pytest.mark.parametrize(("p", "q"), [(64, 1000), (1000, 400), (3, 5000)])
def test_initialisation_is_the_papers(p: int, q: int) -> None:
    """§3.2 of Fortunato et al. 2018; p is the number of inputs, for the biases too."""
    generator = torch.Generator().manual_seed(0)
    factorised = NoisyLinear(p, q, generator=generator)
    independent = NoisyLinear(p, q, factorised=False, generator=generator)
    plain = Linear(p, q, generator=generator)
    for layer, bound in [(factorised, 1 / sqrt(p)), (independent, sqrt(3 / p)), (plain, 1 / sqrt(p))]:
        assert layer.bias is not None
        assert within(layer.weight, bound)
        assert within(layer.bias, bound)
    assert (FACTORISED_SIGMA0, INDEPENDENT_SIGMA) == (0.5, 0.017)
    for layer, sigma in [(factorised, 0.5 / sqrt(p)), (independent, 0.017)]:
        assert layer.sigma_bias is not None
        assert only(layer.sigma_weight) == only(layer.sigma_bias) == pytest.approx(sigma)


def test_sigma0_is_a_choice_and_zero_is_one() -> None:
    for sigma0 in (0.0, 0.1, 2.0):
        for factorised, sigma in [(True, sigma0 / 4), (False, sigma0)]:
            layer = NoisyLinear(16, 3, sigma0=sigma0, factorised=factorised)
            assert layer.sigma_bias is not None
            assert only(layer.sigma_weight) == only(layer.sigma_bias) == pytest.approx(sigma)
    with pytest.raises(ValueError, match="sigma0"):
        NoisyLinear(3, 3, sigma0=-0.1)


@pytest.mark.parametrize(("p", "q"), [(0, 3), (3, 0), (-1, 3)])
def test_refuses_impossible_sizes(p: int, q: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        NoisyLinear(p, q)


def test_mean_sigma_is_the_papers_curve() -> None:
    layer = NoisyLinear(16, 3)
    assert float(layer.mean_sigma()) == pytest.approx(0.5)  # σ0 at the start, for each size
    with torch.no_grad():
        layer.sigma_weight.copy_(torch.tensor([[-1.0] * 16, [2.0] * 16, [3.0] * 16]))
    assert float(layer.mean_sigma()) == pytest.approx(2.0 * 4.0)
    assert not layer.mean_sigma().requires_grad


# ---- gradients


@FORMS
@BIAS
@pytest.mark.parametrize(("shape", "rows"), [((5, 3), 1), ((5, 3), 5), ((4, 2, 3), 4), ((3,), 1)])
def test_gradients_against_finite_differences(factorised: bool, bias: bool, shape: tuple[int, ...], rows: int) -> None:
    layer = make(3, 2, factorised=factorised, bias=bias)
    noise, names = draw(layer, rows), [name for name, _ in layer.named_parameters()]

    def output(x: Tensor, *parameters: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, noise))
        return result

    inputs = [values(*shape), *(parameter.detach().clone() for parameter in layer.parameters())]
    assert torch.autograd.gradcheck(output, [value.requires_grad_() for value in inputs])


@FORMS
@pytest.mark.parametrize("rows", [1, 6])
def test_gradients_in_closed_form(factorised: bool, rows: int) -> None:
    """For L = Σ y·c: ∂L/∂μ_w = Σ c xᵀ, ∂L/∂σ_w = Σ (c xᵀ)⊙ε_w, ∂L/∂μ_b = Σ c, ∂L/∂σ_b = Σ c⊙ε_b."""
    layer = make(3, 2, factorised=factorised)
    x, c, noise = values(6, 3), values(6, 2, seed=9), draw(layer, rows)
    (layer(x, noise) * c).sum().backward()
    outer = [torch.outer(c[n], x[n]) for n in range(6)]
    used = [n if rows > 1 else 0 for n in range(6)]
    assert layer.weight.grad is not None
    assert layer.sigma_weight.grad is not None
    close(layer.weight.grad, torch.stack(outer).sum(0))
    spread = torch.stack([outer[n] * weight_noise(layer, noise, used[n]) for n in range(6)])
    close(layer.sigma_weight.grad, spread.sum(0))
    assert layer.bias is not None
    assert layer.sigma_bias is not None
    assert layer.bias.grad is not None
    assert layer.sigma_bias.grad is not None
    close(layer.bias.grad, c.sum(0))
    close(layer.sigma_bias.grad, torch.stack([c[n] * noise.output[used[n]] for n in range(6)]).sum(0))


# ---- a layer alone


@FORMS
def test_drop_in_for_nn_linear(factorised: bool, device: torch.device) -> None:
    layer = NoisyLinear(8, 4, factorised=factorised, device=device, dtype=torch.float64)
    assert all(p.dtype == torch.float64 and p.device.type == device.type for p in layer.parameters())
    x = values(5, 8).to(device)
    noise = layer.draw(5)
    assert (noise.input.dtype, noise.input.device.type) == (torch.float64, device.type)
    assert [tuple(part.shape) for part in noise] == [(5, 8 if factorised else 32), (5, 4)]
    assert layer(x, noise).shape == layer(x).shape == (5, 4)
    network = nn.Sequential(layer, nn.ReLU(), NoisyLinear(4, 2, device=device, dtype=torch.float64))
    assert network(x).shape == (5, 2)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    before = layer.sigma_weight.detach().clone()
    layer(x, noise).square().sum().backward()
    optimiser.step()
    assert not torch.equal(layer.sigma_weight, before)


@FORMS
def test_draws_are_of_the_generator_and_of_the_distribution_asked_for(factorised: bool) -> None:
    layer = make(3, 5, factorised=factorised)
    assert torch.equal(draw(layer, 4).input, draw(layer, 4).input)
    assert not torch.equal(draw(layer, 4).input, draw(layer, 4, seed=3).input)
    uniform = layer.draw(10_000, "uniform", generator=torch.Generator().manual_seed(0))
    bound = 3**0.25 if factorised else sqrt(3)  # f of a number below √3, or the number
    for part in uniform:
        assert 0.999 * bound < float(part.abs().max()) <= bound * (1 + 1e-6)


def test_parameters_are_of_the_generator_alone() -> None:
    def make_one(seed: int) -> NoisyLinear:
        return NoisyLinear(4, 3, generator=torch.Generator().manual_seed(seed))

    before = torch.get_rng_state()
    a, b, c = make_one(1), make_one(1), make_one(2)
    assert torch.equal(a.weight, b.weight)
    assert not torch.equal(a.weight, c.weight)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("rows", [1, 4])
def test_noise_sizes_are_what_forward_reads(rows: int) -> None:
    for factorised in (True, False):
        layer = make(3, 5, factorised=factorised)
        assert layer.noise_sizes == ((3, 5) if factorised else (15, 5))
        noise = draw(layer, rows)
        assert sum(part.numel() for part in noise) == rows * sum(layer.noise_sizes)
        x, y = values(4, 3), layer(values(4, 3), noise).detach()
        for part in range(2):  # every number of the noise changes the output
            for index in range(prod(noise[part].shape)):
                changed = [noise.input.clone(), noise.output.clone()]
                changed[part].view(-1)[index] += 1.0
                assert not torch.equal(layer(x, LayerNoise(*changed)).detach(), y)


def test_print_shows_sizes_and_form() -> None:
    assert repr(NoisyLinear(3, 5, False)) == "NoisyLinear(3, 5, bias=False, factorised)"
    assert repr(NoisyLinear(3, 5, factorised=False)) == "NoisyLinear(3, 5, bias=True, independent)"
    assert repr(Linear(3, 5)) == "Linear(3, 5, bias=True)"
