"""Variations of a batch that do not change its labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shift_images(
    x: Tensor, image: tuple[int, ...], reach: int, generator: torch.Generator
) -> Tensor:
    """Every sequence read as an image, moved by up to `reach` pixels each way, zeros moving in.

    x: (b, l, c) with l = rows · columns of `image`, row-major. Returns the same shape.
    """
    if reach == 0:
        return x
    batch, _, channels = x.shape
    rows, columns = image
    padded = F.pad(x.view(batch, rows, columns, channels), (0, 0, reach, reach, reach, reach))
    down, right = torch.randint(0, 2 * reach + 1, (2, batch, 1), generator=generator)
    each = torch.arange(batch)[:, None, None]
    i = (down + torch.arange(rows))[:, :, None]
    j = (right + torch.arange(columns))[:, None, :]
    return padded[each, i, j].view(x.shape)
