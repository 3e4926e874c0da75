"""Reference values for returns: their bounds, and the returns of random play and of a good agent."""

import re

from envs.atari import SCORES

#: The lowest and the highest return of an episode; None: unknown.
BOUNDS: dict[str, tuple[float | None, float | None]] = {
    "CartPole-v0": (0.0, 200.0),
    "CartPole-v1": (0.0, 500.0),
    "Acrobot-v1": (-500.0, 0.0),
    "MountainCar-v0": (-200.0, 0.0),
    "DeepSea-v0": (-0.01, 0.99),
    "FrozenLake-v1": (0.0, 1.0),
    "CliffWalking-v1": (None, -13.0),
    "ALE/Pong-v5": (-21.0, 21.0),
    "PongNoFrameskip-v4": (-21.0, 21.0),
    "ALE/Boxing-v5": (-100.0, 100.0),
    "MinAtar/Breakout-v1": (0.0, None),
    "MinAtar/Asterix-v1": (0.0, None),
    "MinAtar/Freeway-v1": (0.0, None),
    "MinAtar/Seaquest-v1": (0.0, None),
    "MinAtar/SpaceInvaders-v1": (0.0, None),
}


def return_bounds(env_id: str) -> tuple[float | None, float | None]:
    """The lowest and the highest return of an episode; None where no bound is known."""
    return BOUNDS.get(env_id, (None, None))


#: The mean return of random play over 100 to 2 000 episodes, and the registered return of a solved task.
REFERENCES: dict[str, tuple[float, float]] = {
    "CartPole-v1": (22.1, 475.0),
    "Acrobot-v1": (-497.1, -100.0),
    "MountainCar-v0": (-200.0, -110.0),
    "LunarLander-v3": (-181.7, 200.0),
    "DeepSea-v0": (-0.005, 0.99),
}


def solved_return(env_id: str) -> float | None:
    """The mean return with which a task counts as solved; None where no threshold is known."""
    return REFERENCES[env_id][1] if env_id in REFERENCES else None


def reference_returns(env_id: str) -> tuple[float, float, str] | None:
    """The returns that a normalised score maps to 0 and 1, and who reaches them; None if they were not measured."""
    if env_id in REFERENCES:
        return *REFERENCES[env_id], "random play and the return that counts as solved"
    found = re.fullmatch(r"(?:ALE/)?([A-Z][A-Za-z]*?)(?:NoFrameskip|Deterministic)?-v[045]", env_id)
    game = re.sub(r"(?<=.)(?=[A-Z])", "_", found[1]).lower() if found else ""
    return (*SCORES[game], "random play and a human (Wang et al. 2016)") if game in SCORES else None
