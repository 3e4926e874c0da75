"""TorchRL's DQN, as a line of JSON: python benchmarks/peers/run_torchrl.py --workload a --variant noisy.

At its best: Collector, replay buffer and loss module as in its own DQN scripts, without their logging transforms; fused
Adam; environments without Gymnasium's checks. `--compile` compiles the update (loss, backward and optimiser), as those
scripts can; peers.py measures both. `noisy` draws new noise after each optimiser step, as its documentation asks.
It has all parts of a Rainbow, but its prioritised replay needs its C++ extension, which does not load with this torch.
"""

import functools
import sys
import warnings

import harness
import torch
from harness import make_env, optimiser_steps
from networks import QNetwork
from tensordict.nn import TensorDictSequential
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import Composite, LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import GymWrapper, SerialEnv
from torchrl.modules import EGreedyModule, NoisyLinear, QValueActor, reset_noise
from torchrl.objectives import DQNLoss, HardUpdate
from workloads import PLAIN, Workload

warnings.filterwarnings("ignore")


class TorchRL:
    def __init__(self, workload: Workload, variant: str, compiled: bool) -> None:
        torch.manual_seed(0)
        vector_steps, self.gradient_steps = workload.cycle
        self.round, self.noisy = vector_steps * workload.num_envs, variant != PLAIN
        env = make_envs(workload)
        self.actor = make_actor(workload, variant, env)
        self.loss = DQNLoss(self.actor, loss_function="smooth_l1", delay_value=True)
        self.loss.make_value_estimator(gamma=0.99)
        self.target = HardUpdate(self.loss, value_network_update_interval=workload.target_updates)
        self.optimiser = torch.optim.Adam(self.loss.parameters(), lr=1e-3, fused=True)
        self.replay = TensorDictReplayBuffer(storage=LazyTensorStorage(workload.replay), batch_size=workload.batch)
        self.step = torch.compile(self._step) if compiled else self._step
        policy = self.actor
        if variant == PLAIN:
            explore = EGreedyModule(annealing_num_steps=1, eps_init=0.1, eps_end=0.1, spec=self.actor.spec)
            policy = TensorDictSequential(self.actor, explore)
        starts = -(-workload.starts // self.round) * self.round
        options = {"frames_per_batch": self.round, "total_frames": -1, "track_traj_ids": False}
        self.batches = iter(Collector(lambda: env, policy, init_random_frames=starts, **options))
        for _ in range(starts // self.round):
            self.replay.extend(next(self.batches).reshape(-1))

    def advance(self, steps: int) -> None:
        for _ in range(-(-steps // self.round)):
            self.replay.extend(next(self.batches).reshape(-1))
            for _ in range(self.gradient_steps):
                self.step(self.replay.sample())
                self.target.step()
                if self.noisy:
                    self.actor.apply(reset_noise)

    def updates(self) -> int:
        return optimiser_steps(self.optimiser)

    def _step(self, batch) -> None:
        self.loss(batch)["loss"].backward()
        self.optimiser.step()
        self.optimiser.zero_grad()


def make_envs(workload: Workload):
    """One environment, or several in this process, one after the other."""

    def one():
        return GymWrapper(make_env(workload), categorical_action_encoding=True)

    return one() if workload.num_envs == 1 else SerialEnv(workload.num_envs, one)


def make_actor(workload: Workload, variant: str, env) -> QValueActor:
    shape, actions = tuple(env.observation_spec["observation"].shape), env.action_spec.space.n
    shape = shape if workload.num_envs == 1 else shape[1:]
    spec = Composite(action=env.action_spec if workload.num_envs == 1 else env.action_spec[0])
    # The training mode switches the noise: the losses set an exploration type that would silence it, and σ would then
    # not learn.
    noisy = functools.partial(NoisyLinear, use_exploration_type=False)
    network = QNetwork(workload, shape, actions, nn.Linear if variant == PLAIN else noisy)
    return QValueActor(network, in_keys=["observation"], spec=spec)


if __name__ == "__main__":
    compiled = "--compile" in sys.argv
    if compiled:
        sys.argv.remove("--compile")
    harness.run("torchrl", "torchrl", functools.partial(TorchRL, compiled=compiled))
