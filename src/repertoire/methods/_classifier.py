"""The network that a run leaves behind: images in, class scores out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from repertoire.backbones import Backbone
from repertoire.errors import ConfigError
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
            raise ConfigError(f"mean has {len(mean)} channels and std {len(std)}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).clamp_min(1e-3).view(1, -1, 1, 1))

    @torch.no_grad()
    def set(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Takes other constants, for as many channels."""
        fresh = Normalize(mean, std)
        self.mean.copy_(fresh.mean)
        self.std.copy_(fresh.std)

    def forward(self, images: Tensor) -> Tensor:
        """The same for vectors of features `[N, d]`, each feature being a channel."""
        if images.ndim == 2:
            return (images - self.mean.flatten()) / self.std.flatten()
        return (images - self.mean) / self.std


class Classifier(nn.Module):
    """`model(images) -> logits`: normalisation, backbone, head. What is exported, explained and merged.

    Args:
        normalize: applied to images float `[N, C, H, W]` in [0, 1].
        backbone: normalised images to features `[N, d]`.
        head: features to logits `[N, K]`; one that says so (`Head.takes_maps`) gets the maps before pooling.

    Attributes:
        enters: None, or the number of the block at which inputs enter: those before it are frozen, and what they gave
            was computed once and is what the classifier is trained on. The number of blocks itself stands for pooled
            features.
        keeps_statistics: whether batch normalisation in the backbone keeps its running statistics in training.
    """

    enters: int | None = None
    keeps_statistics: bool = False

    def __init__(self, normalize: Normalize, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.head = head

    def enter_at(self, block: int | None) -> None:
        """Freezes the blocks before this one and has inputs enter there; None for images and nothing frozen."""
        self.requires_grad_(True)
        self.enters = block
        if block is not None:
            whole = block == len(self.backbone.blocks)
            for module in (self.backbone,) if whole else self.backbone.blocks[:block]:
                module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        if self.enters == len(self.backbone.blocks) and not self.backbone.training:
            # Nothing of the backbone runs: to walk through it would take longer than a step of the head.
            self.training = mode
            self.normalize.train(mode)
            self.head.train(mode)
            return self
        super().train(mode)
        frozen: list[nn.Module] = []
        if self.enters is not None:
            whole = self.enters == len(self.backbone.blocks)
            frozen += [self.backbone] if whole else list(self.backbone.blocks[: self.enters])
        if self.keeps_statistics:
            frozen += [
                module for module in self.backbone.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
            ]
        for module in frozen:
            module.eval()
        return self

    def _last(self, inputs: Tensor) -> Tensor:
        """The last block's output."""
        if self.enters is None:
            return self.backbone.forward_map(self.normalize(inputs))
        for block in self.backbone.blocks[self.enters :]:
            inputs = block(inputs)
        return inputs

    def activations(self, images: Tensor, block: int) -> Tensor:
        """The input of a block for images; pooled features where the number is that of the blocks."""
        x = self.normalize(images)
        for module in self.backbone.blocks[:block]:
            x = module(x)
        return self.backbone.pool(x) if block == len(self.backbone.blocks) else x

    def embed(self, images: Tensor) -> Tensor:
        """Features `[N, d]`."""
        if self.enters is not None and self.enters == len(self.backbone.blocks):
            return images
        return (
            self.backbone.pool(self._last(images)) if self.enters is not None else self.backbone(self.normalize(images))
        )

    def maps(self, images: Tensor) -> Tensor:
        """The backbone's last maps `[N, d, h, w]`, before pooling."""
        return self.backbone.grid(self._last(images))

    def features(self, images: Tensor) -> Tensor:
        """Input of the head: maps `[N, d, h, w]` where it says so, and features `[N, d]` otherwise."""
        return self.maps(images) if self.head.takes_maps else self.embed(images)

    def embed_and_score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[N, d]` and logits `[N, K]`, in one pass."""
        if not self.head.takes_maps:
            features = self.embed(images)
            return features, self.head(features)
        last = self._last(images)
        return self.backbone.pool(last), self.head(self.backbone.grid(last))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))
