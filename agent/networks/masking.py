"""Splits rows of bytes into observations and masks of actions, as tensors; see `agent.common.masking`."""

from typing import NamedTuple

import torch
from torch import Tensor

from agent.common.masking import Masking


class Masked(NamedTuple):
    """Observations and their masks. Observations of several parts are rows of bytes, or a list of the parts."""

    observation: Tensor | list[Tensor]
    allowed: Tensor  # bool [..., A]


def split_masks(masking: Masking, rows: Tensor) -> Masked:
    """Splits rows [..., n] of bytes into observations and masks. Floats may hold the bytes, since they do so exactly.

    From rows of floats, the observations are floats of the same dtype.
    """
    frames = rows.to(torch.uint8).reshape(*rows.shape[:-1], *masking.frame_shape)
    places = torch.arange(7, -1, -1, dtype=torch.uint8, device=rows.device)
    bits = (frames[..., -1, masking.bits].unsqueeze(-1) >> places) & 1
    allowed = bits.flatten(-2)[..., : masking.actions] != 0
    if not masking.has_one_part:
        return Masked(rows, allowed)
    form = masking.inner
    x = frames[..., : masking.end].flatten(-2).contiguous()
    x = x.view(torch.float32) if form.dtype == "float32" else x != 0 if form.dtype == "bool" else x
    x = x.reshape(*rows.shape[:-1], *form.shape)
    return Masked(x.to(rows.dtype) if rows.is_floating_point() else x, allowed)
