"""A DQN that explores by learned noise (noisy networks).

The names that most people need are here; all others are in their packages::

    from agent import evaluate, load_agent, train

    run = train(env="CartPole-v1", steps=20_000)
    action = load_agent(run.folder).act(observation)

Importing `agent` costs nothing: a name is fetched from its package when it is first used.
"""

TYPE_CHECKING = False  # that of typing takes longer to import than the rest

if TYPE_CHECKING:
    from agent.command.functions import evaluate as evaluate
    from agent.command.functions import train as train
    from agent.networks.encoder_registry import register_encoder as register_encoder
    from agent.networks.heads.registry import register_head as register_head
    from agent.noise.layers import NoisyLinear as NoisyLinear
    from agent.running.acting import load_agent as load_agent

_PLACES = {
    "NoisyLinear": "agent.noise.layers",
    "evaluate": "agent.command.functions",
    "load_agent": "agent.running.acting",
    "register_encoder": "agent.networks.encoder_registry",
    "register_head": "agent.networks.heads.registry",
    "train": "agent.command.functions",
}

__all__ = [*_PLACES]  # only then does `from agent import *` give the documented names


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
