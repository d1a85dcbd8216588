"""What all explainers share: arguments are looked at first, and the model is left as it was."""

from __future__ import annotations

import abc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import evaluating

__all__ = [
    "Explainer",
    "classes",
    "find_scores",
    "kind",
    "moved",
    "to_unit_range",
    "undisturbed",
]


class Explainer(abc.ABC):
    """Base of explainers: `explainer(model, inputs, targets=None)` gives `[N, H, W]`.

    A subclass says in `_explain` how maps are made. It is called in evaluation mode and without a graph, and whatever
    hooks it sets it removes, also when the model raises.

    Args:
        normalize: divide each map by its largest value, so that maps lie in [0, 1]; zero stays zero.
        output: what to take as the scores `[N, C]` of what the model returns; see :meth:`scores`.
    """

    #: Whether maps depend on the class; of those that do not (Eigen-CAM), `targets` are checked and otherwise unused.
    class_dependent: bool = True
    #: The networks that it can explain, by what their layers give: feature maps, or tokens that attend to each other.
    kinds: tuple[str, ...] = ("maps", "tokens")
    #: Whether feature vectors `[N, D]` are taken too, for an attribution `[N, D]`.
    takes_features: bool = False

    def __init__(self, normalize: bool = True, output: Callable[[Any], Tensor] | None = None) -> None:
        self.normalize = normalize
        self.output = output

    def __call__(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None = None) -> Tensor:
        """Heat maps, one for each image and target.

        Args:
            model: images to scores `[N, C]`. Frozen weights are no hindrance, nor is `torch.compile`.
            inputs: float `[N, C, H, W]`; moved to the model's device if they are elsewhere, and cast where the weights
                are of half precision.
            targets: the classes to explain, int64 `[N]`, or one for all, or several for each image, int64 `[N, K]`; by
                default each image's predicted class.

        Returns:
            `[N, H, W]` on the model's device, `[N, K, H, W]` for several targets; none of it negative, unless the
            explainer says that it has a sign without `normalize`; float32, or float64 if the model's are.

        Raises:
            ConfigError: see above.
            ShapeError: inputs, scores or targets that do not fit.
        """
        self._check_inputs(inputs)
        model = getattr(model, "_orig_mod", model)  # of torch.compile: hooks are set on the network itself
        with undisturbed(model):
            inputs = moved(model, inputs)
            if len(inputs) == 0:
                return _empty(inputs, targets, features=inputs.ndim == 2)
            heat = self._explain(model, inputs, targets)
            several = isinstance(targets, Tensor) and targets.ndim == 2
            heat = heat.transpose(0, 1) if several else heat[0]
            return self._scaled(heat, features=inputs.ndim == 2) if self.normalize else heat

    def _scaled(self, heat: Tensor, features: bool) -> Tensor:
        """What `normalize` makes of maps `[..., H, W]`, or of the attributions of features, `[..., D]`."""
        return to_unit_range(heat, 1 if features else 2)

    @abc.abstractmethod
    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        """Maps of checked inputs on the model's device, `[K, N, H, W]`, K the targets of an image (1 if not said).

        Scores come from `scores`, and their columns from `classes`."""

    def scores(self, model: nn.Module, result: Any, count: int) -> Tensor:
        """The scores `[N, C]` in what a model returned: what `output` says, or by default the tensor itself, the value
        under "logits" of a mapping, or the first tensor of a tuple or list."""
        return find_scores(model, result, count, self.output)

    def _check_inputs(self, inputs: Tensor) -> None:
        if not isinstance(inputs, Tensor):
            raise ShapeError(
                f"inputs must be one tensor [N, C, H, W], found a {type(inputs).__name__}; images of mixed sizes are "
                "explained one by one, or brought to one size first"
            )
        if not inputs.is_floating_point() or inputs.ndim not in ((2, 4) if self.takes_features else (4,)):
            or_features = " or features [N, D]" if self.takes_features else ""
            raise ShapeError(
                f"inputs must be floating point images [N, C, H, W]{or_features}, found {inputs.dtype} "
                f"{list(inputs.shape)}"
            )


def find_scores(model: nn.Module, result: Any, count: int, output: Callable[[Any], Tensor] | None = None) -> Tensor:
    """The scores `[N, C]` in what a model returned; see :meth:`Explainer.scores`.

    Raises:
        ConfigError: there is no tensor where scores are looked for.
        ShapeError: it is not floating point `[count, C]`.
    """
    if output is not None:
        result = output(result)
    elif isinstance(result, Mapping):
        result = result.get("logits", result)
    elif isinstance(result, tuple | list):
        result = next((item for item in result if isinstance(item, Tensor)), result)
    if not isinstance(result, Tensor):
        raise ConfigError(
            f"the {type(model).__name__} returns a {kind(result)}; say where the scores are with output=, "
            "a function from what it returns to a tensor [N, C]"
        )
    if result.ndim != 2 or len(result) != count or not result.is_floating_point():
        raise ShapeError(
            f"the scores of the {type(model).__name__} must be floating point [{count}, C], found {result.dtype} "
            f"{list(result.shape)}; output= may turn them into that"
        )
    return result


def classes(targets: Tensor | int | None, scores: Tensor) -> Tensor:
    """The classes to explain, int64 `[K, N]`.

    Raises:
        ShapeError: targets of another shape or dtype, or outside the classes.
    """
    count, ways = scores.shape
    if targets is None:
        return scores.argmax(1)[None]
    if isinstance(targets, int) and not isinstance(targets, bool):
        targets = torch.full((count,), targets)
    if not isinstance(targets, Tensor):
        raise ShapeError(f"targets must be int64 [{count}], [{count}, K] or one class, found a {kind(targets)}")
    whole = not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)
    if targets.ndim not in (1, 2) or len(targets) != count or not whole or not targets.numel():
        raise ShapeError(
            f"targets must be int64 [{count}], or [{count}, K] for several classes of each, found {targets.dtype} "
            f"{list(targets.shape)}"
        )
    least, most = (int(bound) for bound in targets.aminmax())
    if least < 0 or most >= ways:
        raise ShapeError(f"targets must be classes from 0 to {ways - 1}, found {least if least < 0 else most}")
    targets = targets.to(scores.device, torch.int64)
    return targets[None] if targets.ndim == 1 else targets.T


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """No graph, evaluation mode, no compiled code: and afterwards everything as it was.

    Tensors made under inference mode cannot enter a graph, so it is left for the while. Compiled code does not see
    hooks that are set after it was compiled, so it is not run (asked only where there can be any: the import is slow).
    """
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else _nothing()
    with torch.inference_mode(False), torch.no_grad(), evaluating(model), eager:
        yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def kind(value: Any) -> str:
    """What a value is, for a message."""
    return f"tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def to_unit_range(heat: Tensor, dims: int = 2) -> Tensor:
    """Each map, which is its last `dims` dimensions, divided by its largest value; a map of zeros stays one."""
    largest = heat.amax(tuple(range(-dims, 0)), keepdim=True)
    return heat / largest.masked_fill(largest == 0, 1.0)


def moved(model: nn.Module, inputs: Tensor) -> Tensor:
    """Inputs where the model's weights are, in half precision if those are; to be called under `undisturbed`."""
    first = next((t for tensors in (model.parameters(), model.buffers()) for t in tensors), inputs)
    weights = next((p.dtype for p in model.parameters() if p.is_floating_point()), inputs.dtype)
    half = weights in (torch.float16, torch.bfloat16) and inputs.dtype == torch.float32
    moved = inputs.detach().to(first.device, weights if half else None)
    return moved.clone() if moved.is_inference() else moved


def _empty(inputs: Tensor, targets: Any, features: bool) -> Tensor:
    shape = inputs.shape[1:] if features else inputs.shape[2:]
    several = targets.shape[1:] if isinstance(targets, Tensor) and targets.ndim == 2 else ()
    return inputs.new_zeros((0, *several, *shape), dtype=torch.promote_types(inputs.dtype, torch.float32))
