"""The claim of *Sigmoid Loss for Language Image Pre-Training* (2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import registry
from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds.frozen import descend
from repertoire.claims.beds.handwriting import GARMENTS, SIDE, drawn_rows
from repertoire.claims.beds.towers import new_tower
from repertoire.losses import ViewsLoss


def halves(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The left and the right halves of images."""
    left, right = rows.view(-1, SIDE, SIDE).split(SIDE // 2, 2)
    return left.flatten(1), right.flatten(1)


def _own_found(queries: Tensor, keys: Tensor) -> float:
    """Share of queries whose own key is the nearest by cosine."""
    found = (F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T).argmax(1)
    return float((found == torch.arange(len(queries), device=found.device)).float().mean())


@arm
def paired(budget: Budget, seed: int, *, loss: str, rate: float = 2e-3) -> dict[str, float]:
    """Two towers for the halves of garments, trained with batches of 16: the share of left halves of test images whose
    own right half is found (`recall`)."""
    (x, _), (u, _) = drawn_rows(budget, seed, budget.pick(smoke=160, small=3000, full=9000), bed="fashion-mnist")
    criterion: ViewsLoss = registry.build("losses", loss)
    torch.manual_seed(seed)
    towers = nn.ModuleList([new_tower(SIDE * SIDE // 2, 32), new_tower(SIDE * SIDE // 2, 32)]).to(x.device).train()

    def objective(index: Tensor) -> Tensor:
        noisy = x[index] + 0.1 * torch.randn_like(x[index])
        left, right = (tower(half) for tower, half in zip(towers, halves(noisy), strict=True))
        return criterion(left, right)

    descend(
        [*towers.parameters(), *criterion.parameters()],
        objective,
        lambda: [part for part in torch.randperm(len(x)).split(16) if len(part) == 16],
        epochs=budget.pick(smoke=1, small=12, full=100),
        rate=rate,
    )
    towers.eval()
    left, right = halves(u)
    with torch.no_grad():
        return {"recall": _own_found(towers[0](left), towers[1](right))}


def mirrored(budget: Budget, seed: int) -> float:
    """The same share where raw pixels of left halves look for those of right halves that are mirrored."""
    _, (u, _) = drawn_rows(budget, seed, 1, bed="fashion-mnist")
    left, right = halves(u)
    return _own_found(left, right.view(-1, SIDE, SIDE // 2).flip(2).flatten(1))


@claim(
    "siglip",
    statement=(
        "With batches of 16, two towers trained with the sigmoid loss find the right half that belongs to the left "
        "half of a new image more often, by one percentage point, than two towers trained with the softmax loss of "
        "CLIP."
    ),
    metric="share of left halves whose own right half is the nearest of 1,000 test images",
    method="sigmoid loss, temperature and bias learned",
    baseline="softmax loss, temperature learned",
    bed="fashion-mnist",
    data=GARMENTS + ", left and right halves",
    threshold=0.01,
    learned=0.02,
    floor=mirrored,
    guard="what raw pixels find when one half is mirrored, since garments are nearly symmetric",
)
def siglip(budget: Budget, seed: int) -> Measured:
    """Zhai et al., *Sigmoid Loss for Language Image Pre-Training* (2023)."""
    ours, theirs = (paired(budget, seed, loss=loss) for loss in ("sigmoid-pairwise", "clip"))
    return Measured(ours["recall"], theirs["recall"])
