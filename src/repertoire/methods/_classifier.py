"""The network that a run leaves behind: images in, class scores out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from repertoire.backbones import Backbone
from repertoire.heads import Head

__all__ = ["Classifier", "Normalize"]


class Normalize(nn.Module):
    """Subtracts a mean and divides by a standard deviation, channel by channel.

    Part of the network, so that whoever loads or exports it need not know which constants it was trained with.

    Args:
        mean, std: one number a channel, on the scale of images in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"mean has {len(mean)} channels and std {len(std)}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).clamp_min(1e-3).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class Classifier(nn.Module):
    """`model(images) -> logits`: normalisation, backbone, head. What is exported, explained and merged.

    Args:
        normalize: applied to images float `[N, C, H, W]` in [0, 1].
        backbone: normalised images to features `[N, d]`.
        head: features to logits `[N, K]`; one that says so (`Head.takes_maps`) gets the maps before pooling.
    """

    def __init__(self, normalize: Normalize, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.head = head

    def embed(self, images: Tensor) -> Tensor:
        """Features `[N, d]`."""
        return self.backbone(self.normalize(images))

    def maps(self, images: Tensor) -> Tensor:
        """The backbone's last maps `[N, d, h, w]`, before pooling."""
        return self.backbone.grid(self.backbone.forward_map(self.normalize(images)))

    def embed_and_score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[N, d]` and logits `[N, K]`, in one pass."""
        if not self.head.takes_maps:
            features = self.embed(images)
            return features, self.head(features)
        last = self.backbone.forward_map(self.normalize(images))
        return self.backbone.pool(last), self.head(self.backbone.grid(last))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.maps(images) if self.head.takes_maps else self.embed(images))
