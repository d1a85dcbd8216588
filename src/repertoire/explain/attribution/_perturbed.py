"""Inputs near an input, and what a model makes of them: bounded batches, no more passes than needed."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from repertoire.errors import ConfigError
from repertoire.explain._explainer import check_finite, classes
from repertoire.explain._frozen import frozen

__all__ = ["Added", "Kept", "Passes", "Scaled", "Surroundings", "blocks", "per_part", "spread"]


def blocks(samples: int, images: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Pairs of a slice of samples and a slice of images, of at most `rows` rows each, samples outermost."""
    several = max(1, rows // max(images, 1))
    for first in range(0, samples, several):
        for image in range(0, images, rows):
            yield slice(first, min(first + several, samples)), slice(image, min(image + rows, images))


def spread(values: Tensor, parts: Tensor) -> Tensor:
    """Spreads values of components over their places: `[..., N, D]` and parts `[N, *]` to `[..., N, *]`."""
    flat = parts.flatten(1).expand(*values.shape[:-1], -1)
    return values.gather(-1, flat).unflatten(-1, parts.shape[1:])


def per_part(values: Tensor, parts: Tensor, count: int) -> Tensor:
    """Sums over places and channels of each component: `[..., N, *shape]` and parts `[N, *]` to `[..., N, count]`."""
    if parts.ndim == 3:
        values = values.sum(-3)
    flat = values.flatten(-(parts.ndim - 1))
    index = parts.flatten(1).expand(*flat.shape)
    return flat.new_zeros(*flat.shape[:-1], count).scatter_add_(-1, index, flat)


class Surroundings(abc.ABC):
    """Points about each input of a batch, drawn once and shared by the inputs.

    Attributes:
        weights: how much each sample counts, float64 `[S]` on the processor.
    """

    weights: Tensor

    @property
    def samples(self) -> int:
        return len(self.weights)

    @abc.abstractmethod
    def points(self, samples: slice, images: slice) -> Tensor:
        """Perturbed inputs `[s, n, *shape]`; asked for in the order of `blocks`."""


class Added(Surroundings):
    """x + sigma * noise, each value with noise of its own, or each component where there are parts.

    Attributes:
        noise: `[S, D]` of standard normal numbers where there are parts, else None.
    """

    def __init__(
        self, inputs: Tensor, sigma: Tensor, samples: int, seed: int, parts: Tensor | None = None, count: int = 0
    ) -> None:
        self.inputs, self.sigma, self.parts = inputs, sigma, parts
        self.weights = torch.full((samples,), 1 / samples, dtype=torch.float64)
        self.noise: Tensor | None = None
        if parts is None:
            self._generator = torch.Generator(inputs.device).manual_seed(seed)
            self._drawn: tuple[slice | None, Tensor] = (None, inputs)
        else:
            generator = torch.Generator().manual_seed(seed)
            self.noise = torch.randn(samples, count, generator=generator, dtype=torch.float64)

    def points(self, samples: slice, images: slice) -> Tensor:
        x, sigma = self.inputs[images], self.sigma[images]
        if self.noise is not None and self.parts is not None:
            noise = self.noise[samples].to(x.device, x.dtype)[:, self.parts[images]]
            noise = noise[:, :, None] if x.ndim == 4 else noise
        else:
            if self._drawn[0] != samples:  # sample by sample, or the noise would depend on the number of images
                shape, kind = x.shape[1:], torch.promote_types(x.dtype, torch.float32)
                drawn = [
                    torch.randn(shape, generator=self._generator, dtype=kind, device=x.device)
                    for _ in range(samples.stop - samples.start)
                ]
                self._drawn = samples, torch.stack(drawn).to(x.dtype)[:, None]
            noise = self._drawn[1]
        return x + sigma * noise


class Kept(Surroundings):
    """x where a component is kept, and the baseline where it is removed.

    Attributes:
        kept: bool `[S, D]` on the processor.
    """

    def __init__(self, inputs: Tensor, baseline: Tensor, kept: Tensor, weights: Tensor, parts: Tensor) -> None:
        self.inputs, self.baseline, self.kept, self.weights, self.parts = inputs, baseline, kept, weights, parts

    def points(self, samples: slice, images: slice) -> Tensor:
        x = self.inputs[images]
        kept = self.kept[samples].to(x.device)[:, self.parts[images]]
        return torch.where(kept[:, :, None] if x.ndim == 4 else kept, x, self.baseline[images])


class Scaled(Surroundings):
    """Points on the straight line from the baseline to x."""

    def __init__(self, inputs: Tensor, baseline: Tensor, shares: Tensor, weights: Tensor) -> None:
        self.inputs, self.baseline, self.shares, self.weights = inputs, baseline, shares, weights

    def points(self, samples: slice, images: slice) -> Tensor:
        x = self.inputs[images]
        share = self.shares[samples].to(x.device, x.dtype).reshape(-1, *[1] * x.ndim)
        return torch.lerp(self.baseline[images], x, share)  # exact at both ends


class Passes:
    """The K explained scores of perturbed inputs, and their gradients in them.

    Args:
        model: under `undisturbed`.
        find: the scores `[n, C]` in what the model returns for the images at some positions of the batch, `[n]`.
        inputs, targets: what is explained.
        rows: at most how many rows pass at once.
        numbers: positions of the inputs in the batch.
    """

    def __init__(
        self,
        model: nn.Module,
        find: Callable[[nn.Module, Any, Tensor], Tensor],
        inputs: Tensor,
        targets: Tensor | int | None,
        rows: int,
        numbers: Tensor,
    ) -> None:
        self.numbers = numbers
        self.model, self.find, self.inputs, self.targets, self.rows = model, find, inputs, targets, rows
        self._chosen: Tensor | None = None
        self._found: Tensor | None = None

    @property
    def chosen(self) -> Tensor:
        """The explained classes, int64 `[K, N]`; known from the first pass on if they were given."""
        if self._chosen is None:
            self.at_inputs()
        assert self._chosen is not None
        return self._chosen

    def at_inputs(self) -> Tensor:
        """The explained scores of the inputs themselves, `[K, N]`; computed once."""
        if self._found is None:
            parts = zip(self.inputs.split(self.rows), self.numbers.split(self.rows), strict=True)
            found = torch.cat([self._scores(part, numbers) for part, numbers in parts])
            if self._chosen is None:
                self._chosen = classes(self.targets, found).clone()
            self._found = found.T.gather(0, self._chosen)
            check_finite(self._found.isfinite().all(0), "a score", self.numbers)
        return self._found

    def values(self, points: Tensor, images: slice) -> Tensor:
        """Explained scores of points `[s, n, *shape]`, `[K, s, n]`."""
        return self._take(self._scores(points.flatten(0, 1), self._rows(points, images)), points, images)

    def slopes(self, points: Tensor, images: slice) -> tuple[Tensor, Iterator[Tensor]]:
        """The same, and for each of the K scores its gradient `[s, n, *shape]`.

        One forward pass, and one backward pass for each of the K; the weights take no part in the gradient.
        """
        if self.targets is None:
            _ = self.chosen  # the predicted class is that of the input, not of the points
        with frozen(self.model), torch.enable_grad():
            x = points.flatten(0, 1).detach().requires_grad_()
            start = get_gradient_edge(x)
            values = self._take(self._scores(x, self._rows(points, images)), points, images)
            totals = values.sum((1, 2)).unbind()  # a row depends on nothing but its own input
        return values.detach(), self._backward(totals, start, points.shape[:2])

    def _backward(self, totals: tuple[Tensor, ...], start: GradientEdge, rows: torch.Size) -> Iterator[Tensor]:
        for k, total in enumerate(totals):
            found = None
            if total.requires_grad:
                (found,) = torch.autograd.grad(total, start, retain_graph=k + 1 < len(totals), allow_unused=True)
            if found is None:
                raise ConfigError(
                    f"the scores of the {type(self.model).__name__} do not depend on its inputs, or are computed "
                    "without gradients; an explainer that only asks for scores (occlusion, lime, kernel-shap) may help"
                )
            yield found.unflatten(0, rows)

    def _rows(self, points: Tensor, images: slice) -> Tensor:
        return self.numbers[images].expand(points.shape[:2]).flatten()

    def _scores(self, inputs: Tensor, rows: Tensor) -> Tensor:
        scores = self.find(self.model, self.model(inputs), rows)
        if self._chosen is None and self.targets is not None:
            # Looked at when the number of classes is known, and not in a pass of its own.
            # Cloned, as targets made in inference mode cannot enter a graph.
            self._chosen = classes(self.targets, torch.zeros_like(scores[:1]).expand(len(self.inputs), -1)).clone()
        return scores

    def _take(self, scores: Tensor, points: Tensor, images: slice) -> Tensor:
        chosen = self.chosen[:, images]
        each = chosen[:, None].expand(-1, points.shape[0], -1).flatten(1)
        found = scores.T.gather(0, each).unflatten(1, points.shape[:2])
        check_finite(found.detach().isfinite().all(0).all(0), "a score near the input", self.numbers[images])
        return found
