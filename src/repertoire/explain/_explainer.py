"""Base of all explainers: arguments are checked first, and the model is left as it was."""

from __future__ import annotations

import abc
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from repertoire.docstrings import described, document
from repertoire.errors import ConfigError, DataError, ShapeError
from repertoire.ops import evaluating, handing_copies

__all__ = [
    "Explainer",
    "check_finite",
    "classes",
    "every_row",
    "find_scores",
    "kind",
    "moved",
    "takes_rows",
    "to_unit_range",
    "undisturbed",
]


class Explainer(abc.ABC):
    """Base of explainers: `explainer(model, inputs, targets=None)` gives `[N, H, W]`.

    A subclass says in `_explain` how maps are made. It is called in evaluation mode and without a graph, and whatever
    hooks it sets it removes, also when the model raises.

    What is said of an option in `_arguments`, of this class or of one above it, need not be said again: the docstring
    of a subclass is completed with it.
    """

    #: Options that subclasses share, and sections of docstrings.
    _arguments: ClassVar[Mapping[str, str]] = described(
        """
        normalize: divide each map by its largest value, so that maps lie in [0, 1]; zero stays zero, which means no
            evidence. Without it, maps are in units of the score.
        output: what to take as the scores `[N, C]` of what the model returns: a function of it; or of it and the
            positions int64 `[n]` of its n rows in the batch, where each image has a score of its own kind (such as
            that of a region). By default the tensor itself, the value under "logits" of a mapping, or the first
            tensor of a tuple or list.
        """
    )
    _docstring: ClassVar[Mapping[str, str]] = {}

    #: Whether maps depend on the class; of those that do not (Eigen-CAM), `targets` are checked and otherwise unused.
    class_dependent: bool = True
    #: The networks that it can explain, by what their layers give: feature maps, or tokens that attend to each other.
    kinds: tuple[str, ...] = ("maps", "tokens")
    #: Whether feature vectors `[N, D]` are taken too, for an attribution `[N, D]`.
    takes_features: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        lineage = cls.__mro__[::-1]
        arguments = {name: text for one in lineage for name, text in vars(one).get("_arguments", {}).items()}
        sections = {name: text for one in lineage for name, text in vars(one).get("_docstring", {}).items()}
        document(cls, arguments, sections)

    def __init__(self, normalize: bool = True, output: Callable[..., Tensor] | None = None) -> None:
        self.normalize = normalize
        self.output = output

    def __call__(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None = None) -> Tensor:
        """Heat maps, one for each image and target.

        Args:
            model: images to scores `[N, C]`. Frozen weights are no hindrance, nor is `torch.compile`.
            inputs: float `[N, C, H, W]`; moved to the model's device and precision if they are of others.
            targets: the classes to explain, int64 `[N]`, or one for all, or several for each image, int64 `[N, K]`; by
                default each image's predicted class.

        Returns:
            `[N, H, W]` on the model's device, `[N, K, H, W]` for several targets; none of it negative, unless the
            explainer says that it has a sign without `normalize`; float32, or float64 if the model's are.

        Raises:
            ConfigError: see above.
            ShapeError: inputs, scores or targets that do not fit.
            DataError: scores, or a map, that are not finite.
        """
        self._check_inputs(inputs)
        model = getattr(model, "_orig_mod", model)  # of torch.compile: hooks are set on the network itself
        with undisturbed(model):
            inputs = moved(model, inputs)
            if len(inputs) == 0:
                return _empty(inputs, targets, features=inputs.ndim == 2)
            heat = self._explain(model, inputs, targets)
            check_finite(heat.flatten(2).isfinite().all(2).all(0), "the map")
            several = isinstance(targets, Tensor) and targets.ndim == 2
            heat = heat.transpose(0, 1) if several else heat[0]
            return self._scaled(heat, features=inputs.ndim == 2) if self.normalize else heat

    def _scaled(self, heat: Tensor, features: bool) -> Tensor:
        """Applies `normalize` to maps `[..., H, W]`, or to attributions `[..., D]` of features, which keep signs."""
        if not features:
            return to_unit_range(heat)
        largest = heat.abs().amax(-1, keepdim=True)
        return heat / largest.masked_fill(largest == 0, 1.0)

    @abc.abstractmethod
    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        """Maps of checked inputs on the model's device, `[K, N, H, W]`, K the targets of an image (1 if not said).

        Scores come from `scores`, and their columns from `classes`."""

    def scores(self, model: nn.Module, result: Any, rows: Tensor) -> Tensor:
        """Finds the scores `[n, C]` in what a model returned for the images at positions `rows` of the batch, `[n]`.

        They are what `output` says, or by default the tensor itself, the value under "logits" of a mapping, or the
        first tensor of a tuple or list.
        """
        return find_scores(model, result, rows, self.output)

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


def find_scores(model: nn.Module, result: Any, rows: Tensor, output: Callable[..., Tensor] | None = None) -> Tensor:
    """Finds the scores `[n, C]` in what a model returned; see :meth:`Explainer.scores`.

    Raises:
        ConfigError: there is no tensor where scores are looked for.
        ShapeError: it is not floating point `[count, C]`.
    """
    count = len(rows)
    if output is not None:
        result = output(result, rows) if takes_rows(output) else output(result)
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
    check_finite(~scores.detach().isnan().any(1), "a score")
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
    found = targets[None] if targets.ndim == 1 else targets.T
    check_finite(scores.detach().T.gather(0, found).isfinite().all(0), "the explained score")
    return found


def check_finite(good: Tensor, what: str, numbers: Tensor | None = None) -> None:
    """Refuses what is not finite for some images.

    Args:
        good: bool `[N]`.
        what: of an image, for the message.
        numbers: the positions of the images in the batch, if they are not all of it.

    Raises:
        DataError: it names the first images.
    """
    if not bool(good.all()):
        bad = (~good).nonzero()[:, 0].tolist() if numbers is None else numbers[~good].tolist()
        shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise DataError(
            f"{what} of {len(bad)} of {len(good)} images (number {shown}) is not finite; look at the weights of the "
            "network, and at these images, for values that are not finite or far too large"
        )


def takes_rows(output: Callable[..., Tensor]) -> bool:
    """Says whether an `output` function asks for the positions of its rows: whether it needs two arguments."""
    try:
        parameters = inspect.signature(output).parameters.values()
    except (TypeError, ValueError):  # built-in functions may have no signature
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters) >= 2


def every_row(inputs: Tensor) -> Tensor:
    """The positions of all images of a batch, int64 `[N]`."""
    return torch.arange(len(inputs), device=inputs.device)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """No graph, evaluation mode, copies of all inputs, no compiled code: and afterwards everything as it was.

    Tensors made under inference mode cannot enter a graph, so it is left for the while. Compiled code does not see
    hooks that are set after it was compiled, so it is not run (asked only where there can be any: the import is slow).
    """
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else _nothing()
    with torch.inference_mode(False), torch.no_grad(), evaluating(model), handing_copies(model), eager:
        yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def kind(value: Any) -> str:
    """Names the type of a value, for a message."""
    return f"tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def to_unit_range(heat: Tensor, dims: int = 2) -> Tensor:
    """Each map, which is its last `dims` dimensions, divided by its largest value; a map of zeros stays one."""
    largest = heat.amax(tuple(range(-dims, 0)), keepdim=True)
    return heat / largest.masked_fill(largest == 0, 1.0)


def moved(model: nn.Module, inputs: Tensor) -> Tensor:
    """Inputs where the model's weights are, and in their precision; to be called under `undisturbed`."""
    first = next((t for tensors in (model.parameters(), model.buffers()) for t in tensors), inputs)
    weights = next((p.dtype for p in model.parameters() if p.is_floating_point()), inputs.dtype)
    moved = inputs.detach().to(first.device, weights)
    return moved.clone() if moved.is_inference() else moved


def _empty(inputs: Tensor, targets: Any, features: bool) -> Tensor:
    shape = inputs.shape[1:] if features else inputs.shape[2:]
    several = targets.shape[1:] if isinstance(targets, Tensor) and targets.ndim == 2 else ()
    return inputs.new_zeros((0, *several, *shape), dtype=torch.promote_types(inputs.dtype, torch.float32))
