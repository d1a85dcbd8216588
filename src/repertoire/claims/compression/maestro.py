"""The claims of *Maestro: Uncovering Low-Rank Structures via Trainable Decomposition* (2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.small_networks import BED, NETWORK, network, raw_floor
from repertoire.compress import FactoredLayer, low_rank, lowrank, sampled_rank

SIDE = 6


@claim(
    "maestro",
    statement=(
        "At a quarter of the weights of its inner layers, a network whose columns learned their order is more "
        "accurate, by half a percentage point, than one cut by singular values that learned for as many passes."
    ),
    metric="test accuracy at a quarter of the inner weights",
    method="ordered by sampling and shrinkage",
    baseline="singular values, the same training",
    bed=BED,
    data=NETWORK,
    threshold=0.005,
    learned=0.0,
    learned_by="best",
    floor=raw_floor,
    guard="class means or neighbours by raw pixels; what a smaller network loses is asked",
    ceiling=1.0,
)
def maestro(budget: Budget, seed: int) -> Measured:
    """Horvath et al., *Maestro: Uncovering Low-Rank Structures via Trainable Decomposition* (2023), section 5. Both
    learn from the answers of the whole network for as many passes over the images, each with the learning rate of 0.001
    and 0.003 that did best on a pilot seed. `extra` has the whole network, singular values without learning, and bytes
    on the disk. On pilot seed 1000 the arms have 0.843 and 0.841, the pixels 0.806 and the whole network 0.870."""
    held = network(budget, seed)
    batches = held.batches(budget.pick(smoke=100, small=2000, full=None))
    epochs = budget.pick(smoke=1, small=3, full=20)
    ours = lowrank(held.model, batches, share=0.25, method="maestro", epochs=epochs, rate=1e-3, seed=seed)
    plain = lowrank(held.model, batches, share=0.25, method="svd", epochs=2 * epochs, rate=3e-3)
    at_once = lowrank(held.model, batches, share=0.25, method="svd", epochs=0)
    extra = {
        "whole network": held.accuracy(held.model),
        "singular values, nothing learned": held.accuracy(at_once.build(held.copy())),
        "bytes": float(ours.bytes),
        "bytes of singular values": float(plain.bytes),
    }
    ordered, cut = (held.accuracy(stored.build(held.copy())) for stored in (ours, plain))
    return Measured(ordered, cut, extra)


@claim(
    "maestro",
    part="svd",
    statement=(
        "Of a linear map whose inputs are alike in all directions, the leading columns that sampling of ranks learns "
        "span the spaces of the leading singular vectors, to 0.05 radians."
    ),
    metric="largest principal angle between spaces of the same rank, in radians",
    method="columns learned by sampling ranks",
    kind="identity",
    data="linear maps of six dimensions with singular values in steps, drawn",
    tier="drawn",
    threshold=0.05,
)
def decomposition(budget: Budget, seed: int) -> Measured:
    """Horvath et al. (2023), theorem 4.1 and section 4: the sum over all ranks has its minimum at the singular value
    decomposition. The columns begin at random, not at that decomposition."""
    torch.manual_seed(seed)
    u, v = (torch.linalg.qr(torch.randn(SIDE, SIDE, dtype=torch.float64)).Q for _ in range(2))
    values = torch.arange(SIDE, 0, -1, dtype=torch.float64) / SIDE
    layer = nn.Linear(SIDE, SIDE, bias=False).double()
    layer.weight.data.copy_(u @ values.diag() @ v.T)
    model = low_rank(layer)
    assert isinstance(model, FactoredLayer)
    for part in model.parameters():
        nn.init.normal_(part, std=0.3)
    steps = budget.pick(smoke=50, small=4000, full=4000)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    inputs = torch.eye(SIDE, dtype=torch.float64)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
        optimizer.zero_grad()
        with sampled_rank(model):
            (model(inputs) - layer(inputs)).square().sum().backward()
        optimizer.step()
    left, right = model.left.detach(), model.right.detach().T
    angles = [angle(found[:, :k], true[:, :k]) for k in range(1, SIDE) for found, true in ((left, u), (right, v))]
    error = float((left @ right.T - layer.weight.detach()).norm() / layer.weight.detach().norm())
    return Measured(max(angles), extra={"relative error of the whole": error})


def angle(found: Tensor, true: Tensor) -> float:
    """The largest principal angle between the spaces of two sets of columns."""
    basis = torch.linalg.qr(found).Q
    # The sine is exact where the angle is small.
    sine = torch.linalg.matrix_norm(true - basis @ (basis.T @ true), 2)
    return float(sine.clamp_max(1).asin())
