"""The draws: exact distributions, moments, independence, streams.

Statistical tests are seeded, so they pass or fail for good. Their tolerances are in standard errors: a right program
exceeds 5 of them for one seed in 1.7 million.
"""

from collections.abc import Callable
from math import pi, sqrt

import numpy as np
import pytest
import torch
from torch import Tensor

from agent.noise.distributions import QUANTILES, Distribution, NoiseModel, quantile, sample, signed_sqrt, split
from agent.noise.streams import DeviceNoise, NoiseStream, TableNoise, noise_stream

DISTRIBUTIONS: tuple[Distribution, ...] = ("normal", "uniform", "laplace", "logistic")
N = 400_000
KS_CRITICAL = 1.95  # Kolmogorov's statistic times √n exceeds this with probability 0.001

#: Distribution functions with mean 0 and variance 1, from their textbook definitions.
CDF: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: 0.5 * torch.erfc(-x / sqrt(2.0)),
    "uniform": lambda x: ((x + sqrt(3.0)) / (2.0 * sqrt(3.0))).clamp(0.0, 1.0),
    "laplace": lambda x: torch.where(x < 0, 0.5 * torch.exp(sqrt(2.0) * x), 1.0 - 0.5 * torch.exp(-sqrt(2.0) * x)),
    "logistic": lambda x: 1.0 / (1.0 + torch.exp(-pi * x / sqrt(3.0))),
}
KURTOSIS = {"normal": 3.0, "uniform": 1.8, "laplace": 6.0, "logistic": 4.2}


def stream_of(kind: str, model: NoiseModel, seed: int = 0) -> NoiseStream:
    sequence = np.random.SeedSequence(seed)
    return TableNoise(model, sequence) if kind == "table" else DeviceNoise(model, sequence, "cpu")


def drawn(stream: NoiseStream | NoiseModel, *shape: int) -> Tensor:
    result = torch.as_tensor(stream.draw(*shape))
    assert result is not None
    return result


def kolmogorov(values: Tensor, cdf: Callable[[Tensor], Tensor]) -> float:
    """The largest distance between the empirical distribution function of `values` [n] and `cdf`."""
    expected = cdf(values.double().sort().values)
    n = len(values)
    below = torch.arange(n, dtype=torch.float64) / n
    return float(torch.maximum((expected - below).abs(), (below + 1.0 / n - expected).abs()).max())


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.reshape(-1), b.reshape(-1)]).double())[0, 1])


# ---- distributions


@pytest.mark.parametrize("kind", ["table", "generator"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_draws_have_the_distribution_asked_for(distribution: Distribution, kind: str) -> None:
    values = drawn(stream_of(kind, NoiseModel(8, False, distribution)), N // 8).reshape(-1)
    assert values.dtype == torch.float32
    assert kolmogorov(values, CDF[distribution]) * sqrt(N) < KS_CRITICAL
    assert abs(float(values.mean())) < 5 / sqrt(N)
    spread = sqrt((KURTOSIS[distribution] - 1) / N)  # standard error of the variance
    assert abs(float(values.double().var()) - 1) < 5 * spread
    assert torch.isfinite(values).all()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_no_pair_of_distributions_is_confused(distribution: Distribution) -> None:
    values = sample((N,), distribution, generator=torch.Generator().manual_seed(1))
    for other in set(DISTRIBUTIONS) - {distribution}:
        assert kolmogorov(values, CDF[other]) * sqrt(N) > KS_CRITICAL


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_quantile_inverts_the_distribution_function(distribution: Distribution) -> None:
    p = torch.linspace(1e-6, 1 - 1e-6, 10_001, dtype=torch.float64)
    torch.testing.assert_close(CDF[distribution](quantile(p, distribution)), p, rtol=0, atol=1e-12)
    assert set(QUANTILES) == set(DISTRIBUTIONS)


def test_tails_are_not_cut() -> None:
    # Of normal draws one in 22 is beyond ±2, and one in 15 787 beyond ±4; with truncation at ±2 their std is 0.88.
    for kind in ("table", "generator"):
        values = drawn(stream_of(kind, NoiseModel(1000, False)), 1000).abs()
        assert float((values > 2).float().mean()) == pytest.approx(0.0455, rel=0.03)
        assert float((values > 4).float().mean()) == pytest.approx(6.3e-5, rel=0.6)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_even_the_extreme_uniform_draws_give_finite_noise(
    distribution: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = torch.tensor([0.0, 1.0 - 2.0**-24])  # the ends of the range of torch.rand
    monkeypatch.setattr(torch, "rand", lambda *_, **__: ends.clone())
    monkeypatch.setattr(torch, "randn", lambda *_, **__: ends.clone())
    assert torch.isfinite(sample((2,), distribution)).all()


def test_an_unknown_distribution_is_named_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"cauchy.*normal.*uniform.*laplace.*logistic"):
        sample((1,), "cauchy")  # type: ignore[arg-type]


# ---- f and the factorised weights


def test_f_is_the_signed_root() -> None:
    x = torch.tensor([-4.0, -0.25, 0.0, 0.25, 9.0])
    assert signed_sqrt(x).tolist() == [-2.0, -0.5, 0.0, 0.5, 3.0]
    assert x.tolist() == [-4.0, -0.25, 0.0, 0.25, 9.0]  # the argument is not changed


@pytest.mark.parametrize("kind", ["table", "generator"])
def test_moments_of_factorised_gaussian_noise(kind: str) -> None:
    """E f² = E|ε| = √(2/π); Var(f_out·f_in) = 2/π; all means 0 (Fortunato et al. 2018, eq. 10 and 11)."""
    noise = split(drawn(stream_of(kind, NoiseModel(4, True)), N), [(2, 2)])[0]
    squares = noise.input.square()
    assert abs(float(squares.mean()) - sqrt(2 / pi)) < 5 * sqrt((1 - 2 / pi) / (2 * N))
    products = noise.output[:, 0] * noise.input[:, 0]
    assert abs(float(products.mean())) < 5 * sqrt(2 / pi / N)
    fourth = 1.0  # E (f_out·f_in)⁴ = (E ε²)²
    assert abs(float(products.square().mean()) - 2 / pi) < 5 * sqrt((fourth - 4 / pi**2) / N)
    assert abs(float(noise.output.mean())) < 5 * sqrt(sqrt(2 / pi) / (2 * N))


def test_factorised_noise_is_f_of_the_very_draw() -> None:
    plain = NoiseModel(6, False).draw(5, generator=torch.Generator().manual_seed(3))
    factorised = NoiseModel(6, True).draw(5, generator=torch.Generator().manual_seed(3))
    assert plain is not None
    assert factorised is not None
    torch.testing.assert_close(factorised, plain.sign() * plain.abs().sqrt())


def test_the_table_holds_f_of_its_own_quantiles() -> None:
    plain, factorised = (
        drawn(stream_of("table", NoiseModel(64, False)), 50),
        drawn(stream_of("table", NoiseModel(64, True)), 50),
    )
    torch.testing.assert_close(factorised, plain.sign() * plain.abs().sqrt())


# ---- one flat draw, split


def test_split_cuts_views_in_the_order_of_the_layers() -> None:
    flat = torch.arange(24.0).view(2, 12)
    first, second = split(flat, [(2, 3), (3, 4)])
    assert first.input.tolist() == [[0, 1], [12, 13]]
    assert first.output.tolist() == [[2, 3, 4], [14, 15, 16]]
    assert second.input.tolist() == [[5, 6, 7], [17, 18, 19]]
    assert second.output.tolist() == [[8, 9, 10, 11], [20, 21, 22, 23]]
    assert all(part.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr() for part in (*first, *second))


def test_split_refuses_a_draw_of_another_size() -> None:
    with pytest.raises((RuntimeError, ValueError)):
        split(torch.zeros(1, 11), [(2, 3), (3, 4)])


@pytest.mark.parametrize("kind", ["table", "generator"])
def test_layers_sides_and_rows_are_uncorrelated(kind: str) -> None:
    """No two numbers of a draw are correlated, over layers, the two sides of a layer, rows and uses."""
    flat = drawn(stream_of(kind, NoiseModel(10, True)), 3, N // 4, 2)
    columns = flat.movedim(1, 0).reshape(N // 4, -1).T  # 3 uses · 2 rows · 10 numbers
    off_diagonal = torch.corrcoef(columns.double()) - torch.eye(60, dtype=torch.float64)
    assert float(off_diagonal.abs().max()) < 6 / sqrt(N // 4)  # the largest of 1770 pairs
    squares = torch.corrcoef(columns.double().square()) - torch.eye(60, dtype=torch.float64)
    assert float(squares.abs().max()) < 6 / sqrt(N // 4)


@pytest.mark.parametrize("kind", ["table", "generator"])
def test_successive_draws_are_uncorrelated(kind: str) -> None:
    stream = stream_of(kind, NoiseModel(1000))
    before, after = drawn(stream, N // 1000), drawn(stream, N // 1000)
    assert abs(correlation(before, after)) < 5 / sqrt(N)


def test_nothing_to_draw_is_the_mean_network() -> None:
    model = NoiseModel(0)
    assert model.draw(3) is None
    assert noise_stream(model, np.random.SeedSequence(0), "cpu").draw(3) is None
    assert DeviceNoise(model, np.random.SeedSequence(0), "cpu").draw(3) is None


# ---- streams


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5), (3, 4, 2)])
def test_shapes(shape: tuple[int, ...], device: torch.device) -> None:
    stream = noise_stream(NoiseModel(7), np.random.SeedSequence(0), device)
    result = torch.as_tensor(stream.draw(*shape))
    assert result is not None
    assert result.shape == (*shape, 7)
    assert result.device.type == device.type
    assert result.dtype == torch.float32


def test_a_stream_is_determined_by_its_seed(device: torch.device) -> None:
    def draws(seed: int) -> Tensor:
        stream = noise_stream(NoiseModel(9), np.random.SeedSequence(seed), device)
        return torch.stack([drawn(stream, 4) for _ in range(3)])

    assert torch.equal(draws(5), draws(5))
    assert not torch.equal(draws(5), draws(6))


@pytest.mark.parametrize("taken", [0, 1, 2, 5])
def test_a_stream_goes_on_where_its_state_stood(taken: int, device: torch.device) -> None:
    model = NoiseModel(5)  # with an odd size, draws do not fill whole random words
    stream = noise_stream(model, np.random.SeedSequence(1), device)
    for _ in range(taken):
        stream.draw(3)
    other = noise_stream(model, np.random.SeedSequence(2), device)
    other.load_state(stream.state())
    for _ in range(3):
        assert torch.equal(drawn(stream, 3), drawn(other, 3))


def test_a_state_of_another_kind_of_device_leaves_the_stream_as_it_was() -> None:
    table, generator = stream_of("table", NoiseModel(5)), stream_of("generator", NoiseModel(5))
    table.load_state(stream_of("generator", NoiseModel(5), 1).state())
    generator.load_state({"kind": "table", "bits": {}})
    assert torch.equal(drawn(table, 2), drawn(stream_of("table", NoiseModel(5)), 2))
    assert torch.equal(drawn(generator, 2), drawn(stream_of("generator", NoiseModel(5)), 2))


def test_a_draw_is_not_overwritten_by_the_next() -> None:
    stream = noise_stream(NoiseModel(50), np.random.SeedSequence(0), "cpu")
    first = drawn(stream, 10)
    copy = first.clone()
    drawn(stream, 10)
    assert torch.equal(first, copy)


@pytest.mark.parametrize("count", [1, 3, 700])
def test_small_draws_are_slices_of_blocks(count: int) -> None:
    """Blocks are drawn in advance. A stream that is restored in the middle of a block draws the same numbers."""
    model = NoiseModel(50)
    one, other, third = (TableNoise(model, np.random.SeedSequence(seed)) for seed in (1, 1, 2))
    seen = [drawn(one, 2, count) for _ in range(2 * TableNoise.BLOCK // (100 * count) + 9)]
    assert len({float(draw[0, 0, 0]) for draw in seen}) > 0.95 * len(seen)
    for _ in range(len(seen) // 2):
        drawn(other, 2, count)
    third.load_state(other.state())
    for draw in seen[len(seen) // 2 :]:
        assert torch.equal(drawn(third, 2, count), draw)
