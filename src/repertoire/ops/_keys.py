"""Codebooks of keys: vectors drawn from data, and which of them is nearest."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.ops._rows import class_sums
from repertoire.ranges import AtLeast, Between, checked

__all__ = ["draw_keys", "nearest_keys"]


def nearest_keys(x: Tensor, keys: Tensor) -> Tensor:
    """Position of the nearest key of each codebook, by Euclidean distance.

    Args:
        x: floating point `[N, C, m]`, a vector for each codebook.
        keys: floating point `[C, K, m]`.

    Returns:
        int64 `[N, C]`; of keys that are equally near, the first. Computed in float32 or better, without a gradient.

    Example:
        >>> import torch
        >>> from repertoire.ops import nearest_keys
        >>> nearest_keys(torch.tensor([[[0.2]], [[0.9]]]), torch.tensor([[[0.0], [1.0]]])).flatten()
        tensor([0, 1])
    """
    with torch.autocast(x.device.type, enabled=False), torch.no_grad():
        wide = torch.promote_types(torch.promote_types(x.dtype, keys.dtype), torch.float32)
        x, keys = x.to(wide), keys.to(wide)
        # The square of x is the same for all keys.
        nearness = torch.einsum("ncm,ckm->nck", x, keys) - 0.5 * keys.square().sum(2)
        return nearness.argmax(2)


@torch.no_grad()
@checked
def draw_keys(
    x: Tensor,
    count: Annotated[int, AtLeast(1)],
    *,
    passes: Annotated[int, AtLeast(1)] = 5,
    decay: Annotated[float, Between(0, 1, "[)")] = 0.9,
    batch: Annotated[int, AtLeast(1)] = 1024,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Keys that lie where the data are, each codebook by itself: k-means by exponential moving averages.

    van den Oord et al., *Neural Discrete Representation Learning* (2017), appendix A.1. Keys begin at rows drawn at
    random. For each batch, with the number :math:`n_k` and the sum :math:`s_k` of the rows that are nearest to key k,

    .. math::
        N_k \leftarrow \gamma N_k + (1 - \gamma)\, n_k, \quad M_k \leftarrow \gamma M_k + (1 - \gamma)\, s_k, \quad
        e_k = M_k / N_k

    After each pass, a key that no row of the pass was nearest to moves to a random row: keys that nothing is near would
    never be used.

    Args:
        x: floating point `[N, C, m]`, N of 1 or more.
        count: K, keys of each codebook. Where there are fewer rows, several begin at the same one.
        passes: over all rows, 1 or more.
        decay: gamma, from 0 to below 1.
        batch: rows at once.
        generator: on the CPU; torch's own if None.

    Returns:
        `[C, K, m]`, of the dtype of x, or float32 for half precision.

    Raises:
        ShapeError: no rows, or another shape.

    Example:
        >>> import torch
        >>> from repertoire.ops import draw_keys
        >>> x = torch.tensor([0.0, 0.0, 4.0, 4.0]).view(4, 1, 1)
        >>> draw_keys(x, 2, generator=torch.Generator().manual_seed(1)).flatten().sort().values
        tensor([0., 4.])
    """
    if x.ndim != 3 or not len(x) or not x.is_floating_point():
        raise ShapeError(f"x must be a floating point [N, C, m] of one row or more, found {x.dtype} {list(x.shape)}")
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    rows, books, width = x.shape

    def at_random(wanted: int) -> Tensor:
        """Rows for each codebook, none twice while there are others, `[C, wanted, m]`."""
        order = torch.stack([torch.randperm(rows, generator=generator) for _ in range(books)])
        index = order[:, torch.arange(wanted) % rows].to(x.device)
        return x[index, torch.arange(books, device=x.device)[:, None]]

    keys = at_random(count)
    sizes = x.new_ones(books, count) * batch / count
    sums = keys * sizes[:, :, None]
    offset = torch.arange(books, device=x.device) * count
    for _ in range(passes):
        used = x.new_zeros(books, count)
        for part in x.split(batch):
            cell = (nearest_keys(part, keys) + offset).flatten()
            number = torch.bincount(cell, minlength=books * count).view(books, count).to(x)
            total = class_sums(part.reshape(-1, width), cell, books * count).view(books, count, width)
            sizes = decay * sizes + (1 - decay) * number
            sums = decay * sums + (1 - decay) * total
            keys = torch.where((sizes > 1e-6)[:, :, None], sums / sizes.clamp_min(1e-6)[:, :, None], keys)
            used += number
        dead = used == 0
        if dead.any():
            keys = torch.where(dead[:, :, None], at_random(count), keys)
            sizes = torch.where(dead, x.new_tensor(batch / count), sizes)
            sums = torch.where(dead[:, :, None], keys * sizes[:, :, None], sums)
    return keys
