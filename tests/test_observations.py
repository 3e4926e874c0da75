"""Observations of every kind against Gymnasium's flattening, images in every layout, and storage in the replay."""

import json
import math
import re
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agent.common.errors import UserError
from agent.common.observation import ObservationSpec, as_spec
from agent.replay.memory import required_bytes
from agent.replay.ring import Replay
from envs.observations import observer_of
from envs.observed_parts import observer_for
from envs.shapes import check_shapes, flattened, note_on_shapes

BOX = spaces.Box(-np.inf, np.inf, (3,), np.float64)
FLAT: dict[str, spaces.Space[Any]] = {
    "vector": BOX,
    "single": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "one number": spaces.Box(-np.inf, np.inf, (), np.float32),
    "unbounded matrix": spaces.Box(-np.inf, np.inf, (4, 5), np.float32),
    "four dimensions": spaces.Box(-9, 9, (2, 3, 2, 2), np.float32),
    "thin image": spaces.Box(-9, 9, (2, 9), np.float32),
    "truth values": spaces.Box(0, 1, (5,), np.bool_),
    "discrete": spaces.Discrete(5),
    "shifted discrete": spaces.Discrete(4, start=-2),
    "binary": spaces.MultiBinary(6),
    "binary matrix": spaces.MultiBinary([2, 3]),
    "multi": spaces.MultiDiscrete([3, 2, 4]),
    "shifted multi": spaces.MultiDiscrete([3, 2], start=[1, -1]),
    "multi matrix": spaces.MultiDiscrete([[3, 2], [2, 5]]),
    "tuple": spaces.Tuple((spaces.Discrete(3), BOX, spaces.MultiBinary(2))),
    "binary tuple": spaces.Tuple((spaces.Discrete(3), spaces.Discrete(2))),
    "dict": spaces.Dict(
        b=spaces.Discrete(3), a=BOX, c=spaces.Tuple((spaces.MultiDiscrete([2, 2]), spaces.Discrete(2)))
    ),
    "nested image": spaces.Dict(picture=spaces.Box(-99999, 99999, (4, 4), np.int32), speed=BOX),
}
BINARY = ("truth values", "discrete", "binary", "multi", "shifted", "binary tuple")


class Sampler(gym.Env[Any, np.int64]):
    """Observes samples of a space, ends at random, has no limit, and keeps its observations."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any], seed: int = 0) -> None:
        self.observation_space = space
        space.seed(seed)
        self.seen: list[Any] = []

    def _observe(self) -> Any:
        self.seen.append(self.observation_space.sample())
        return self.seen[-1]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._observe(), 1.0, bool(self.np_random.random() < 0.2), False, {}


@pytest.mark.parametrize("name", FLAT)
def test_vectors_are_gymnasiums_own_flattening(name: str) -> None:
    space = FLAT[name]
    observe = observer_of("Test-v0", space)
    space.seed(1)
    samples = [space.sample() for _ in range(20)]
    expected = np.stack([spaces.flatten(space, sample) for sample in samples])
    seen = observe(observe.stack(samples))
    assert observe.spec == ObservationSpec((expected.shape[1],), "bool" if name.startswith(BINARY) else "float32")
    assert (seen.dtype, seen.shape) == (observe.spec.dtype, expected.shape)
    assert np.array_equal(seen, expected.astype(seen.dtype))


@pytest.mark.parametrize("name", FLAT)
def test_a_vector_environment_is_observed_as_its_copies_are(name: str) -> None:
    """Gymnasium's batches equal stacks of single observations, and the next step does not change them."""
    copies = [Sampler(deepcopy(FLAT[name]), seed) for seed in range(3)]
    envs = SyncVectorEnv(
        [lambda env=env: env for env in copies],  # type: ignore[misc]
        copy=False,
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )
    observe = observer_of("Test-v0", FLAT[name])
    rows = [observe(envs.reset(seed=0)[0])]
    rows += [observe(envs.step(np.zeros(3, dtype=np.int64))[0]) for _ in range(30)]
    for i, env in enumerate(copies):
        assert np.array_equal(np.stack([row[i] for row in rows]), observe(observe.stack(env.seen)))
    envs.close()


def test_every_kind_of_space_is_flattened_or_refused() -> None:
    """A space without a fixed length is refused by its name. Text has a fixed length and is flattened."""
    observe = observer_of("Test-v0", spaces.Tuple((spaces.Text(5), spaces.Discrete(2))))
    assert observe.spec == ObservationSpec((7,))
    seen = observe(observe.stack([("ab", 0), ("", 1)]))
    assert np.abs(seen).max() <= 1
    assert not np.array_equal(seen[0, :5], seen[1, :5])
    for space in (spaces.Sequence(BOX), spaces.Graph(BOX, None), spaces.OneOf((BOX, BOX)), spaces.Space()):
        with pytest.raises(UserError, match="length is not fixed"):
            observer_of("Test-v0", space)


@pytest.mark.parametrize("space", [spaces.Dict(), spaces.Box(0, 1, (0,)), spaces.Tuple(())])
def test_observations_of_nothing_are_refused(space: spaces.Space[Any]) -> None:
    with pytest.raises(UserError, match="nothing in them"):
        observer_of("Test-v0", space)


def test_whole_numbers_are_stretched_and_absurd_ranges_left_alone() -> None:
    space = spaces.Box(np.array([0, 0, 0]), np.array([255, 1, 2**40]), dtype=np.int64)
    seen = observer_of("Test-v0", space)(np.array([[0, 0, 0], [255, 1, 7]]))
    assert seen.tolist() == [[-1, -1, 0], [1, 1, 7]]


# ---- images

LAYOUTS = [
    ((10, 12, 4), (4, 10, 12)),  # channels last
    ((4, 12, 10), (4, 12, 10)),  # channels first
    ((10, 10, 7), (7, 10, 10)),
    ((7, 10, 10), (7, 10, 10)),
    ((9, 7), (1, 9, 7)),  # one channel
    ((9, 7, 1), (1, 9, 7)),
    ((1, 9, 7), (1, 9, 7)),
    ((2, 9, 2), None),  # too narrow for any window
    ((2, 9), None),
]


@pytest.mark.parametrize(("shape", "expected"), LAYOUTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float32, np.float64, np.int32])
def test_images_in_every_layout(shape: tuple[int, ...], expected: tuple[int, ...] | None, dtype: Any) -> None:
    high = 1 if dtype == np.bool_ else 200
    space = spaces.Box(0, high, shape, dtype)
    space.seed(0)
    observe = observer_of("Test-v0", space)
    if expected is None:
        assert observe.spec.shape == (np.prod(shape),)
        return
    stored = {np.uint8: "uint8", np.int32: "uint8", np.bool_: "bool"}.get(dtype, "float32")
    assert observe.spec == ObservationSpec(expected, stored, float(high) if stored == "uint8" else 1.0)
    batch = np.stack([space.sample() for _ in range(3)])
    seen = observe(batch)
    assert (seen.shape, seen.dtype, seen.flags.c_contiguous) == ((3, *expected), stored, True)
    for image, source in zip(seen, batch, strict=True):
        for c, y, x in np.ndindex(*expected):
            at = (y, x) if len(shape) == 2 else (c, y, x) if shape == expected else (y, x, c)
            value = source[at] / 200 if stored == "float32" else source[at]
            assert image[c, y, x] == pytest.approx(value)
    before = seen.copy()
    batch[:] = 0
    assert np.array_equal(seen, before)  # environments overwrite their arrays


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint16, np.uint64])
@pytest.mark.parametrize("value", [-1, 256, 300])
def test_numbers_of_an_image_never_wrap_round(dtype: Any, value: int) -> None:
    """A wider integer outside of a byte is refused, also in a part and in a stack."""
    if not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        pytest.skip("no number of this dtype")
    space = spaces.Box(0, 100, (4, 5), dtype)
    observers = (
        (observer_for("Test-v0", space), lambda image: image),
        (observer_for("Test-v0", spaces.Box(0, 100, (2, 4, 5), dtype), frames=2), lambda image: np.stack([image] * 2)),
        (observer_for("Test-v0", spaces.Dict(image=space)), lambda image: {"image": image}),
    )
    image = np.full((4, 5), 7, dtype)
    for observe, made in observers:
        assert observe.stack([made(image)]) is not None
        assert observe(observe.stack([made(image)])).max() == 7
    image[2, 3] = value
    for observe, made in observers:
        with pytest.raises(UserError, match=rf"an image must lie in Box\(0, 100.*not an image of .*{value}"):
            observe(observe.stack([made(image)]))


#: (shape, the side of the channels, None if the shape does not tell it).
CHANNELS = [
    ((4, 84, 84), "first"),
    ((84, 84, 4), "last"),
    ((10, 10, 7), "last"),
    ((10, 10, 11), "last"),
    ((8, 8, 111), "last"),
    ((20, 8, 8), "first"),
    ((16, 4, 4), "first"),
    ((3, 3, 4), "last"),
    ((4, 3, 3), "first"),
    ((210, 160, 3), "last"),
    ((3, 210, 160), "first"),
    ((96, 96, 3), "last"),
    ((240, 320, 3), "last"),
    ((240, 320, 1), "last"),
    ((240, 320, 12), "last"),
    ((12, 210, 160), "first"),
    ((2, 9, 8), "first"),  # as channels first, the image is nearly square; otherwise its height would be 2
    ((9, 8, 2), "last"),
    ((6, 7, 2), "last"),
    ((2, 210, 100), "first"),
    ((1, 6, 10), "first"),
    ((3, 6, 10), "first"),
    ((10, 10, 10), None),
    ((3, 3, 3), None),
    ((7, 9, 12), None),
    ((3, 10, 4), None),
    ((8, 20, 111), None),
    ((9, 12, 9), None),
    ((2, 6, 10), None),  # a board of 2 × 6 with 10 planes, or one of 6 × 10 with 2
    ((2, 3, 13), None),
    ((13, 3, 2), None),
    ((1, 9, 3), None),
]


@pytest.mark.parametrize(("shape", "where"), CHANNELS)
def test_the_channels_of_an_image_are_found_or_asked_for(shape: tuple[int, ...], where: Any) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    if where is None:
        with pytest.raises(UserError, match=r"write env.channels=first or env.channels=last"):
            observer_of("Test-v0", space)
    for asked in ("first", "last"):
        observe = observer_of("Test-v0", space, channels=asked)
        height_and_width = shape[1:] if asked == "first" else shape[:2]
        if min(height_and_width) < 3:  # a side is too small to convolve
            assert observe.spec == ObservationSpec((math.prod(shape),))
            continue
        assert observe.spec.shape[1:] == height_and_width
        assert observe.channels == asked
        if asked == where:
            assert observer_of("Test-v0", space).description() == observe.description()
            assert observer_of("Test-v0", space).axes == observe.axes


@pytest.mark.parametrize(("shape", "where"), [((8, 8, 111), "first"), ((10, 10, 10), "last"), ((4, 84, 84), "first")])
def test_agents_of_the_first_version_keep_its_rule(shape: tuple[int, ...], where: str) -> None:
    assert observer_of("Test-v0", spaces.Box(0, 1, shape), channels="older").channels == where


def test_channels_are_not_asked_for_where_there_is_no_image() -> None:
    with pytest.raises(UserError, match=r"env.channels=last does nothing: Test-v0 observes no images"):
        observer_of("Test-v0", spaces.Box(0, 1, (4,)), channels="last")


@pytest.mark.parametrize("shape", [(2, 7, 3), (3, 7, 2), (2, 4, 3), (2, 9, 2), (8, 2, 2), (1, 1, 50)])
def test_a_board_that_is_too_small_to_convolve_is_a_vector(shape: tuple[int, ...]) -> None:
    """The shape (2, 7, 3) is a board of two rows, and no image of two channels."""
    observe = observer_of("Test-v0", spaces.Box(0, 1, shape))
    assert (observe.spec, observe.channels) == (ObservationSpec((math.prod(shape),)), None)


def test_a_saved_agent_observes_a_vector_where_it_did() -> None:
    """A board whose named channels leave an image that is too small is still observed as a vector."""
    space = spaces.Box(0, 1, (2, 6, 10))
    task = observer_for("Test-v0", space, channels="last")
    assert task.channels is None
    assert observer_for("Test-v0", space, channels="flat").description() == task.description()
    part = spaces.Dict(board=space, left=spaces.Discrete(3))
    assert observer_for("Test-v0", part, channels="last").spec == ObservationSpec((123,))


VOXELS = spaces.Box(0, 255, (4, 8, 9, 3), np.uint8)
ENDLESS = spaces.Box(-np.inf, np.inf, (8, 9, 3))


@pytest.mark.parametrize(
    ("space", "wrapper"),
    [
        (VOXELS, "{shape:[864]}"),
        (spaces.Dict(left=spaces.Discrete(3), voxels=VOXELS), "{shape:[864],part:voxels}"),
        (spaces.Dict(left=spaces.Box(0, 1, (9, 9)), voxels=VOXELS), "{shape:[864],part:voxels}"),
        (spaces.Tuple([spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(0, 1, (9, 9))), VOXELS]), "{shape:[864],part:1}"),
        (spaces.Box(-np.inf, np.inf, (1, 2, 3, 4, 5)), "{shape:[120]}"),
    ],
)
def test_arrays_of_four_sides_are_refused_by_name(space: spaces.Space[Any], wrapper: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"env.wrappers=[{{ReshapeObservation:{wrapper}}}]")):
        check_shapes(observer_for("Test-v0", space))


@pytest.mark.parametrize(
    ("space", "part"),
    [
        (ENDLESS, "observations of shape (8, 9, 3)"),
        (spaces.Box(-np.inf, 1, (40, 50)), "observations of shape (40, 50)"),
        (spaces.Box(-1e6, 1e6, (40, 50)), "observations of shape (40, 50)"),
        (spaces.Box(0, 65_535, (40, 50), np.uint16), None),
        (spaces.Dict(a=spaces.Box(0, 1, (9, 9)), b=ENDLESS), "'b' of observations of shape (8, 9, 3)"),
        (spaces.Box(-np.inf, np.inf, (5, 7)), None),  # a table of features
        (spaces.Box(0, 1, (8, 9, 3)), None),
        (BOX, None),
    ],
)
def test_images_without_bounds_are_told_of(space: spaces.Space[Any], part: str | None) -> None:
    observe = observer_for("Test-v0", space)
    check_shapes(observe)
    note = note_on_shapes(observe)
    assert note == part or (note is not None and part is not None and note.startswith(part))


LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-LARGEST, LARGEST, (30, 5)),
        spaces.Box(-1e6, 1e6, (30, 5)),
        spaces.Box(0, 2**31 - 1, (7, 7, 3), np.int32),
        spaces.Dict(image=spaces.Box(0, 255, (8, 8, 3), np.uint8), window=spaces.Box(-LARGEST, LARGEST, (30, 5))),
    ],
)
def test_bounds_that_are_hardly_meant_change_no_values(space: spaces.Space[Any]) -> None:
    """Divided by such a range, all values would be nearly equal."""
    observe = observer_for("Test-v0", space)
    box = space["window"] if isinstance(space, spaces.Dict) else space
    window = np.arange(box.shape[0] * int(np.prod(box.shape[1:])), dtype=box.dtype).reshape(box.shape)
    observation: Any = {"image": np.zeros((8, 8, 3), np.uint8), "window": window} if box is not space else window
    seen = observe(observe.stack([observation]))
    values = seen.view(np.float32)[0, : window.size] if box is not space else seen[0]
    assert np.array_equal(values, window.ravel())


def test_frames_of_images_are_no_arrays_of_four_sides() -> None:
    assert not list(flattened(observer_for("Test-v0", spaces.Box(0, 255, (2, 8, 9, 3), np.uint8), frames=2)))


FINITE = [
    (spaces.Discrete(5), 7),
    (spaces.Discrete(5), -1),
    (spaces.Discrete(3, start=2), 1),
    (spaces.MultiDiscrete([2, 3]), [1, 3]),
    (spaces.MultiBinary(3), [0, 1, 2]),
]


@pytest.mark.parametrize(("space", "state"), FINITE)
def test_a_state_outside_its_space_is_refused_and_not_seen_as_zeros(space: spaces.Space[Any], state: Any) -> None:
    observe = observer_of("Test-v0", space)
    good = [space.sample() for _ in range(3)]
    observe(np.stack(good))
    sentence = rf"Test-v0 breaks a rule of Gymnasium: a state must lie in {type(space).__name__}\(.*, not .*{state}"
    with pytest.raises(UserError, match=sentence.replace("[", r"\[")):
        observe(np.stack([*good, np.array(state)]))


def test_images_below_zero_are_brought_to_the_unit_range() -> None:
    observe = observer_of("Test-v0", spaces.Box(-1, 3, (5, 5, 3), np.float32))
    assert observe(np.full((2, 5, 5, 3), -1.0)).max() == 0.0
    assert observe(np.full((2, 5, 5, 3), 3.0)).min() == 1.0


def test_descriptions_are_plain_and_differ_where_observations_do() -> None:
    images = [spaces.Box(0, high, shape, np.uint8) for high in (1, 255) for shape in ((8, 8, 3), (8, 8), (9, 8))]
    descriptions = [observer_of("Test-v0", space).description() for space in (*FLAT.values(), *images)]
    texts = [json.dumps(description) for description in descriptions]
    assert [json.loads(text) for text in texts] == descriptions
    assert len(set(texts[-len(images) :])) == len(images)


def test_a_description_of_a_very_long_vector_is_short() -> None:
    """The description still differs for other bounds."""
    high = np.ones((64, 64, 3, 3), np.float32)
    first = observer_of("Test-v0", spaces.Box(0, high, dtype=np.float32)).description()
    high[0, 0, 0, 0] = 0.5
    second = observer_of("Test-v0", spaces.Box(0, high, dtype=np.float32)).description()
    assert len(json.dumps(first)) < 1000
    assert first["shape"] == second["shape"]
    assert first != second


# ---- in the replay

SPECS = [
    ObservationSpec((3,)),
    ObservationSpec((3,), "bool"),
    ObservationSpec((2, 4, 5), "uint8", 255.0),
    ObservationSpec((1, 3, 3), "bool"),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("n_step", [1, 3])
def test_the_replay_keeps_shape_dtype_and_values(spec: ObservationSpec, n_step: int) -> None:
    rng, no = np.random.Generator(np.random.PCG64(0)), np.zeros(2, dtype=bool)
    rows = [(rng.random((2, *spec.shape)) * 255).astype(spec.dtype) for _ in range(9)]
    replay = Replay(100, 2, spec, n_step=n_step)
    replay.begin(rows[0])
    for t, row in enumerate(rows[1:]):
        replay.add(np.full(2, t), np.zeros(2), no, no, row)
    batch = replay.gather(np.arange(16))
    assert batch.observation.dtype == batch.next_observation.dtype == np.dtype(spec.dtype)
    for i in range(16):
        assert np.array_equal(batch.observation[i], rows[i // 2][i % 2])
        assert np.array_equal(batch.next_observation[i], rows[min(i // 2 + n_step, 8)][i % 2])


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_required_bytes_are_true_for_every_dtype(spec: ObservationSpec) -> None:
    replay = Replay(1000, 4, spec)
    held = sum(x.nbytes for x in (*replay.state().values(),) if isinstance(x, np.ndarray) and len(x) > replay.rows)
    held += replay._starts_of_row.nbytes
    assert required_bytes(1000, 4, spec) == held


def test_a_state_of_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bool, expected .*uint8"):
        Replay(10, 1, SPECS[2]).load_state(Replay(10, 1, ObservationSpec((2, 4, 5), "bool")).state())


def test_a_number_is_a_vector() -> None:
    assert as_spec(4) == ObservationSpec((4,))
    assert as_spec(SPECS[2]) is SPECS[2]
    assert not as_spec(4).is_image
