"""Maps made from what a layer gives: the base of the class activation family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.docstrings import described
from repertoire.errors import ConfigError
from repertoire.explain._arguments import one_of
from repertoire.explain._explainer import Explainer, classes, every_row, kind, to_unit_range
from repertoire.explain._layers import Activations, Layer, Where, check_where, choose_layers

__all__ = ["ActivationMap", "Combine", "Recorded", "shared_passes"]

Combine = Literal["mean", "product", "max"]
#: Scores `[N, C]` and ones at the K chosen classes `[K, N, C]` to the gradient of what is explained in the scores.
Objective = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Recorded:
    """One forward and backward pass, as seen at some layers.

    Attributes:
        scores: `[N, C]`, detached; None where the pass ended at the last layer because no scores were needed.
        chosen: the explained classes, int64 `[K, N]`; None without scores.
        maps: the output of each layer as maps `[N, k, h, w]`, in single precision at least.
        slopes: the gradient of the K explained scores with respect to each, `[K, N, k, h, w]`; empty if not asked for.
    """

    scores: Tensor | None
    chosen: Tensor | None
    maps: list[Tensor]
    slopes: list[Tensor]


@dataclass
class _Kept:
    """A pass in a block of `shared_passes`, and what it was of."""

    model: nn.Module
    layers: list[nn.Module]
    inputs: Tensor
    targets: Tensor | int | None
    output: Callable[..., Tensor] | None
    recorded: Recorded

    def of(self, other: _Kept) -> bool:
        """Whether a pass of the other kind would record the same."""
        if self.model is not other.model or self.output is not other.output or len(self.layers) != len(other.layers):
            return False
        if any(mine is not theirs for mine, theirs in zip(self.layers, other.layers, strict=True)):
            return False
        return _equal(self.targets, other.targets) and _equal(self.inputs, other.inputs)


_shared: ContextVar[tuple[int, list[_Kept]]] = ContextVar("shared", default=(0, []))
"""How many passes to keep, and those that are kept, the newest first."""


@contextmanager
def shared_passes(most: int = 1) -> Iterator[None]:
    """Lets explainers that look at the same layers of the same images share a pass through the network in this block.

    Grad-CAM and Layer-CAM differ in what they make of a layer and its slopes, not in the pass that gives them. The
    weights must not change in the block.

    Args:
        most: how many passes are kept, of which a new one takes the place of the oldest: ask one explainer after the
            other for a batch, and not for one batch after the other. None is shared with 0.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import GradCAM, LayerCAM, shared_passes
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> with shared_passes():
        ...     maps = [explainer(net, torch.zeros(2, 3, 8, 8), 0) for explainer in (GradCAM("0"), LayerCAM("0"))]
    """
    token = _shared.set((most, []))
    try:
        yield
    finally:
        _shared.reset(token)


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        same = first.shape == second.shape and first.dtype == second.dtype and first.device == second.device
        return same and torch.equal(first, second)
    return not isinstance(first, Tensor) and not isinstance(second, Tensor) and first == second


class ActivationMap(Explainer):
    """Base of explainers that look at the output of one layer, or several.

    A subclass says in `_heat` what becomes of the maps of a layer and of the gradient of the scores there, or in
    `_heats` if that takes further passes through the network. The network runs once and as cheaply as it can: without a
    graph up to the first of the layers, with one from there to the scores, and backward over that part only.
    """

    _arguments: ClassVar[Mapping[str, str]] = described(
        """
        layer: the layer to look at: a module of the model, or its name ("layer4", "backbone.blocks.9"), or "stage2"
            for the end of that stage of a Repertoire backbone; or a list of several. By default the last block of a
            Repertoire backbone (for a class token, which has no gradient on the last map, the block before it), and
            of another network the last map of more than one pixel on which the scores depend: the output of a
            module that runs once, after the activation that follows it, however that is written.
        combine: what becomes of the maps of several layers, each scaled to [0, 1]: their "mean", their geometric
            mean ("product") or their "max". One layer is not scaled by this.
        channels: how many maps of each image to use; all by default.
        rows: at most how many rows to pass through the network at once, 64 by default; bounds the memory.
        """
    )
    _docstring: ClassVar[Mapping[str, str]] = {
        "Raises": """
            ConfigError: an option out of range; or `layer` or `output` is of no use, when it is built or called:
                the layer is not part of the model (:class:`~repertoire.errors.UnknownName` for a name), does not
                run, runs twice, gives no maps, or the scores do not depend on it.
            DataError: the network gives scores that are not numbers.
        """,
    }

    #: Whether slopes are looked at; the choice of a layer depends on it too, since the scores must then depend on it.
    _needs_slopes: bool = True
    #: Whether scores are looked at. Where neither is, and there are no targets to check, the pass ends at the layer.
    _needs_scores: bool = True

    #: Of what else than the score there are to be slopes, see `record`.
    _objective: Objective | None = None

    # `layer` may be a module or a list; Any, because the registry checks options by type and knows no modules.
    def __init__(
        self,
        layer: str | Any = None,
        combine: Combine = "mean",
        normalize: bool = True,
        output: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(normalize, output)
        one_of(combine=(combine, get_args(Combine)))
        self.layer: Where = check_where(layer)
        self.combine = combine

    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        for layers in choose_layers(model, self.layer, inputs, slopes=self._needs_slopes):
            recorded = self._recorded(model, layers, inputs, targets)
            if not recorded.slopes or any(bool(slope.any()) for slope in recorded.slopes):
                break
        heats = self._heats(model, layers, inputs, recorded)
        return self._combined(heats, inputs)

    def _recorded(
        self, model: nn.Module, layers: Sequence[Layer], inputs: Tensor, targets: Tensor | int | None
    ) -> Recorded:
        """A pass through the model; or the one that another explainer has made, in a block of `shared_passes`."""
        slopes, scores = self._needs_slopes, self._needs_scores or targets is not None

        def make() -> Recorded:
            return record(
                self, model, layers, inputs, targets, slopes=slopes, until_scores=scores, objective=self._objective
            )

        most, kept = _shared.get()
        if not most or self._objective is not None or any(layer.activated for layer in layers):
            return make()
        asked = _Kept(
            model, [layer.module for layer in layers], inputs, targets, self.output, Recorded(None, None, [], [])
        )
        for one in kept:
            found = one.recorded
            if one.of(asked) and (found.slopes or not slopes) and (found.scores is not None or not scores):
                return found if slopes else Recorded(found.scores, found.chosen, found.maps, [])
        asked.recorded = make()
        kept.insert(0, asked)
        del kept[most:]
        return asked.recorded

    def _heats(self, model: nn.Module, layers: Sequence[Layer], inputs: Tensor, recorded: Recorded) -> list[Tensor]:
        """A small map `[K, N, h, w]` for each layer. Overridden by what needs more than one pass through the model."""
        with torch.autocast(inputs.device.type, enabled=False):
            return [self._heat(*pair) for pair in zip(recorded.maps, recorded.slopes, strict=True)]

    def _heat(self, maps: Tensor, slopes: Tensor) -> Tensor:
        """The heat `[K, N, h, w]`, none of it negative, of maps `[N, k, h, w]` and slopes `[K, N, k, h, w]`."""
        raise NotImplementedError  # one of the two methods is given by each subclass

    def _combined(self, heats: list[Tensor], inputs: Tensor) -> Tensor:
        """The maps of the layers, enlarged bilinearly to the size of the images, as one."""
        large = [F.interpolate(heat, inputs.shape[2:], mode="bilinear", align_corners=False) for heat in heats]
        if len(large) == 1:
            return large[0]
        stack = torch.stack([to_unit_range(heat) for heat in large])
        if self.combine == "mean":
            return stack.mean(0)
        return stack.amax(0) if self.combine == "max" else stack.log().mean(0).exp()


class _Ended(Exception):
    """The last layer of interest has run; what follows is not needed."""


def record(
    explainer: Explainer,
    model: nn.Module,
    layers: Sequence[Layer],
    inputs: Tensor,
    targets: Tensor | int | None,
    *,
    slopes: bool = True,
    until_scores: bool = True,
    run: Callable[[Tensor], Any] | None = None,
    objective: Objective | None = None,
    rows: Tensor | None = None,
) -> Recorded:
    """One pass through the model, seen at some layers.

    Args:
        explainer: knows where the scores are in what the model returns.
        model, inputs, targets: as explainers take them, under `undisturbed`.
        layers: where to look.
        slopes: differentiate the explained scores with respect to the outputs of the layers.
        until_scores: without slopes, and targets to check, the pass may end at the last layer; then this is False.
        run: runs the model, if not as it is (with other weights).
        objective: what is differentiated, if not the explained scores, by its gradient `[K, N, C]` in the scores.
        rows: positions in the batch of these inputs, if they are not all of it.

    Raises:
        ConfigError: a layer does not run, runs twice or gives no maps; the scores do not depend on any of the layers.
        ShapeError: scores or targets that do not fit.
    """
    outputs: dict[str, Tensor] = {}
    waiting: dict[int, tuple[Layer, Tensor]] = {}  # with the tensor, so that no other gets its number

    def watch(layer: Layer) -> Callable[..., Tensor | None]:
        def hook(module: nn.Module, args: Any, output: Any) -> Tensor | None:
            if layer.name in outputs:
                raise ConfigError(
                    f"layer {layer.name!r} runs more than once in a forward pass; choose one that runs once"
                )
            if not isinstance(output, Tensor) or not output.is_floating_point():
                raise ConfigError(f"layer {layer.name!r} gives a {kind(output)}, not a tensor of feature maps")
            if layer.activated:
                waiting[id(output)] = layer, output
                return None
            return begin(layer, output)

        return hook

    def begin(layer: Layer, output: Tensor) -> Tensor:
        if not output.requires_grad or not slopes:
            # The graph begins here.
            output = output.detach()
            output = (output.clone() if output.is_inference() else output).requires_grad_(slopes)
        outputs[layer.name] = output
        if not slopes and not until_scores and len(outputs) == len(layers):
            raise _Ended
        torch.set_grad_enabled(slopes)
        # What follows gets a copy, which it may overwrite (ReLU in place).
        return output.clone()

    def after(given: Tensor, result: Tensor) -> Tensor:
        layer, _ = waiting.pop(id(given), (None, None))
        return result if layer is None else begin(layer, result)

    handles = [layer.module.register_forward_hook(watch(layer)) for layer in layers]
    result: Any = None
    try:
        with Activations(after) if any(layer.activated for layer in layers) else nullcontext():
            result = (run or model)(inputs)
    except _Ended:
        return Recorded(None, None, [_maps(layer, outputs[layer.name], inputs) for layer in layers], [])
    finally:
        for handle in handles:
            handle.remove()
        torch.set_grad_enabled(False)
    for layer in layers:
        if layer.name not in outputs:
            raise ConfigError(f"layer {layer.name!r} does not run in the forward pass of the {type(model).__name__}")
    with torch.set_grad_enabled(slopes):  # `output` may compute
        scores = explainer.scores(model, result, every_row(inputs) if rows is None else rows)
    chosen = classes(targets, scores)
    maps = [_maps(layer, outputs[layer.name].detach(), inputs) for layer in layers]
    if not slopes:
        return Recorded(scores.detach(), chosen, maps, [])
    points = [outputs[layer.name] for layer in layers]
    gradients = _gradients(scores, points, chosen, objective)
    if all(gradient is None for gradient in gradients):
        names = " and ".join(repr(layer.name) for layer in layers)
        raise ConfigError(
            f"the scores do not depend on layer {names}, or the model computes them without gradients; "
            "choose another layer"
        )
    found = []
    for layer, output, gradient in zip(layers, points, gradients, strict=True):
        if gradient is None:
            gradient = torch.zeros_like(output).expand(len(chosen), *output.shape)
        flat = _maps(layer, gradient.flatten(0, 1), inputs)
        found.append(flat.unflatten(0, (len(chosen), -1)))
    return Recorded(scores.detach(), chosen, maps, found)


def _gradients(
    scores: Tensor, points: list[Tensor], chosen: Tensor, objective: Objective | None
) -> list[Tensor | None]:
    """Gradients of the K chosen scores of each image w.r.t. some tensors: `[K, *point.shape]` each, or None."""
    if not scores.requires_grad:
        return [None] * len(points)
    # Ones and zeros rather than indexing: they need nothing kept of targets made in inference mode.
    ones = torch.zeros_like(scores).expand(len(chosen), -1, -1).scatter(2, chosen[..., None], 1.0)
    if objective is not None:
        ones = objective(scores.detach(), ones)
    if len(chosen) == 1:
        found = torch.autograd.grad(scores, points, ones[0], allow_unused=True)
        return [None if gradient is None else gradient[None] for gradient in found]
    try:
        return list(
            torch.autograd.grad(scores, points, ones, allow_unused=True, is_grads_batched=True, retain_graph=True)
        )
    except RuntimeError:  # functions written by hand may have no rule for a batch of gradients; they go one by one
        each = [torch.autograd.grad(scores, points, one, allow_unused=True, retain_graph=True) for one in ones]
        return [None if parts[0] is None else torch.stack(parts) for parts in zip(*each, strict=True)]


def _maps(layer: Layer, output: Tensor, inputs: Tensor) -> Tensor:
    """A layer's output (or its gradient) as maps `[N, k, h, w]`, in single precision at least."""
    maps = layer.to_maps(output)
    if maps.ndim != 4 or maps.shape[2:].numel() < 2:
        raise ConfigError(
            f"layer {layer.name!r} gives {list(maps.shape)}; maps [N, K, h, w] of more than one pixel are needed"
        )
    return maps.to(torch.promote_types(maps.dtype, torch.float32))
