"""The claim of *Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut* (2022).

Both rules find the object in the maps of the same network, which was trained with labels: none that was trained without
is at hand. Each rule has what did best for it on 300 pictures of three pilot seeds, of as many choices: six blocks of
the network, those that have a place for every 16 pixels; the mean of a picture's features taken off them or not; and
five values of the rule's own number. There TokenCut came to 0.604 (0.600 to 0.610 from seed to seed) and LOST to 0.488
(0.478 to 0.495); the first principal component of the features, thresholded, to 0.404 at its best. The threshold is the
smallest gain that would be worth another rule; the paper reports five to thirteen points.
"""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from repertoire.backbones import lite0
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.emoji_scenes import SCENES, cells_overlap, centre, emoji_scenes
from repertoire.explain import token_cut

LEARNED = 0.1
"""By how much a rule must beat the best guess without a network: a square in the middle, and either rule on colours."""

CUT_BLOCK, TAU = 6, 0.3
LOST_BLOCK, SHARE = 10, 0.05


def _maps(images: Tensor, pretrained: bool) -> dict[int, Tensor]:
    """What the blocks of the network that are looked at make of images, block by block."""
    net = lite0(pretrained=pretrained).to(images.device).eval()
    # Of random weights none are published, and any scale will do.
    mean, std = (net.preset.mean, net.preset.std) if net.preset else ((0.5,) * 3, (0.25,) * 3)
    scale = [torch.tensor(numbers).to(images)[:, None, None] for numbers in (mean, std)]
    last = max(CUT_BLOCK, LOST_BLOCK)
    found: dict[int, list[Tensor]] = {CUT_BLOCK: [], LOST_BLOCK: []}
    with torch.no_grad():
        for part in images.split(20):
            x = (part - scale[0]) / scale[1]
            for number, block in enumerate(net.blocks[: last + 1]):
                x = block(x)
                if number in found:
                    found[number].append(x)
    return {number: torch.cat(parts) for number, parts in found.items()}


def _centred(maps: Tensor) -> Tensor:
    return maps - maps.mean((2, 3), keepdim=True)


def _lost(maps: Tensor, share: float) -> Tensor:
    """The object by LOST, of features `[N, k, h, w]`: bool `[N, h, w]`.

    Simeoni et al., *Localizing Objects with Self-Supervised Transformers and no Labels* (2021): the seed is the cell
    whose features have a positive product with those of the fewest others. The cells with the fewest, a share of all
    where the paper has the first hundred, that have one with the seed vote: the object is the connected part, with the
    seed, of the cells whose products with the voters add up to no less than zero.
    """
    tokens = maps.flatten(2)
    products = tokens.transpose(1, 2) @ tokens
    friends = (products >= 0).sum(2)
    rows = torch.arange(len(maps), device=maps.device)
    seed = friends.argmin(1)
    few = friends.argsort(dim=1, stable=True)[:, : max(1, round(share * tokens.shape[2]))]
    votes = torch.zeros_like(friends, dtype=torch.bool).scatter(1, few, True) & (products[rows, seed] >= 0)
    votes[rows, seed] = True
    side = (products * votes[:, None]).sum(2) >= 0
    return _part_of(side.view(len(maps), *maps.shape[2:]), seed)


def _part_of(side: Tensor, seed: Tensor) -> Tensor:
    """The connected part of each side `[N, h, w]` that holds the cell of that number, `[N]`."""
    parts = torch.zeros_like(side)
    for part, cells, number in zip(parts, side, seed.tolist(), strict=True):
        labels = torch.from_numpy(ndimage.label(cells.cpu().numpy())[0]).to(side.device)
        label = labels.flatten()[number]
        part |= (labels == label) & (label > 0)
    return parts


@claim(
    "tokencut",
    statement=(
        "A normalised cut of the features of a network's patches overlaps the object's mask better than LOST does "
        "with the same network, by an intersection over union of 0.02."
    ),
    metric="intersection over union with the object's mask",
    method="TokenCut",
    baseline="LOST",
    data=SCENES,
    tier="real, small",
    threshold=0.02,
    learned=LEARNED,
    guard="the best guess without a network: a square in the middle, or either rule on colours",
)
def tokencut(budget: Budget, seed: int) -> Measured:
    """Wang et al., *Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut* (2022)."""
    count = budget.pick(smoke=6, small=150, full=1000)
    images, masks = (part.to(budget.device) for part in emoji_scenes(budget, seed, count))
    maps = _maps(images, pretrained=budget.name != "smoke")
    cells = {
        "TokenCut": token_cut(maps[CUT_BLOCK], tau=TAU).mask,
        "LOST": _lost(_centred(maps[LOST_BLOCK]), SHARE),
    }
    height, width = maps[CUT_BLOCK].shape[2:]
    colours = _centred(F.adaptive_avg_pool2d(images, (height, width)))
    cells |= {"cut of colours": token_cut(colours).mask, "LOST of colours": _lost(colours, SHARE)}
    found = {name: cells_overlap(part, masks).mean().item() for name, part in cells.items()}
    middle = centre(masks)
    found["a square in the middle"] = ((middle & masks).sum((1, 2)) / (middle | masks).sum((1, 2))).mean().item()
    guesses = {name: value for name, value in found.items() if name not in ("TokenCut", "LOST")}
    return Measured(found["TokenCut"], found["LOST"], guesses, trivial=max(guesses.values()))
