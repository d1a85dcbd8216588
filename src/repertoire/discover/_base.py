"""What discoverers share: how options are declared, how one is called, what it refuses, how groups are numbered."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from repertoire.docstrings import described, document
from repertoire.errors import ConfigError, ShapeError
from repertoire.ranges import AtLeast, checked_with

__all__ = ["Classes", "Discoverer", "Found", "reduced", "rows_and_labels"]

Classes = int | Literal["auto"]
"""A number of classes, known and new together, or "auto" where it is to be estimated."""


class Found(NamedTuple):
    """What a discoverer found.

    Attributes:
        groups: int64 `[N]`; 0 to C - 1 are the known classes, anything from C on is a new group.
        outlier_scores: float `[N]`, larger for rows that fit no group.
        classes: the number of classes.
        interval: the least and the largest number that was estimated; None where the number was given.
        probabilities: float `[N, K]`, of the known classes and then of the new groups by their number; None where there
            are none.
    """

    groups: Tensor
    outlier_scores: Tensor
    classes: int
    interval: tuple[int, int] | None = None
    probabilities: Tensor | None = None


@typing.dataclass_transform(kw_only_default=True)
class Options(BaseEstimator):
    """An estimator whose options are the attributes that stand in the heads of its classes, with type and default.

    `__init__`, which scikit-learn and the registry read, is made of them: `classes` and `by` come first, then what is a
    class's own, then what it has from the classes above it. What `_arguments` of any of them say of an option, and the
    sections of `_docstring`, complete the docstring. A class that writes `__init__` keeps it.
    """

    _arguments: ClassVar[Mapping[str, str]] = {}
    _docstring: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "__init__" not in vars(cls):
            cls.__init__ = _constructor(cls)  # type: ignore[method-assign]
        lineage = cls.__mro__[::-1]
        arguments = {name: text for one in lineage for name, text in vars(one).get("_arguments", {}).items()}
        sections = {name: text for one in lineage for name, text in vars(one).get("_docstring", {}).items()}
        document(cls, arguments, sections)


def _constructor(cls: type) -> Any:
    """`__init__` that keeps the options of a class, checked."""
    found: dict[str, inspect.Parameter] = {}
    for one in cls.__mro__:
        if not issubclass(one, Options):
            continue
        # Only of such classes: what the others annotate may not be there to be evaluated.
        names = vars(inspect.getmodule(one))
        for name, text in vars(one).get("__annotations__", {}).items():
            hint = eval(text, names) if isinstance(text, str) else text
            if name in vars(one) and typing.get_origin(hint) is not ClassVar and name not in found:
                kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
                found[name] = inspect.Parameter(name, kind, default=vars(one)[name], annotation=hint)
    options = sorted(found.values(), key=lambda option: ["classes", "by", option.name].index(option.name))
    myself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    whole = inspect.Signature([myself, *options], return_annotation=None)

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = whole.bind(self, *args, **kwargs)
        bound.apply_defaults()
        for option in options:
            setattr(self, option.name, bound.arguments[option.name])

    __init__.__dict__["__signature__"] = whole
    __init__.__annotations__ = {option.name: option.annotation for option in options} | {"return": None}
    __init__.__qualname__, __init__.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    return checked_with(__init__, None)


class Discoverer(Options):
    """Groups rows without a label: into the known classes, and into new ones.

    A subclass has `_discover`, and options: attributes with a type and a default in its head, of which its docstring
    explains those that this one does not. What it draws comes from the generator that it is given, and nothing else may
    decide what it finds.

    Attributes:
        labels_: int64 `[N]`, the group of each row. A known class keeps its number, and a row with a label its label;
            new groups are numbered from C on, the largest first.
        n_classes_: the number of classes, known and new, that was given or estimated. Where nothing fell into a group,
            `labels_` has fewer.
        n_classes_interval_: the least and the largest estimate, over the parts of the rows or the starts that it was
            made from, or None where the number was given. It says how far estimates scatter, and promises no coverage.
        outlier_scores_: float64 `[N]`, larger for rows that fit no group well, in units of the discoverer's own.
        probabilities_: float32 `[N, K]` of each group, columns as `labels_` numbers them; None where the discoverer has
            none.
        n_features_in_: d.
    """

    patches: ClassVar[bool] = False
    """Whether rows may also be patches `[N, P, d]`."""

    classes: Classes = "auto"
    random_state: Annotated[int, AtLeast(0)] = 0

    _arguments: ClassVar[Mapping[str, str]] = described(
        """
        classes: the number of classes, known and new, or "auto" (default) to estimate it.
        by: what says how many there are where that is estimated; see :func:`repertoire.discover.class_number`.
        components: principal components of the features, at most; 128 by default.
        starts: draws of the first centres, of which the best is kept; 1 or more.
        random_state: seed of whatever is drawn.
        """
    )
    _docstring: ClassVar[Mapping[str, str]] = {
        "Raises": "ConfigError: an option out of range. When fitted, see :meth:`repertoire.discover.Discoverer.fit`."
    }

    def fit(self, X: Any, y: Any) -> Self:
        """Groups the rows of X.

        Args:
            X: float `[N, d]`, finite; NumPy or torch, in any precision.
            y: whole numbers `[N]`: the known class of a row, 0 to C - 1 with each of them there, or -1.

        Raises:
            ShapeError: shapes or dtypes that do not fit, or values that are not finite.
            ConfigError: fewer than two known classes, no row without a label, or more or fewer classes than there can
                be.
        """
        x, labels = rows_and_labels(X, y, self.classes, patches=self.patches)
        known = int(labels.max()) + 1
        generator = torch.Generator().manual_seed(self.random_state)
        found = self._discover(x, labels, known, generator)
        groups = torch.where(labels >= 0, labels, found.groups)
        numbers = _numbers(groups, known)
        self.labels_: np.ndarray = numbers[groups].numpy()
        self.n_classes_, self.n_classes_interval_ = found.classes, found.interval
        self.outlier_scores_: np.ndarray = found.outlier_scores.double().numpy()
        self.probabilities_: np.ndarray | None = None
        if found.probabilities is not None:
            width = found.probabilities.shape[1]
            # The columns of groups that nothing fell into come last.
            order = torch.full((width,), -1)
            order[: min(width, len(numbers))] = numbers[:width]
            order[order < 0] = torch.arange(int(order.max()) + 1, width)
            self.probabilities_ = found.probabilities.float()[:, order.argsort()].numpy()
        self.n_features_in_ = x.shape[-1]
        return self

    def fit_predict(self, X: Any, y: Any) -> np.ndarray:
        """The group of each row, int64 `[N]`; see `fit`."""
        return self.fit(X, y).labels_

    def _discover(self, x: Tensor, labels: Tensor, known: int, generator: torch.Generator) -> Found:
        """Finds groups among float32 rows `[N, d]` with labels int64 `[N]`, -1 where there is none."""
        raise NotImplementedError


def rows_and_labels(X: Any, y: Any, classes: Classes = "auto", *, patches: bool = False) -> tuple[Tensor, Tensor]:
    """Float32 rows and int64 labels, -1 for none, of what a discoverer is given; see `Discoverer.fit`."""
    x = torch.as_tensor(X)
    allowed = (2, 3) if patches else (2,)
    if x.ndim not in allowed or not x.is_floating_point():
        shape = "[N, d] or [N, P, d]" if patches else "[N, d]"
        raise ShapeError(f"X must be floating point {shape}, found {x.dtype} {list(x.shape)}")
    x = x.detach().cpu().float()
    if not bool(x.isfinite().all()):
        row = int((~x.isfinite().flatten(1).all(1)).nonzero()[0])
        raise ShapeError(f"X must be finite, and row {row} is not")
    labels = torch.as_tensor(y).detach().cpu()
    if labels.shape != x.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ShapeError(f"y must be whole numbers [{len(x)}], found {labels.dtype} {list(labels.shape)}")
    labels = labels.long()
    if len(labels) and int(labels.min()) < -1:
        raise ConfigError(f"y is a class from 0 on, or -1 for a row without one; found {int(labels.min())}")
    present = labels[labels >= 0].unique()
    if len(present) < 2:
        raise ConfigError(
            f"y must know two classes or more, and knows {len(present)}; to cluster rows without any, use "
            "repertoire.ops.kmeans"
        )
    if len(present) <= int(present[-1]):
        raise ConfigError(
            f"y numbers {len(present)} known classes up to {int(present[-1])}; number them from 0 without a gap"
        )
    free = int((labels < 0).sum())
    if not free:
        raise ConfigError("y has a class for every row, and nothing is left to discover; give -1 where there is none")
    if classes != "auto" and not len(present) <= classes <= len(present) + free:
        raise ConfigError(
            f"classes must lie in {len(present)}..{len(present) + free}, known and new together, or be auto; found "
            f"{classes}"
        )
    return x, labels


def _numbers(groups: Tensor, known: int) -> Tensor:
    """What each group is called: known classes as they are, new ones from there on, the largest first; -1 if empty."""
    sizes = torch.bincount(groups, minlength=known)
    numbers = torch.full((len(sizes),), -1)
    numbers[:known] = torch.arange(known)
    new = sizes[known:]
    order = new.argsort(descending=True, stable=True)
    order = order[new[order] > 0]
    numbers[known + order] = known + torch.arange(len(order))
    return numbers


def reduced(x: Tensor, components: int, *, unit: bool = False) -> Tensor:
    """Rows at their principal components, with a mean variance of 1; the sign of each is made definite.

    Args:
        x: float32 `[N, d]`.
        components: how many at most.
        unit: give rows their length in the end.
    """
    x = x.double()
    centred = x - x.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    count = min(components, x.shape[1], max(1, len(x) - 1))
    values, vectors = values[-count:].flip(0), vectors[:, -count:].flip(1)
    # Eigenvectors have no sign of their own: the largest entry of each is made positive.
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    rows = centred @ (vectors * largest.sign())
    rows = rows / (float(values.clamp_min(0).mean().sqrt()) or 1.0)
    if unit:
        rows = torch.nn.functional.normalize(rows)
    return rows.float()
