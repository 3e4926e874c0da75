"""Pieces of the program that plays an exported agent; tests compare what they do with the environments of `envs`."""

#: Draws of ε from the base distributions, of mean 0 and variance 1, in NumPy.
DRAWS = {
    "normal": "rng.normal(0, 1, (1, {size}))",
    "uniform": "rng.uniform(-(3**0.5), 3**0.5, (1, {size}))",
    "laplace": "rng.laplace(0, 0.5**0.5, (1, {size}))",
    "logistic": "rng.logistic(0, 3**0.5 / np.pi, (1, {size}))",
}
EPISODE = """\
session = onnxruntime.InferenceSession("{file}")
{env}
observation, info = env.reset(seed=0)
episode_return, ended = 0.0, False
while not ended:
    inputs = {{{values}}}
    (action,) = session.run(["action"], inputs)[0]
    observation, reward, terminated, truncated, info = env.step({action})
    episode_return, ended = episode_return + float(reward), terminated or truncated
print(episode_return)"""
#: `masks["now"]` holds the mask of the last observation, which other wrappers need not see.
MASKS = """\
masks = {{}}


def keep_mask(observation):
    masks["now"] = observation[{key}]
    return observation"""
#: As `envs.wrappers.Resize` and `envs.atari.Atari` do. OpenCV, which Gymnasium takes, rounds a few pixels differently.
RESIZE = """\
def area(source, target):  # weights [target, source] that average over equal parts
    edges, pixels = np.arange(target + 1) * (source / target), np.arange(source)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (overlap.clip(0) * (target / source)).astype(np.float32)


def resize(env, shape, first=0):  # images of another size, as averages over areas; `first`: channels before the height
    old = env.observation_space
    rows, columns = area(old.shape[first], shape[0]), area(old.shape[first + 1], shape[1])

    def resized(image):
        image = np.moveaxis(image, 0, -first).astype(np.float32)
        image = np.einsum("hw...,vw->hv...", np.tensordot(rows, image, 1), columns, optimize=True)
        return np.moveaxis(np.rint(image).astype(np.uint8), -first, 0)

    new = (*old.shape[:first], *shape, *old.shape[first + 2 :])
    space = gym.spaces.Box(old.low.min(), old.high.max(), new, np.uint8)
    return gym.wrappers.TransformObservation(env, resized, space)"""
#: As `envs.parts.OnPart`.
ON_PART = """\
def on_part(env, part, wrap):  # a wrapper for one part of the observations
    spaces, alone = env.observation_space.spaces, gym.Env()
    part = part if isinstance(spaces, dict) else int(part)
    alone.observation_space, alone.action_space = spaces[part], env.action_space
    wrapped = wrap(alone)

    def replaced(parts, value):
        return {**parts, part: value} if isinstance(parts, dict) else (*parts[:part], value, *parts[part + 1 :])

    space = type(env.observation_space)(replaced(spaces, wrapped.observation_space))
    changed = lambda parts: replaced(parts, wrapped.observation(parts[part]))
    return gym.wrappers.TransformObservation(env, changed, space)"""
#: The idle steps at the beginning of a game, as `envs.atari.Atari` takes them.
IDLE = """\
class Idle(gym.Wrapper):  # a game begins with 1 to {most} idle steps
    def reset(self, **options):
        screen, info = self.env.reset(**options)
        for _ in range(self.unwrapped.np_random.integers(1, {most} + 1)):
            screen, _, terminated, truncated, info = self.env.step(0)
            if terminated or truncated:
                screen, info = self.env.reset()
        return screen, info"""
#: As `envs.deep_sea.DeepSea`.
DEEP_SEA = """\
class DeepSea(gym.Env):  # DeepSea-v0 of noisy-dqn
    size, stochastic = {size}, {stochastic}
    right = np.random.Generator(np.random.PCG64({mapping_seed})).integers(2, size=(size, size))
    observation_space, action_space = gym.spaces.Box(0, 1, (size**2,), np.bool_), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.row = self.column = 0
        return self.observe(), {{}}

    def step(self, action):
        end = self.size - 1
        last, right = self.row == end, action == self.right[self.row, self.column]
        reward = (-0.01 / self.size if right else 0.0) + (right and self.column == end)
        moves = right
        if self.stochastic:
            reward += self.np_random.standard_normal() * (last and self.column in (0, end))
            moves = self.np_random.random() > 1 / self.size and right
        if moves or not right:
            self.column = min(max(self.column + (1 if moves else -1), 0), end)
        self.row += 1
        return self.observe(), float(reward), last, False, {{}}

    def observe(self):
        return np.arange(self.size**2) == (self.row * self.size + self.column if self.row < self.size else -1)"""
