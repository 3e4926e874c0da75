"""The size of a replay, known before it is made."""

from agent.common.observation import ObservationSpec, as_spec


def required_bytes(capacity: int, num_envs: int, observation: ObservationSpec | int) -> int:
    """The bytes that a Replay of `capacity` transitions takes: observations, scalars and the list of starts."""
    spec = as_spec(observation)
    rows = ring_rows(capacity, num_envs, spec.stack)
    return rows * num_envs * (spec.stored_bytes + 4 * 4 + 8) + rows * 8


def ring_rows(capacity: int, num_envs: int, stack: int) -> int:
    """The rows of a ring: whole vector steps, the newest observation, and the older frames of the oldest stack."""
    return -(-capacity // num_envs) + stack
