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
        head: features to logits `[N, K]`.
    """

    def __init__(self, normalize: Normalize, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.head = head

    def embed(self, images: Tensor) -> Tensor:
        """Features `[N, d]`."""
        return self.backbone(self.normalize(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.embed(images))
