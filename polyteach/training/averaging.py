"""Averaging: an exponential moving average of the weights."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class Average:
    """Exponential moving average of a module's weights and buffers; counters are copied."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """After step number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                _here(self.state[name]).lerp_(_here(value), 1 - decay)
            else:
                self.state[name].copy_(value)


def _here(tensor: Tensor) -> Tensor:
    """What this process holds of it. Torch plans anew how to divide an operation whose factor it has not met: each step
    that would be the most of a step's time, for what is done to each part alone."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
