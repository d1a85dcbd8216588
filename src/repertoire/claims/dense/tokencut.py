"""The claim of *Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut* (2022)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.backbones import Backbone
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import train
from repertoire.data import ImageSet, load, plain
from repertoire.explain import TokenCut, token_cut
from repertoire.methods import Classifier


def _pieces(images: ImageSet, device: str, size: int = 256) -> list[tuple[Tensor, Tensor, Tensor]]:
    """All images in [0, 1], labels and object masks of a set, piece by piece."""
    found = []
    for start in range(0, len(images), size):
        rows = range(start, min(start + size, len(images)))
        arrays = (images.pixels(rows), images.labels[rows], images.object_masks(rows))
        pixels, labels, masks = (torch.from_numpy(array).to(device) for array in arrays)
        found.append((plain(pixels), labels, masks))
    return found


def _overlap(found: Tensor, masks: Tensor) -> Tensor:
    """Intersection over union of bool `[N, H, W]` with masks of the same size, `[N]`."""
    return (found & masks).sum((1, 2)) / (found | masks).sum((1, 2)).clamp_min(1)


def _keys_and_attention(model: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Of the last attention of a ViT with a class token: keys `[N, k, h, w]`, and what the class token attends to, the
    mean over the heads, `[N, h, w]`."""
    backbone: Backbone = model.backbone
    (attention,) = (m for m in backbone.blocks[-1].modules() if hasattr(m, "qkv"))
    kept: list[Tensor] = []
    handle = attention.qkv.register_forward_hook(lambda module, args, output: kept.append(output))  # type: ignore[union-attr]
    model.embed(images)
    handle.remove()
    query, key, _ = kept[0].chunk(3, -1)
    heads: int = attention.heads  # type: ignore[assignment]
    split = [t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (query, key)]
    weights = (split[0][:, :, :1] @ split[1].transpose(2, 3) * split[0].shape[-1] ** -0.5).softmax(3)
    return backbone.grid(key), backbone.grid(weights.mean(1).transpose(1, 2))[:, 0]


def _component(heat: Tensor, side: Tensor) -> Tensor:
    """Of each side `[N, h, w]`, the connected part with the hottest cell, as TokenCut has it."""
    labels = torch.zeros_like(side)
    rows = torch.arange(len(side), device=side.device)
    hottest = heat.flatten(1).argmax(1)
    labels.flatten(1)[rows, hottest] = True
    labels &= side
    for _ in range(side[0].numel()):
        grown = labels.clone()
        grown[:, 1:] |= labels[:, :-1]
        grown[:, :-1] |= labels[:, 1:]
        grown[:, :, 1:] |= labels[:, :, :-1]
        grown[:, :, :-1] |= labels[:, :, 1:]
        grown &= side
        if torch.equal(grown, labels):
            break
        labels = grown
    return labels


def _first_component(keys: Tensor) -> Tensor:
    """The object by the first principal component of the keys: the side, and the part of it, of the largest value."""
    tokens = keys.flatten(2) - keys.flatten(2).mean(2, keepdim=True)
    _, _, directions = torch.linalg.svd(tokens, full_matrices=False)
    values = directions[:, 0]
    largest = values.gather(1, values.abs().argmax(1, keepdim=True))
    heat = (values * largest.sign()).view(len(keys), *keys.shape[2:])
    return _component(heat, heat > 0)


def _attended(attention: Tensor, mass: float = 0.6) -> Tensor:
    """The object by attention: the cells that hold most of it, as the authors of DINO draw it, and their hottest
    connected part."""
    flat = attention.flatten(1) / attention.flatten(1).sum(1, keepdim=True)
    values, order = flat.sort(1, descending=True)
    kept = (values.cumsum(1) - values) < mass
    side = torch.zeros_like(flat, dtype=torch.bool).scatter(1, order, kept).view_as(attention)
    return _component(attention, side)


@claim(
    "tokencut",
    statement=(
        "The normalised cut of a self-supervised transformer's keys finds the object better than their first principal "
        "component or a threshold on the class token's attention, whichever of the two is better."
    ),
    metric="intersection over union with the object's mask",
    method="TokenCut",
    baseline="first principal component or attention, the better",
    data="shapes: 6 classes, 32 pixels, 64 tokens",
    threshold=0.0,
)
def tokencut(budget: Budget, seed: int) -> Measured:
    """Wang et al., *Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut* (2022).

    The transformer is trained by DINO, as theirs, on far fewer images. All three masks are one connected part. In
    `extra` also the cut of the pixels' colours, for what the training is worth.
    """
    splits = load(f"shapes:count={budget.pick(smoke=300, small=1500, full=50_000)}", size=32, seed=seed)
    method = train(
        splits,
        method="dino:prototypes=256,hidden=128,bottleneck=64",
        backbone=budget.pick(
            smoke="vit:patch=4,dim=24,depth=2,heads=2,pooling=cls",
            small="vit:patch=4,dim=48,depth=3,heads=3,pooling=cls",
            full="vit:patch=4,dim=192,depth=6,heads=3,pooling=cls",
        ),
        optimizer="adamw",
        batch_size=64,
        epochs=budget.pick(smoke=1, small=6, full=100),
        seed=seed,
        device=budget.device,
    )
    model, cut = method.model, TokenCut()
    found: dict[str, list[Tensor]] = {"TokenCut": [], "first principal component": [], "attention": [], "colours": []}
    with torch.no_grad():
        for images, _, masks in _pieces(splits.test, budget.device):
            found["TokenCut"].append(_overlap(cut(model, images) > 0, masks))
            keys, attention = _keys_and_attention(model, images)
            colours = F.adaptive_avg_pool2d(images, (keys.shape[2], keys.shape[3]))
            for name, cells in (
                ("first principal component", _first_component(keys)),
                ("attention", _attended(attention)),
                ("colours", token_cut(colours - colours.mean((2, 3), keepdim=True)).mask),
            ):
                large = F.interpolate(cells[:, None].float(), images.shape[2:])[:, 0] > 0
                found[name].append(_overlap(large, masks))
    means = {name: torch.cat(parts).mean().item() for name, parts in found.items()}
    ours = means.pop("TokenCut")
    return Measured(ours, max(means["first principal component"], means["attention"]), means)
