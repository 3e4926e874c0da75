"""The independence of the random streams of one seed."""

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch

from agent.common.seeding import (
    STREAMS,
    environment_seeds,
    numpy_generator,
    restore,
    seed_sequence,
    state_of,
    torch_generator,
)


def words(seed: int, stream: str, *key: int) -> tuple[int, ...]:
    return tuple(seed_sequence(seed, stream, *key).generate_state(4).tolist())


def test_every_stream_seed_and_key_is_another() -> None:
    seen = [words(seed, stream) for seed in (0, 1, 2, 2**32, 2**64, 2**64 + 1) for stream in STREAMS]
    seen += [words(seed, stream, step) for seed in (0, 1) for stream in STREAMS for step in (0, 1, 2**32, 2**40)]
    assert len(set(seen)) == len(seen)


def test_streams_keep_their_numbers() -> None:
    """New streams go to the end of the list, since an inserted or moved stream would change every old run."""
    order = "initialisation acting update replay exploration environments evaluation diagnostics test"
    assert STREAMS[:9] == tuple(order.split())
    assert words(7, "replay") == tuple(np.random.SeedSequence(7, spawn_key=(3,)).generate_state(4).tolist())
    with pytest.raises(ValueError):
        seed_sequence(0, "no such stream")


def test_generators_are_functions_of_seed_and_stream() -> None:
    for stream in STREAMS:
        first, second = (torch.rand(8, generator=torch_generator(5, stream)) for _ in range(2))
        assert torch.equal(first, second)
        one, two = (numpy_generator(5, stream).random(8).tolist() for _ in range(2))
        assert one == two


def test_streams_do_not_correlate() -> None:
    """With 10 000 numbers of each stream, the largest of all correlations is below 5 / √10 000."""
    torch_draws = [
        torch.randn(10_000, generator=torch_generator(seed, stream)).numpy() for seed in (0, 1) for stream in STREAMS
    ]
    numpy_draws = [numpy_generator(0, stream).standard_normal(10_000) for stream in STREAMS]
    correlations = np.corrcoef(np.stack(torch_draws + numpy_draws)) - np.eye(3 * len(STREAMS))
    assert np.abs(correlations).max() < 0.05


def test_environment_seeds_do_not_depend_on_how_many_are_asked() -> None:
    many = environment_seeds(3, "evaluation", 1000)
    for count in (1, 2, 5, 999):
        assert environment_seeds(3, "evaluation", count) == many[:count]
    assert environment_seeds(3, "environments", 5, 1000) != environment_seeds(3, "environments", 5, 2000)


def test_environment_seeds_are_plain_distinct_and_accepted_everywhere() -> None:
    """Seeds are below 2³¹, since older environments and C code take an int32, and cover the whole range."""
    seeds = environment_seeds(0, "evaluation", 2000)
    assert all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds)
    assert len(set(seeds)) == 2000  # random seeds have an equal pair once in a thousand
    assert np.mean(seeds) == pytest.approx(2**30, rel=0.06)  # 4.6 standard errors


def global_state() -> list[object]:
    _, key, position, *_ = np.random.get_state()  # noqa: NPY002
    return [torch.get_rng_state().tolist(), list(key), position, random.getstate()]


def test_no_global_generator_is_touched() -> None:
    np.random.seed(987_654_321)  # noqa: NPY002
    before = global_state()
    environment_seeds(0, "evaluation", 10)
    torch.rand(3, generator=torch_generator(0, "acting"))
    numpy_generator(0, "exploration").random(3)
    assert global_state() == before


def draw_of(generator: torch.Generator | np.random.Generator) -> list[float]:
    if isinstance(generator, np.random.Generator):
        drawn: list[float] = generator.random(3).tolist()
        return drawn
    return torch.rand(3, generator=generator).tolist()


@pytest.mark.parametrize("make", [numpy_generator, torch_generator])
def test_a_generator_goes_on_where_its_state_stood_and_leaves_other_kinds_alone(make: Any) -> None:
    generator, other = make(3, "replay"), torch_generator if make is numpy_generator else numpy_generator
    draw_of(generator)
    state = copy.deepcopy(state_of(generator))
    expected = draw_of(generator)
    fresh = make(4, "replay")
    restore(fresh, state)
    assert draw_of(fresh) == expected
    restore(generator, state)
    restore(generator, state_of(other(5, "replay")))
    assert draw_of(generator) == expected
