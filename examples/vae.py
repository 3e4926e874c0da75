"""A variational autoencoder beside a plain one, on the 8×8 digits that ship with scikit-learn.

    python examples/vae.py [--out DIR] [--seed 0] [--quick]          # needs pip install -e '.[examples]'

Each pixel counts the dark dots of a 4×4 block, 0 to 16, so that Binomial(16, p) is a proper likelihood and the bound is
valid, in nats. Kingma & Welling 2014 (arXiv 1312.6114): q(z|x) = N(μ(x), σ(x)²), sampled as z = μ + σ·ε;
the plain autoencoder is the same network with ε = None and no divergence from the prior.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from common import BLUE, GREY, ORANGE, Options, figure, generator, run, save, style
from matplotlib.axes import Axes
from torch import Tensor, nn

from agent.common.errors import UserError
from agent.noise.distributions import quantile, sample
from agent.noise.layers import Linear

LATENT = 2  # a plane, which can be drawn
LEVELS = 16.0
TRAINING = 1500  # of 1797 digits; the others are held out


def digits(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Counts [n, 64] from 0 to 16 for training and for testing, shuffled.

    Raises:
        UserError: where scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    except ImportError:
        raise UserError("the digits come with scikit-learn: pip install -e '.[examples]'") from None
    counts = torch.from_numpy(load_digits().data).float()
    counts = counts[torch.randperm(len(counts), generator=generator)]
    return counts[:TRAINING], counts[TRAINING:]


class Autoencoder(nn.Module):
    """Encoder x → (μ, log σ) and decoder z → logits of p, each with one hidden layer."""

    def __init__(self, generator: torch.Generator, width: int = 128) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            Linear(64, width, generator=generator), nn.ReLU(), Linear(width, 2 * LATENT, generator=generator)
        )
        self.decoder = nn.Sequential(
            Linear(LATENT, width, generator=generator), nn.ReLU(), Linear(width, 64, generator=generator)
        )

    def encode(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ [n, 2] of q(z|x)."""
        loc, log_scale = self.encoder(counts / LEVELS).chunk(2, dim=-1)
        return loc, log_scale

    def decode(self, z: Tensor) -> Tensor:
        """Probabilities [n, 64] that one of a pixel's 16 parts is dark."""
        return torch.sigmoid(self.decoder(z))

    def forward(self, counts: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log-likelihood and divergence [n] in nats; their difference is the evidence lower bound."""
        loc, log_scale = self.encode(counts)
        z = loc if noise is None else loc + log_scale.exp() * noise
        return log_likelihood(self.decoder(z), counts), divergence(loc, log_scale)


def log_likelihood(logits: Tensor, counts: Tensor) -> Tensor:
    """log Binomial(counts; 16, sigmoid(logits)) summed over pixels: [n]."""
    ways = torch.lgamma(torch.tensor(LEVELS + 1.0)) - torch.lgamma(counts + 1.0) - torch.lgamma(LEVELS - counts + 1.0)
    return (ways + counts * F.logsigmoid(logits) + (LEVELS - counts) * F.logsigmoid(-logits)).sum(dim=-1)


def divergence(loc: Tensor, log_scale: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) summed over the latent dimensions: [n] (appendix B of the paper)."""
    return 0.5 * (loc.square() + (2.0 * log_scale).exp() - 1.0 - 2.0 * log_scale).sum(dim=-1)


@dataclass(frozen=True)
class Trained:
    """A trained model and, per epoch, the objective in nats on training and held-out digits."""

    model: Autoencoder
    training: list[float]
    held_out: list[float]


def train(variational: bool, data: tuple[Tensor, Tensor], epochs: int, seed: int, batch: int = 100) -> Trained:
    """Maximises the evidence lower bound with one draw of ε per digit; without `variational`, only the likelihood."""
    model, draws, order = Autoencoder(generator(seed, 1)), generator(seed, 2), generator(seed, 3)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    training: list[float] = []
    held_out: list[float] = []
    for _ in range(epochs):
        total = 0.0
        for rows in torch.split(torch.randperm(len(data[0]), generator=order), batch):
            value = objective(model, data[0][rows], variational, draws)
            optimiser.zero_grad()
            (-value).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += float(value.detach()) * len(rows)
        training.append(total / len(data[0]))
        with torch.no_grad():
            held_out.append(float(objective(model, data[1], variational, draws)))
    return Trained(model, training, held_out)


def objective(model: Autoencoder, counts: Tensor, variational: bool, draws: torch.Generator) -> Tensor:
    """The evidence lower bound in nats per digit; without `variational`, the log-likelihood of the mean code."""
    noise = sample((len(counts), LATENT), generator=draws) if variational else None
    likelihood, kl = model(counts, noise)
    value: Tensor = (likelihood - kl if variational else likelihood).mean()
    return value


def prior_likelihood(model: Autoencoder, counts: Tensor, draws: int, generator: torch.Generator) -> float:
    """Mean over digits of log (1/K) Σ p(x|z_k), z_k ~ N(0, 1), K = draws: log p(x), or less where K is too small."""
    with torch.no_grad():
        logits = model.decoder(sample((draws, LATENT), generator=generator))
        each = torch.stack([log_likelihood(logits, digit) for digit in counts])
    return float((each.logsumexp(dim=1) - torch.tensor(float(draws)).log()).mean())


def _tiles(images: Tensor, columns: int) -> Tensor:
    """One picture [rows·9 − 1, columns·9 − 1] of images [n, 64], a line of white between them."""
    padded = F.pad(images.view(-1, columns, 8, 8), (0, 1, 0, 1))
    return padded.permute(0, 2, 1, 3).reshape(-1, columns * 9)[:-1, :-1]


def _show(axes: Axes, images: Tensor, columns: int, title: str) -> None:
    style(axes, title)
    axes.imshow(_tiles(images, columns).numpy(), cmap="gray_r", vmin=0.0, vmax=1.0)
    axes.set_axis_off()


def _draw_bounds(axes: Axes, vae: Trained, likelihood: float) -> None:
    epochs = range(1, len(vae.training) + 1)
    axes.plot(epochs, vae.training, color=GREY, label="lower bound, training")
    axes.plot(epochs, vae.held_out, color=BLUE, label="lower bound, held out")
    axes.axhline(likelihood, color="black", linestyle="--", linewidth=1.2, label="log p(x), held out")
    low = sorted(vae.held_out)[len(epochs) // 20]
    axes.set_ylim(low - 5.0, likelihood + 8.0)
    style(axes, "Evidence lower bound", "epoch", "nats per digit")


def _draw_codes(axes: Axes, codes: dict[str, Tensor]) -> None:
    for (label, points), color in zip(codes.items(), (ORANGE, BLUE), strict=True):
        axes.plot(points[:, 0], points[:, 1], ".", color=color, markersize=4, markeredgewidth=0, label=label)
    for radius in (1.0, 2.0):
        angle = torch.linspace(0.0, 6.2832, 100)
        axes.plot(radius * angle.cos(), radius * angle.sin(), color="black", linewidth=1)
    axes.set_aspect("equal", "datalim")
    style(axes, "Codes of held-out digits; prior at 1σ, 2σ", "z₁", "z₂")


def walk(model: Autoencoder, side: int = 10) -> Tensor:
    """Images [side², 64] decoded from a grid of the plane, equal shares of the prior apart (quantiles of N(0, 1))."""
    places = quantile((torch.arange(side) + 0.5) / side, "normal")
    with torch.no_grad():
        return model.decode(torch.cartesian_prod(places, places).flip(1))


def _draw(data: tuple[Tensor, Tensor], vae: Trained, plain: Trained, likelihood: float, options: Options) -> None:
    prior = sample((60, LATENT), generator=generator(options.seed, 5))
    drawing, panels = figure(2, 3, 12.6, 7.2, heights=(0.62, 1.0))
    with torch.no_grad():
        codes = {"plain": plain.model.encode(data[1])[0], "variational": vae.model.encode(data[1])[0]}
        rebuilt = [plain.model.decode(codes["plain"]), vae.model.decode(codes["variational"])]
        triples = torch.stack([data[1] / LEVELS, *rebuilt])[:, :20].view(3, 2, 10, 64).transpose(0, 1)
        _show(panels[0], triples.reshape(-1, 64), 10, "Held out, plain, variational; twice")
        _show(panels[1], plain.model.decode(prior), 10, "Decoded draws of N(0, 1): plain")
        _show(panels[2], vae.model.decode(prior), 10, "Decoded draws of N(0, 1): variational")
    _draw_bounds(panels[3], vae, likelihood)
    _draw_codes(panels[4], codes)
    _show(panels[5], walk(vae.model), 10, "A walk through the plane (variational)")
    save(drawing, options.out, "vae")


def main(options: Options) -> None:
    """Trains both, prints bounds and likelihoods, and writes vae.png."""
    data = digits(generator(options.seed))
    epochs, draws = (8, 200) if options.quick else (150, 5000)
    vae, plain = (train(variational, data, epochs, options.seed) for variational in (True, False))
    print("nats per digit; higher is better")
    print(f"lower bound, held out: {vae.held_out[0]:.1f} after epoch 1, {vae.held_out[-1]:.1f} after epoch {epochs}")
    likelihood = {}
    for name, model in (("variational", vae.model), ("plain", plain.model)):
        with torch.no_grad():
            at_code = [float(objective(model, part, False, generator(options.seed, 4))) for part in data]
            std = model.encode(data[1])[0].std(dim=0)
        likelihood[name] = prior_likelihood(model, data[1], draws, generator(options.seed, 6))
        print(f"{name:11}: log p(x|z) at the mean code: training {at_code[0]:.1f}, held out {at_code[1]:.1f}")
        print(f"{'':11}  log p(x), held out, by {draws} draws of the prior: {likelihood[name]:.1f}")
        print(f"{'':11}  standard deviations of the codes: {float(std[0]):.2f} {float(std[1]):.2f}")
    _draw(data, vae, plain, likelihood["variational"], options)


if __name__ == "__main__":
    run(main, __doc__)
