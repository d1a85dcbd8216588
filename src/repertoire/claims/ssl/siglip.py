"""The claim of *Sigmoid Loss for Language Image Pre-Training* (2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import pixels
from repertoire.claims.beds.towers import new_tower
from repertoire.data import load


def _own_found(queries: Tensor, keys: Tensor) -> float:
    """Share of queries whose own key is the nearest by cosine."""
    found = (F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T).argmax(1)
    return float((found == torch.arange(len(queries))).float().mean())


@claim(
    "siglip",
    statement=(
        "With batches of 16, two towers trained with the sigmoid loss find the right half that belongs to the left "
        "half of a new image more often than two towers trained with the softmax loss of CLIP."
    ),
    metric="share of left halves whose own right half is the nearest of all test images",
    method="sigmoid loss, temperature and bias learned",
    baseline="softmax loss, temperature learned",
    data="halves of digits, with noise: 10 classes, 8 pixels",
    threshold=0.0,
)
def siglip(budget: Budget, seed: int) -> Measured:
    """Zhai et al., *Sigmoid Loss for Language Image Pre-Training* (2023)."""
    splits = load("digits", seed=seed)
    images = pixels(splits.train)[0][: budget.pick(smoke=160, small=2000, full=2000)].view(-1, 8, 8)
    test = torch.cat([pixels(splits.val)[0], pixels(splits.test)[0]]).view(-1, 8, 8)
    scores = []
    for loss in (losses.SigmoidPairwise(), losses.CLIP()):
        torch.manual_seed(seed)
        towers = nn.ModuleList([new_tower(32, 32), new_tower(32, 32)])
        optimizer = torch.optim.Adam([*towers.parameters(), *loss.parameters()], lr=2e-3)
        for _ in range(budget.pick(smoke=1, small=10, full=100)):
            for index in torch.randperm(len(images)).split(16):
                if len(index) < 16:
                    continue
                noisy = images[index] + 0.2 * torch.randn(16, 8, 8)
                left, right = (tower(half.flatten(1)) for tower, half in zip(towers, noisy.split(4, 2), strict=True))
                optimizer.zero_grad()
                loss(left, right).backward()
                optimizer.step()
        towers.eval()
        with torch.no_grad():
            halves = [tower(half.flatten(1)) for tower, half in zip(towers, test.split(4, 2), strict=True)]
        scores.append(_own_found(*halves))
    return Measured(scores[0], scores[1])
