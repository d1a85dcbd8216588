"""Weights for a new data set, drawn by a diffusion model that learned from a collection of trained networks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.zoo._know2vec import class_nodes

__all__ = ["WeightGenerator"]


class _Autoencoder(nn.Module):
    """Flattened weights to a Gaussian in a small space, and back."""

    def __init__(self, weights: int, latent: int, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(weights, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.SiLU(), nn.Linear(hidden, weights))

    def encode(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance `[B, latent]`."""
        mean, log_variance = self.encoder(weights).chunk(2, 1)
        return mean, log_variance.clamp(-12, 4)


class _Denoiser(nn.Module):
    """Noisy latents, how noisy they are and a data set to the noise."""

    def __init__(self, latent: int, condition: int, hidden: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(32, hidden), nn.SiLU())
        self.data = nn.Sequential(nn.Linear(condition, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.enter = nn.Linear(latent, hidden)
        self.layers = nn.ModuleList(nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden)) for _ in range(3))
        self.leave = nn.Linear(hidden, latent)

    def forward(self, noisy: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        angles = level[:, None] * 1000 * torch.exp(-math.log(10_000) * torch.arange(16, device=level.device) / 16)
        told = self.time(torch.cat([angles.sin(), angles.cos()], 1).to(noisy)) + self.data(condition)
        x = self.enter(noisy)
        for layer in self.layers:
            x = x + F.silu(layer(x + told))
        return self.leave(x)


class WeightGenerator(nn.Module):
    r"""Draws the weights of a head for a new data set, from what it learned of heads that were trained on others.

    Soro et al., *Diffusion-Based Neural Network Weights Generation* (2024), on weights that are flattened to one vector
    each. A variational autoencoder brings them to a small space. An encoder of data sets is told the mean of each
    class, in the order in which the head scores them, so that the order of the samples changes nothing. A diffusion
    model learns to draw latents for a data set, by the noise that was added to those of the heads trained on it,

    .. math:: \mathbb{E}\,\bigl\lVert \epsilon - \epsilon_\theta(\sqrt{\bar\alpha_t}\,z + \sqrt{1 - \bar\alpha_t}\,
        \epsilon,\ t,\ c) \bigr\rVert^2

    with the cosine schedule of Nichol and Dhariwal, *Improved Denoising Diffusion Probabilistic Models* (2021), and
    draws without noise in between, as in Song et al., *Denoising Diffusion Implicit Models* (2021). Of several draws,
    the one that scores best on validation data is kept (:meth:`best`).

    Hidden units of a network may be exchanged without changing what it computes, so that the weights of one function
    are many vectors: networks with hidden layers have to be aligned with each other first. Heads of one layer need
    not be. The paper encodes the images of each class by a set transformer, which it aligns with the weights by
    contrast beforehand, and cuts large networks into chunks; here a class is its mean in a given embedding.

    Args:
        weights: how many numbers a head has.
        classes: how many classes it tells apart.
        features: width of the embedding that data sets are known by.
        latent: width of the space of the weights.
        hidden: width of the layers.

    Raises:
        ConfigError: a width below 1.

    Example:
        >>> import torch
        >>> from repertoire.zoo import WeightGenerator
        >>> generator = WeightGenerator(weights=6, classes=2, features=3, latent=2, hidden=16)
        >>> data = [(torch.randn(8, 3), torch.arange(8) % 2) for _ in range(4)]
        >>> generator.fit(torch.randn(4, 6), data, steps=2).sample(*data[0], count=5).shape
        torch.Size([5, 6])
    """

    mean: Tensor
    scale: Tensor
    centre: Tensor
    spread: Tensor
    latent_scale: Tensor

    @checked
    def __init__(
        self,
        weights: Annotated[int, AtLeast(1)],
        classes: Annotated[int, AtLeast(1)],
        features: Annotated[int, AtLeast(1)],
        latent: Annotated[int, AtLeast(1)] = 64,
        hidden: Annotated[int, AtLeast(1)] = 256,
    ) -> None:
        super().__init__()
        self.weights, self.classes, self.features, self.latent = weights, classes, features, latent
        self.autoencoder = _Autoencoder(weights, latent, hidden)
        self.denoiser = _Denoiser(latent, classes * features, hidden)
        self.register_buffer("mean", torch.zeros(weights))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("spread", torch.ones(()))
        self.register_buffer("latent_scale", torch.ones(latent))

    def encode_data(self, features: Tensor, labels: Tensor) -> Tensor:
        """A data set as one vector `[classes * features]`: the means of its classes, in their order.

        Raises:
            ShapeError: features of another width, or not a sample of each class.
        """
        if features.ndim != 2 or features.shape[1] != self.features:
            raise ShapeError(f"features must be [N, {self.features}], found {list(features.shape)}")
        nodes = class_nodes(features.to(self.mean), labels.to(self.mean.device))
        if len(nodes) != self.classes:
            raise ShapeError(f"a data set needs samples of {self.classes} classes, found {len(nodes)}")
        return ((nodes - self.centre) / self.spread).flatten()

    @checked
    def fit(
        self,
        heads: Tensor,
        data: Sequence[tuple[Tensor, Tensor]],
        *,
        steps: Annotated[int, AtLeast(1)] = 2000,
        rate: Annotated[float, Positive] = 1e-3,
        batch: Annotated[int, AtLeast(1)] = 128,
        divergence: Annotated[float, AtLeast(0)] = 1e-4,
        seed: int = 0,
    ) -> WeightGenerator:
        """Learns from trained heads and the data of each: the autoencoder, and then the diffusion.

        Args:
            heads: float `[M, weights]`.
            data: the features `[N, d]` and labels `[N]` that each was trained on, in the order of the heads.
            steps: of either, with Adam.
            rate: learning rate, which falls to zero along a cosine.
            batch: heads at a time.
            divergence: weight of the divergence of the latents from a standard normal.
            seed: of weights, batches and noise.

        Returns:
            Itself, in evaluation mode.

        Raises:
            ConfigError: an option out of range. ShapeError: heads or data of another shape.
        """
        if heads.ndim != 2 or heads.shape[1] != self.weights or len(heads) != len(data) or len(heads) < 2:
            raise ShapeError(
                f"heads must be [M, {self.weights}] with a data set each, two or more, found {list(heads.shape)} and "
                f"{len(data)} data sets"
            )
        heads = heads.detach().to(self.mean)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.LayerNorm):
                    module.reset_parameters()
            nodes = torch.stack([class_nodes(x.to(self.mean), y.to(self.mean.device)) for x, y in data])
            self.centre.copy_(nodes.mean((0, 1)))
            self.spread.copy_((nodes - self.centre).square().mean().sqrt().clamp_min(1e-12))
            self.mean.copy_(heads.mean(0))
            self.scale.copy_((heads - self.mean).square().mean().sqrt().clamp_min(1e-12))
            known = torch.stack([self.encode_data(x, y) for x, y in data])
            whitened = (heads - self.mean) / self.scale
            self.train()

            def reconstruction(index: Tensor) -> Tensor:
                mean, log_variance = self.autoencoder.encode(whitened[index])
                drawn = mean + (log_variance / 2).exp() * torch.randn_like(mean)
                apart = (self.autoencoder.decoder(drawn) - whitened[index]).square().mean()
                divergence_ = (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2
                return apart + divergence * divergence_

            self._descend(self.autoencoder, reconstruction, len(heads), steps, rate, batch)
            with torch.no_grad():
                mean, _ = self.autoencoder.encode(whitened)
                self.latent_scale.copy_(mean.std(0, correction=0).clamp_min(1e-6))
                latents = mean / self.latent_scale

            def noise(index: Tensor) -> Tensor:
                level = torch.rand(len(index)).to(latents)
                kept = _kept(level)[:, None]
                added = torch.randn_like(latents[index])
                noisy = kept.sqrt() * latents[index] + (1 - kept).sqrt() * added
                return (self.denoiser(noisy, level, known[index]) - added).square().mean()

            self._descend(self.denoiser, noise, len(heads), steps, rate, batch)
        return self.eval()

    @staticmethod
    def _descend(
        module: nn.Module, loss: Callable[[Tensor], Tensor], count: int, steps: int, rate: float, batch: int
    ) -> None:
        optimizer = torch.optim.Adam(module.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            loss(torch.randint(count, (min(batch, count),))).backward()
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def reconstruct(self, heads: Tensor) -> Tensor:
        """Heads `[M, weights]` through the autoencoder and back: the best that any draw can be."""
        mean, _ = self.autoencoder.encode((heads.to(self.mean) - self.mean) / self.scale)
        decoded: Tensor = self.autoencoder.decoder(mean)
        return decoded * self.scale + self.mean

    @torch.no_grad()
    @checked
    def sample(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        count: Annotated[int, AtLeast(1)] = 8,
        steps: Annotated[int, AtLeast(1)] = 50,
        seed: int = 0,
    ) -> Tensor:
        """Draws heads `[count, weights]` for a data set; the same for the same seed.

        Args:
            features: float `[N, d]`.
            labels: int `[N]`; the order of the samples changes nothing but what rounding does.
            count: how many heads.
            steps: from noise to latents.
            seed: of the noise.

        Raises:
            ConfigError: an option out of range. ShapeError: as `encode_data`.
        """
        condition = self.encode_data(features, labels).expand(count, -1)
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, self.latent, generator=generator).to(self.mean)
        # Not from the very end, where nothing of the latent is left and to divide by it would only enlarge an error.
        levels = torch.linspace(0.98, 0, steps + 1).to(self.mean)
        for now, after in itertools.pairwise(levels):
            kept, then = _kept(now), _kept(after)
            noise = self.denoiser(x, now.expand(count), condition)
            clean = ((x - (1 - kept).sqrt() * noise) / kept.sqrt()).clamp(-4, 4)
            x = then.sqrt() * clean + (1 - then).sqrt() * noise
        decoded: Tensor = self.autoencoder.decoder(x * self.latent_scale)
        return decoded * self.scale + self.mean

    def best(
        self, features: Tensor, labels: Tensor, score: Callable[[Tensor], float], *, count: int = 8, seed: int = 0
    ) -> Tensor:
        """Of several heads that are drawn for a data set, the one `[weights]` that scores highest.

        Args:
            features, labels, count, seed: as in `sample`.
            score: of a head `[weights]`, on validation data.

        Raises:
            ConfigError: `count` below 1. ShapeError: as `encode_data`.
        """
        if count < 1:
            raise ConfigError(f"count must be 1 or more, found {count}")
        return max(self.sample(features, labels, count=count, seed=seed), key=score)


def _kept(level: Tensor) -> Tensor:
    """How much of the signal's variance is left at a level of noise from 0 to 1: the cosine schedule."""
    angle = (level + 0.008) / 1.008 * math.pi / 2
    return (angle.cos() / math.cos(0.008 / 1.008 * math.pi / 2)).square().clamp(1e-5, 1)
