"""The examples: the properties that docs/reparameterization.md claims, on small sizes, and each program's short form.

Statistical tests are seeded, so they pass or fail for good. Their tolerances are five standard errors unless told
otherwise.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from math import pi, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from agent.noise.distributions import QUANTILES, Distribution, sample
from agent.noise.layers import NoisyLinear

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))  # where programs of this folder look
import common
import gradient
import noisy
import sine
import standardise
import vae
from common import generator

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {"standardise": standardise, "gradient": gradient, "sine": sine, "vae": vae, "noisy": noisy}
MAPS = pytest.mark.parametrize("g", standardise.MAPS.values(), ids=["linear", "exp", "cubic"])


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn: pip install -e '.[examples]'")
    return vae.digits(generator(0))


def standard_errors(values: Tensor, exact: float) -> float:
    """How many standard errors the mean of values [n] is away from the exact one."""
    return float((values.mean() - exact).abs() / (values.std() / sqrt(len(values))))


# ---- standardise: location, scale, change of variables


@pytest.mark.parametrize("family", QUANTILES)
@pytest.mark.parametrize(("mean", "std"), standardise.TARGETS)
def test_location_and_scale_are_mean_and_standard_deviation(family: Distribution, mean: float, std: float) -> None:
    epsilon = sample((100_000,), family, generator=generator(3)).double()
    found = standardise.moments(mean + std * epsilon)
    assert abs(found.mean - mean) < 5 * found.mean_error
    assert abs(found.std - std) < 5 * found.std_error


def test_standard_errors_are_those_of_the_normal_in_closed_form() -> None:
    found = standardise.moments(10.0 + 5.0 * sample((100_000,), generator=generator(4)).double())
    assert found.mean_error == pytest.approx(5.0 / sqrt(100_000), rel=0.02)
    assert found.std_error == pytest.approx(5.0 / sqrt(2 * 100_000), rel=0.02)


@MAPS
def test_change_of_variables_holds(g: common.Function) -> None:
    assert standardise.identity_gap(g) < 1e-6


@MAPS
def test_the_density_is_that_of_the_samples(g: common.Function) -> None:
    z = g(sample((100_000,), generator=generator(5)).double()).sort().values
    edges = z[torch.linspace(1_000, 98_999, 9).long()]
    for low, high in pairwise(edges):
        line = torch.linspace(float(low), float(high), 2_001, dtype=torch.float64)
        share = float(torch.trapezoid(standardise.pushed_density(g, line), line))
        counted = float(((z > low) & (z <= high)).double().mean())
        assert abs(counted - share) < 5 * sqrt(share * (1 - share) / len(z))


def test_the_density_of_the_exponential_map_is_the_log_normal() -> None:
    z = torch.linspace(0.05, 20.0, 200, dtype=torch.float64)
    exact = torch.distributions.LogNormal(0.0, 1.0).log_prob(z).exp()
    torch.testing.assert_close(standardise.pushed_density(torch.exp, z), exact, rtol=1e-6, atol=1e-9)


# ---- gradient: unbiased both ways, and how far apart the variances are


@pytest.fixture(scope="module")
def rows() -> dict[str, gradient.Row]:
    return {row.label: row for row in gradient.rows(100_000, 1)}


@pytest.mark.parametrize("name", gradient.FAMILIES)
def test_log_densities_are_of_mean_0_and_variance_1(name: str) -> None:
    z = torch.linspace(-40.0, 40.0, 800_001, dtype=torch.float64)
    density = gradient.FAMILIES[name].log_density(z).exp()
    for power, moment in ((0, 1.0), (1, 0.0), (2, 1.0)):
        assert float(torch.trapezoid(density * z**power, z)) == pytest.approx(moment, abs=2e-4)


def test_gumbel_draws_are_gumbel_and_skewed() -> None:
    epsilon = gradient.FAMILIES["gumbel"].draw(400_000, generator(6))
    assert abs(float(epsilon.mean())) < 5 / sqrt(400_000)
    assert float(epsilon.pow(3).mean()) == pytest.approx(1.1395, abs=0.05)  # 12·√6·ζ(3)/π³
    exact = torch.distributions.Gumbel(-gradient.EULER * sqrt(6.0) / pi, sqrt(6.0) / pi).log_prob(epsilon[:100])
    torch.testing.assert_close(gradient.FAMILIES["gumbel"].log_density(epsilon[:100]), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("label", [f"{name} {s}" for name in gradient.FAMILIES for s in "μσ"] + ["gamma α"])
def test_the_pathwise_gradient_is_unbiased(rows: dict[str, gradient.Row], label: str) -> None:
    assert standard_errors(rows[label].estimates.path, rows[label].exact) < 5


@pytest.mark.parametrize(
    "label",
    [f"{name} {s}" for name in gradient.FAMILIES if name != "uniform" for s in "μσ"] + ["gamma α", "step μ"],
)
def test_the_score_function_is_unbiased_with_and_without_baseline(rows: dict[str, gradient.Row], label: str) -> None:
    for estimates in (rows[label].estimates.score, rows[label].estimates.baseline):
        assert standard_errors(estimates, rows[label].exact) < 5


@pytest.mark.parametrize(
    "label", ["normal μ", "normal σ", "laplace μ", "laplace σ", "logistic μ", "gumbel μ", "gamma α"]
)
def test_the_path_has_less_variance_where_f_is_a_square(rows: dict[str, gradient.Row], label: str) -> None:
    path, score, baseline = rows[label].estimates
    assert gradient.ratio(score, path) > 2.0
    assert gradient.ratio(baseline, path) > 2.0


def test_variance_ratios_of_the_normal_by_hand(rows: dict[str, gradient.Row]) -> None:
    path, score, baseline = rows["normal μ"].estimates
    assert float(path.var()) == pytest.approx(4.0, rel=0.05)  # 4σ²
    assert float(score.var()) == pytest.approx(30.0, rel=0.1)  # μ⁴/σ² + 14μ² + 15σ²
    assert float(baseline.var()) == pytest.approx(18.0, rel=0.1)


def test_a_moving_support_deceives_the_score(rows: dict[str, gradient.Row]) -> None:
    assert not rows["uniform μ"].estimates.score.any()
    assert standard_errors(rows["uniform σ"].estimates.score, -2.0) < 5  # −E f/σ instead of 2σ


def test_a_jump_has_no_path(rows: dict[str, gradient.Row]) -> None:
    assert rows["step μ"].exact == pytest.approx(0.24197, abs=1e-5)
    assert not rows["step μ"].estimates.path.any()


@pytest.mark.parametrize("count", [1, 2, 16])
def test_variance_ratio_in_many_dimensions_is_the_exact_one(count: int) -> None:
    found = gradient.in_dimensions(count, 100_000, generator(8, count))
    assert all(standard_errors(values, 2.0) < 5 for values in found)
    plain, baseline = gradient.ratio_in_dimensions(count)
    assert gradient.ratio(found.score, found.path) == pytest.approx(plain, rel=0.08)
    assert gradient.ratio(found.baseline, found.path) == pytest.approx(baseline, rel=0.08)


def test_variance_ratio_of_the_sine_is_the_exact_one_and_crosses_1() -> None:
    found = dict(gradient.measure_sine(100_000, 0))
    for omega, value in found.items():
        assert value == pytest.approx(gradient.ratio_of_sine(omega), rel=0.05)
    assert max(found.values()) > 1e5
    assert min(found.values()) < 0.02


def test_gamma_is_differentiated_through_its_distribution_function() -> None:
    """dz/dα = −∂F(z; α)/∂α / p(z; α), by finite differences of F."""
    alpha = torch.full((200,), 2.0, dtype=torch.float64, requires_grad=True)
    z = torch._standard_gamma(alpha, generator=generator(9))
    (slope,) = torch.autograd.grad(z.sum(), alpha)
    z, step = z.detach(), torch.tensor(1e-5, dtype=torch.float64)
    rise = (torch.special.gammainc(2.0 + step, z) - torch.special.gammainc(2.0 - step, z)) / (2.0 * step)
    torch.testing.assert_close(slope, -rise / (z * torch.exp(-z)), rtol=1e-4, atol=1e-6)


# ---- sine: sampling from a learned location and scale


def test_the_energy_score_is_best_at_the_truth() -> None:
    noise, y = sample((2, 400_000), generator=generator(10)), sample((400_000,), generator=generator(11))
    best = sine.energy_score(noise, y)
    assert float(best) == pytest.approx(1.0 / sqrt(pi), abs=0.01)  # half of E|z − z′| = 2/√π
    for loc, scale in ((0.5, 1.0), (0.0, 0.5), (0.0, 2.0), (0.0, 0.0)):
        assert sine.energy_score(loc + scale * noise, y) > best + 0.02


def test_squared_error_removes_the_spread_and_the_energy_score_keeps_it() -> None:
    kept = sine.train(False, True, sine.energy_score, 0, 400)
    removed = sine.train(False, True, sine.squared_error, 0, 400)
    assert 0.1 < kept.mean_spread < 0.5
    assert removed.mean_spread < 0.05
    assert kept.mean_error < kept.curve[0][1] / 2


def test_batch_norm_makes_the_scale_of_the_input_irrelevant() -> None:
    x, noise = torch.linspace(0.0, sine.END, 64), torch.zeros(64)
    plain, scaled = (sine.SampleNetwork(16, True, choice, generator(0)) for choice in (False, True))
    torch.testing.assert_close(plain(x, noise), scaled(x, noise), rtol=1e-2, atol=1e-2)
    plain, scaled = (sine.SampleNetwork(16, False, choice, generator(0)) for choice in (False, True))
    assert (plain(x, noise) - scaled(x, noise)).abs().max() > 0.3


def test_batch_norm_widens_the_spread_and_small_batches_more() -> None:
    small, large = (sine.train(True, True, sine.energy_score, 0, 300, batch) for batch in (32, 512))
    assert small.mean_spread > large.mean_spread + 0.1
    assert large.mean_spread > sine.MEAN_SPREAD
    jitter = [sine.batch_jitter(fit.network, batch, generator(1)) for fit, batch in ((small, 32), (large, 512))]
    assert jitter[0] > jitter[1] + 0.05 > 0.06
    plain = sine.SampleNetwork(16, False, True, generator(0))
    assert sine.batch_jitter(plain, 32, generator(1)) < 1e-6


def test_the_sampling_network_is_a_function_of_its_noise() -> None:
    network, x = sine.SampleNetwork(16, False, True, generator(0)), torch.linspace(0.0, sine.END, 32)
    noise = sample((32,), generator=generator(1))
    assert torch.equal(network(x, noise), network(x, noise.clone()))
    assert not torch.equal(network(x, noise), network(x, -noise))
    assert torch.equal(network(x, None), network.location_scale(x)[0])


# ---- vae


def test_likelihood_is_the_binomial() -> None:
    counts = torch.randint(0, 17, (5, 64), generator=generator(12)).float()
    logits = torch.randn(5, 64, generator=generator(13))
    exact = torch.distributions.Binomial(16, logits=logits).log_prob(counts).sum(dim=1)
    torch.testing.assert_close(vae.log_likelihood(logits, counts), exact, rtol=1e-4, atol=1e-3)


def test_divergence_is_that_of_two_normals() -> None:
    loc, log_scale = torch.randn(2, 7, 2, generator=generator(14))
    posterior = torch.distributions.Normal(loc, log_scale.exp())
    exact = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(vae.divergence(loc, log_scale), exact)


def test_the_lower_bound_improves_and_stays_below_the_likelihood(digits: tuple[Tensor, Tensor]) -> None:
    trained = vae.train(True, digits, 12, 0)
    assert trained.held_out[-1] > trained.held_out[0] + 50
    assert trained.training[-1] > trained.training[0] + 50
    assert trained.held_out[-1] < vae.prior_likelihood(trained.model, digits[1], 2_000, generator(15))


def test_only_the_variational_decoder_understands_the_prior(digits: tuple[Tensor, Tensor]) -> None:
    fed = [
        vae.prior_likelihood(vae.train(choice, digits, 25, 0).model, digits[1], 1_000, generator(16))
        for choice in (True, False)
    ]
    assert fed[0] > fed[1] + 5


def test_the_autoencoder_is_a_function_of_its_noise() -> None:
    model, counts = vae.Autoencoder(generator(0)), torch.full((3, 64), 8.0)
    noise = sample((3, 2), generator=generator(1))
    assert torch.equal(model(counts, noise)[0], model(counts, noise.clone())[0])
    assert not torch.equal(model(counts, noise)[0], model(counts, -noise)[0])
    assert torch.equal(model(counts, None)[0], model(counts, torch.zeros(3, 2))[0])


# ---- noisy


def test_one_output_scatters_alike_but_only_a_shared_draw_moves_the_batch() -> None:
    layer, x = NoisyLinear(16, 4, generator=generator(0)), torch.randn(16, generator=generator(1))
    exact = float(noisy.output_std(layer, x)[0])
    shared = noisy.outputs(layer, x, 32, 4_000, True, generator(2))
    own = noisy.outputs(layer, x, 32, 4_000, False, generator(3))
    for values, expected in (
        (shared.single, exact),
        (own.single, exact),
        (shared.batch_mean, exact),
        (own.batch_mean, exact / sqrt(32)),
    ):
        assert float(values.std()) == pytest.approx(expected, rel=0.08)


def test_sigma_shrinks_where_noise_hurts_and_stays_where_it_does_not() -> None:
    learned = noisy.learn(150, 0.05, generator(17))
    start = float(learned.bias[0])
    for i, size in enumerate(noisy.INPUT_SIZES):
        theory = noisy.sigma_in_theory(size, start, 0.05, 150)
        assert (learned.weights[:, i] - theory).abs().max() < 0.05
    assert (learned.bias - noisy.sigma_in_theory(None, start, 0.05, 150)).abs().max() < 0.05
    assert (learned.weights[:, -1] == start).all()  # the input that is always 0: not one bit
    assert learned.weights[-1].abs().sort().values.equal(learned.weights[-1].abs())  # the smaller, the slower


def test_the_same_draw_gives_the_same_output() -> None:
    layer = NoisyLinear(16, 4, generator=generator(0))
    first, again, fresh = noisy._same_twice(layer, torch.randn(50, 16, generator=generator(1)), generator(2))
    assert torch.equal(first, again)
    assert not torch.isclose(first, fresh).any()


# ---- the programs


@pytest.mark.parametrize("name", PROGRAMS)
def test_short_form(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if name == "vae":
        pytest.importorskip("sklearn", reason="the digits come with scikit-learn: pip install -e '.[examples]'")
    program, before = PROGRAMS[name], torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # type: ignore[union-attr]  # noqa: NPY002
    common.run(program.main, program.__doc__, ["--quick", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed.endswith(f"picture: {tmp_path / name}.png\n")
    assert len(printed.splitlines()) > 5
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # type: ignore[index]  # noqa: NPY002


@pytest.mark.parametrize("name", ["standardise", "gradient", "noisy"])
def test_numbers_are_of_the_seed(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(PROGRAMS[name], "save", lambda *_: None)  # numbers alone: drawing takes longer

    def printed(seed: int) -> str:
        common.run(PROGRAMS[name].main, "", ["--quick", "--seed", str(seed)])
        return capsys.readouterr().out

    first = printed(1)
    assert printed(1) == first
    assert printed(2) != first


def test_runs_from_any_folder_without_installation(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "standardise.py"), "--quick"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert "picture: outputs/standardise.png" in ended.stdout
    assert (tmp_path / "outputs" / "standardise.png").exists()


def refused(main: Callable[[common.Options], None], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        common.run(main, "", ["--quick", *arguments])
    return str(caught.value)


def test_refusals_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert "choose another folder by --out" in refused(noisy.main, "--out", str(tmp_path / "file"))
    assert "the seed is -1" in refused(noisy.main, "--seed", "-1")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert refused(vae.main).endswith("pip install -e '.[examples]'")


# ---- the document


def test_the_document_names_what_exists() -> None:
    text = (ROOT / "docs" / "reparameterization.md").read_text(encoding="utf-8")
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 15
    assert [name for name in sorted(named) if f"def {name}(" not in tests] == []
    for name in PROGRAMS:
        assert f"(figures/{name}.png)" in text
        assert (ROOT / "docs" / "figures" / f"{name}.png").stat().st_size < 150_000
