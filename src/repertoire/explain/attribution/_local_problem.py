"""The fit of a local approximation to a batch of inputs, and how far any linear function is from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError
from repertoire.explain._explainer import every_row
from repertoire.explain.attribution._least_squares import fit_through_both_ends, fit_with_constant
from repertoire.explain.attribution._neighbourhoods import coalitions, kernel_weights, masks, one_out, path
from repertoire.explain.attribution._parts import find_parts, stand_in
from repertoire.explain.attribution._perturbed import (
    Added,
    Kept,
    Passes,
    Scaled,
    Surroundings,
    blocks,
    per_part,
    spread,
)
from repertoire.explain.attribution._setting import Setting

__all__ = ["Problem", "solve"]


def solve(
    setting: Setting,
    find: Callable[[nn.Module, Any, Tensor], Tensor],
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor | int | None,
    make: Callable[[Problem], Tensor],
    dim: int = 1,
) -> Tensor:
    """Applies `make` to the problem of a batch; `dim` is that of the images in the result.

    Images with as many components form one problem. What an image gets must not depend on how many the others have.
    """
    alone = setting.patch is None and setting.segments is None and setting.loss == "gradient"
    if alone and setting.neighbourhood in ("gaussian", "path"):
        return make(Problem(setting, find, model, inputs, targets))
    parts = find_parts(inputs, setting.patch, setting.segments)
    counts = parts.flatten(1).amax(1) + 1
    different = counts.unique()
    of_images = isinstance(targets, Tensor) and targets.ndim > 0
    if len(different) == 1 or (of_images and len(targets) != len(inputs)):  # type: ignore[arg-type]
        return make(Problem(setting, find, model, inputs, targets, parts, int(different[-1])))
    made, places = [], []
    for count in different.tolist():
        rows = (counts == count).nonzero()[:, 0]
        some = targets[rows.to(targets.device)] if isinstance(targets, Tensor) and of_images else targets
        made.append(make(Problem(setting, find, model, inputs[rows], some, parts[rows], count, rows)))
        places.append(rows)
    return torch.cat(made, dim).index_select(dim, torch.cat(places).argsort())


class Problem:
    """Inputs `[N, *shape]` with the same number of components, and K targets for each.

    Args:
        setting: neighbourhood and loss.
        find: the scores in what the model returns.
        model: under `undisturbed`.
        inputs, targets: as explainers take them.
        parts: the component of each place, `[N, *]`; None where each value is one.
        count: the number of components.
        rows: which of the batch these inputs are.
    """

    def __init__(
        self,
        setting: Setting,
        find: Callable[[nn.Module, Any, Tensor], Tensor],
        model: nn.Module,
        inputs: Tensor,
        targets: Tensor | int | None,
        parts: Tensor | None = None,
        count: int = 0,
        rows: Tensor | slice = slice(None),
    ) -> None:
        self.setting, self.inputs, self.parts, self.count, self.rows = setting, inputs, parts, count, rows
        self.baseline = stand_in(inputs, setting.baseline)
        self.added = setting.neighbourhood == "gaussian"
        self.dtype = torch.promote_types(inputs.dtype, torch.float32)
        numbers = rows if isinstance(rows, Tensor) else every_row(inputs)[rows]
        self.passes = Passes(model, find, inputs, targets, setting.batch_size, numbers)
        self.sigma = self._sigma()

    def attributions(self) -> Tensor:
        """`[K, N, H, W]` or `[K, N, D]`."""
        found = self._fit()
        if self.parts is not None:
            return spread(found, self.parts).to(self.dtype)
        values = found if self.added else found * self._way()
        if self.inputs.ndim == 2:
            return values
        if self.setting.channels == "sum":
            return values.sum(2)
        return values.gather(2, values.abs().argmax(2, keepdim=True)).squeeze(2)

    def slopes(self) -> Tensor:
        """`[K, N, *shape]`: the gradient of the fitted function in the inputs."""
        found = self._fit()
        if self.parts is None:
            return found
        way = torch.ones_like(self.inputs, dtype=self.dtype) if self.added else self._way()
        length = per_part((way**2).double(), self.parts, self.count)
        each = spread((found / length.masked_fill(length == 0, torch.inf)).to(self.dtype), self.parts)
        return (each[:, :, None] if self.inputs.ndim == 4 else each) * way

    def errors(self, slopes: Tensor) -> Tensor:
        """The mean squared error of linear functions `[K, E, N of the batch, *shape]`: `[K, E, N]`, float64."""
        slopes = slopes[:, :, self.rows].to(self.inputs.device)
        return self._errors_of_values(slopes) if self.setting.loss == "value" else self._errors_of_gradients(slopes)

    def _fit(self) -> Tensor:
        """Components `[K, N, D]`, or slopes `[K, N, *shape]` where each value is a component."""
        around = self._surroundings()
        if self.setting.loss == "value":
            return self._fit_values(around)
        total: Tensor | None = None
        for which, images in blocks(around.samples, len(self.inputs), self.setting.batch_size):
            weights = (around.weights[which] / around.weights.sum()).to(self.inputs.device, self.dtype)
            _, each = self.passes.slopes(around.points(which, images), images)
            for k, slope in enumerate(each):
                if total is None:  # not before the first graph is gone
                    total = self.inputs.new_zeros((len(self.passes.chosen), *self.inputs.shape), dtype=self.dtype)
                total[k, images] += torch.tensordot(weights, slope.to(self.dtype), 1)
        assert total is not None
        if self.parts is None:
            return total
        return per_part(total if self.added else total * self._way(), self.parts, self.count)

    def _fit_values(self, around: Surroundings) -> Tensor:
        self._check_enough(around)
        values = self._values(around)
        kind = self.setting.neighbourhood
        columns = values.transpose(0, 1).flatten(1)  # [S, K N]
        if isinstance(around, Added) and around.noise is not None:
            found = fit_with_constant(around.noise, columns, around.weights * around.samples, self.setting.ridge)
        elif isinstance(around, Kept) and kind == "shapley":
            ends = self._at_baseline().flatten(), self._at_inputs().flatten()
            found = fit_through_both_ends(around.kept.double(), columns, around.weights, *ends)
        elif isinstance(around, Kept) and kind == "masks":
            found = fit_with_constant(around.kept.double(), columns, around.weights, self.setting.ridge)
        else:
            found = (self._at_inputs().flatten() - columns).T  # one equation for each component
        found = found.unflatten(0, values.shape[::2]).to(self.inputs.device)
        if self.added:  # the noise was in units of sigma
            sigma = self.sigma.flatten(1).double()
            found = found / sigma.masked_fill(sigma == 0, torch.inf)
        return found

    def _check_enough(self, around: Surroundings) -> None:
        kind, count = self.setting.neighbourhood, self.count
        if kind == "shapley":
            # A coalition and its complement are one equation.
            short = around.samples < min(2 * (count - 1), 2**count - 2)
        else:
            short = kind != "one-out" and around.samples <= count and not self.setting.ridge
        if short:
            asked = self.setting.samples_of(count)  # coalitions go in pairs: an odd one is left out
            raise ConfigError(
                f"{asked} samples cannot tell {count} components apart; ask for more samples=, or for fewer "
                "components (patch= or segments=)" + ("" if kind == "shapley" else ", or give a ridge=")
            )

    def _values(self, around: Surroundings) -> Tensor:
        """The scores at all points, `[K, S, N]` in double precision on the processor."""
        found: dict[int, list[Tensor]] = {}
        for which, images in blocks(around.samples, len(self.inputs), self.setting.batch_size):
            found.setdefault(which.start, []).append(self.passes.values(around.points(which, images), images))
        targets, count = len(self.passes.chosen), len(self.inputs)
        if not found:  # a single component has no coalitions
            return torch.zeros(targets, 0, count, dtype=torch.float64)
        return torch.cat([torch.cat(images, 2) for images in found.values()], 1).double().cpu()

    def _at_inputs(self) -> Tensor:
        """`[K, N]` in double precision on the processor."""
        return self.passes.at_inputs().double().cpu()

    def _at_baseline(self) -> Tensor:
        """`[K, N]` in double precision on the processor."""
        parts = [
            self.passes.values(self.baseline[images][None].clone(), images)[:, 0]
            for _, images in blocks(1, len(self.inputs), self.setting.batch_size)
        ]
        return torch.cat(parts, 1).double().cpu()

    def _errors_of_values(self, slopes: Tensor) -> Tensor:
        around, flat = self._surroundings(), slopes.flatten(3).double()
        rest: list[Tensor] = []
        for which, images in blocks(around.samples, len(self.inputs), self.setting.batch_size):
            points = around.points(which, images)
            step = (points - self.inputs[images]).flatten(2).double()
            values = self.passes.values(points, images).double()
            rest.append((values[:, None] - torch.einsum("kenf,snf->kesn", flat[:, :, images], step)).cpu())
        left = self._joined(rest, around.samples)  # [K, E, S, N]
        share = around.weights / around.weights.sum()
        if self.setting.neighbourhood in ("gaussian", "masks"):
            left = left - torch.einsum("kesn,s->ken", left, share)[:, :, None]
        else:
            full = self._at_inputs()
            left = left - full[:, None, None]
            if self.setting.neighbourhood == "shapley" and isinstance(around, Kept):
                step = (self.baseline - self.inputs).flatten(1).double()
                fall = torch.einsum("kenf,nf->ken", flat, step).cpu()
                missing = (self._at_baseline() - full)[:, None] - fall
                removed = (~around.kept).double().mean(1)
                left = left - missing[:, :, None] * removed[:, None]
        return torch.einsum("kesn,s->ken", left**2, share)

    def _joined(self, pieces: list[Tensor], samples: int) -> Tensor:
        """Pieces `[K, E, s, n]` in the order of `blocks` as `[K, E, S, N]`."""
        rows = -(-len(self.inputs) // self.setting.batch_size)
        groups = [torch.cat(pieces[i : i + rows], 3) for i in range(0, len(pieces), rows)]
        return torch.cat(groups, 2)

    def _errors_of_gradients(self, slopes: Tensor) -> Tensor:
        around = self._surroundings()
        total = torch.zeros(slopes.shape[:3], dtype=torch.float64)
        way = None if self.added else self._way()
        for which, images in blocks(around.samples, len(self.inputs), self.setting.batch_size):
            weights = around.weights[which] / around.weights.sum()
            _, each = self.passes.slopes(around.points(which, images), images)
            for k, slope in enumerate(each):
                for e in range(slopes.shape[1]):  # one after the other, as each is of the size of the points
                    off = slope.to(self.dtype) - slopes[k, e, images]
                    off = off if way is None else off * way[images]
                    if self.parts is not None:
                        off = per_part(off, self.parts[images], self.count)
                    total[k, e, images] += weights @ (off.double() ** 2).flatten(2).sum(2).cpu()
        return total

    def _surroundings(self) -> Surroundings:
        setting, inputs, parts = self.setting, self.inputs, self.parts
        if setting.neighbourhood == "gaussian":
            samples = 1 if setting.sigma == 0 else setting.samples_of(self.count)
            return Added(inputs, self.sigma, samples, setting.seed, parts, self.count)
        if setting.neighbourhood == "path":
            return Scaled(inputs, self.baseline, *path(setting.start, setting.samples_of(self.count), setting.rule))
        assert parts is not None
        generator = torch.Generator().manual_seed(setting.seed)
        if setting.neighbourhood == "masks":
            kept = masks(self.count, setting.samples_of(self.count), setting.sampling, generator)
            return Kept(inputs, self.baseline, kept, kernel_weights(kept, setting.kernel, setting.width), parts)
        if setting.neighbourhood == "shapley":
            return Kept(
                inputs, self.baseline, *coalitions(self.count, setting.samples_of(self.count), generator), parts
            )
        weights = torch.full((self.count,), 1 / self.count, dtype=torch.float64)
        return Kept(inputs, self.baseline, one_out(self.count), weights, parts)

    def _sigma(self) -> Tensor:
        setting, inputs = self.setting, self.inputs
        shape = (-1, *[1] * (inputs.ndim - 1))
        relative = inputs.ndim == 4 if setting.relative is None else setting.relative
        values = inputs.flatten(1)
        scale = values.amax(1) - values.amin(1) if relative else values.new_ones(len(inputs))
        return (setting.sigma * scale).reshape(shape)

    def _way(self) -> Tensor:
        """From the baseline to the input, in single precision at least."""
        return self.inputs.to(self.dtype) - self.baseline.to(self.dtype)
