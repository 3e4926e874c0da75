"""Adam on one flat vector."""

import torch
from torch import Tensor

from agent.common.arrays import Place


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1, β₁ = 0.9, β₂ = 0.999), computed by torch's fused kernel.

    torch.optim.Adam(fused=True) calls the same kernel. For a small network its bookkeeping takes three times as long as
    the step itself, and its constructor takes a second because it loads torch's compiler.

    Args:
        parameters: the vector [P], without a graph; its `grad` holds the gradient.
        eps: ε of the paper.
    """

    def __init__(self, parameters: Tensor, eps: float) -> None:
        self.parameters, self.eps = parameters, eps
        self._lr = 0.0
        # On CUDA the kernel reads the learning rate from the device, so that a recorded graph uses new values.
        self._lr_on_device = (
            torch.zeros((), device=parameters.device, dtype=torch.float32) if parameters.is_cuda else None
        )
        self.state = {name: torch.zeros_like(parameters) for name in ("exp_avg", "exp_avg_sq")}
        self.state["step"] = torch.zeros((), device=parameters.device, dtype=torch.float32)
        assert parameters.grad is not None
        averages = [[self.state["exp_avg"]], [self.state["exp_avg_sq"]]]
        self._steps = Place(parameters.device).put(self.state["step"])  # the same memory
        self._arguments: list[list[Tensor]] = [[parameters], [parameters.grad], *averages, [], [self.state["step"]]]

    def set_rate(self, lr: float) -> None:
        """Sets the learning rate of the following steps."""
        self._lr = lr
        if self._lr_on_device is not None:
            self._lr_on_device.fill_(lr)

    def step(self) -> None:
        """Updates `parameters` in place; the network's parameters are views of it, so the network changes too."""
        self._steps += 1.0
        torch._fused_adam_(
            *self._arguments,
            lr=self._lr if self._lr_on_device is None else self._lr_on_device,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )
