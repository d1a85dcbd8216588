"""Several processes, each with some of the rows, against one process with all of them."""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from repertoire.errors import ShapeError
from repertoire.ops import (
    pair_logsumexp,
    pair_max,
    pair_min,
    pair_sum,
    ring_logsumexp,
    ring_max,
    ring_min,
    ring_sum,
)

N, M, WIDTH = 11, 7, 3


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cases():
    """Name, function of one process, function of the ring, whether there is a y, options."""
    groups = torch.arange(N) % 3
    y_groups = torch.arange(M) % 3
    same = {"pairs": "same", "groups": groups}
    two = {**same, "y_groups": y_groups}
    each = (draw(5, N).abs() + 0.5).requires_grad_()
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

    def one_sum(x, y=None, **options):
        return pair_sum(x, y, "softplus", **options)

    def ring_softplus(x, y=None, **options):
        return ring_sum(x, y, "softplus", **options)

    for name, one, ring in (
        ("lse", pair_logsumexp, ring_logsumexp),
        ("sum", one_sum, ring_softplus),
        ("exp", pair_sum, ring_sum),
    ):
        yield f"{name} within", one, ring, False, {"exclude_self": True}
        yield f"{name} scaled", one, ring, False, {"exclude_self": True, "scale": scale, "similarity": "cosine"}
        yield f"{name} groups", one, ring, False, {**same, "similarity": "sqeuclidean", "scale": -0.7}
        biased = {"bias": draw(6, N).requires_grad_(), "y_bias": draw(7, M).requires_grad_(), "scale": each}
        yield f"{name} two", one, ring, True, {**two, "similarity": "euclidean", **biased}
    yield "lse bounded", pair_logsumexp, ring_logsumexp, False, {"bound": 9.0, "similarity": "cosine", "scale": 9.0}
    for name, one, ring in (("max", pair_max, ring_max), ("min", pair_min, ring_min)):
        yield f"{name} within", one, ring, False, {"exclude_self": True, "similarity": "euclidean"}
        yield f"{name} two", one, ring, True, {**two, "pairs": "different", "similarity": "cosine"}


def part(value, start: int, stop: int, count: int):
    if isinstance(value, torch.Tensor) and value.ndim and len(value) == count:
        return value[start:stop].detach().requires_grad_(value.requires_grad)
    return value.detach().requires_grad_() if isinstance(value, torch.Tensor) and value.requires_grad else value


def bounds(count: int, rank: int, world: int) -> tuple[int, int]:
    """Unequal shares."""
    edges = [count * i * (i + 1) // (world * (world + 1)) for i in range(world + 1)]
    return list(pairwise(edges))[rank]


def leaves(x, y, options):
    return [t for t in (x, y, *options.values()) if isinstance(t, torch.Tensor) and t.requires_grad]


def worker(folder: str) -> None:
    """One rank: compares its rows, and the gradients of its tensors, with those of a single process."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=world)
    for name, one, ring, two, options in cases():
        x, y = draw(0, N, WIDTH).requires_grad_(), draw(1, M, WIDTH).requires_grad_() if two else None
        expected = one(x, y, **options, tile=2)
        (start, stop), y_share = bounds(N, rank, world), bounds(M, rank, world)
        local = {
            k: part(v, *(y_share if k.startswith("y_") else (start, stop)), M if k.startswith("y_") else N)
            for k, v in options.items()
        }
        mine = (
            x.detach()[start:stop].requires_grad_(),
            None if y is None else y.detach()[slice(*y_share)].requires_grad_(),
        )
        found = ring(*mine, **local, tile=2)
        if isinstance(expected, tuple):
            assert torch.equal(found.indices, expected.indices[start:stop]), name
            found, expected = found.values, expected.values
        torch.testing.assert_close(found, expected[start:stop], msg=lambda m, n=name: f"{n}: {m}")
        weights = torch.linspace(-1, 2, N, dtype=torch.float64)
        total = (expected.masked_fill(expected.isinf(), 0.0) * weights).sum()
        wanted = torch.autograd.grad(total, leaves(x, y, options))
        share = (found.masked_fill(found.isinf(), 0.0) * weights[start:stop]).sum()
        gradients = torch.autograd.grad(share, leaves(*mine, local))
        for leaf, gradient, whole in zip(leaves(x, y, options), gradients, wanted, strict=True):
            if leaf.ndim == 0:
                # Each rank has the share of its own rows.
                torch.distributed.all_reduce(gradient)
            else:
                other = any(leaf is t for t in (y, options.get("y_bias")))
                whole = whole[slice(*y_share)] if other else whole[start:stop]
            torch.testing.assert_close(gradient, whole, rtol=1e-6, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")
    # Rows without a gradient, which no rank waits for.
    x = draw(2, 3 + rank, WIDTH).requires_grad_()
    ring_logsumexp(x, draw(3, 2, WIDTH)).sum().backward()
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
@pytest.mark.parametrize("world", [2, 3])
def test_equals_one_process(world, ranks, tmp_path: Path):
    for run in ranks(world, __file__, str(tmp_path)):
        said, _ = run.communicate(timeout=200)
        assert run.returncode == 0, said[-3000:]


def test_one_process_needs_no_ring():
    for name, one, ring, two, options in cases():
        x, y = draw(0, N, WIDTH), draw(1, M, WIDTH) if two else None
        found, expected = ring(x, y, **options), one(x, y, **options)
        torch.testing.assert_close(tuple(found), tuple(expected), msg=lambda m, n=name: f"{n}: {m}")


def test_functions_of_ones_own_do_not_travel():
    with pytest.raises(ShapeError, match="function must be one of exp"):
        ring_sum(torch.eye(2), function=torch.exp)


if __name__ == "__main__":
    worker(sys.argv[1])
