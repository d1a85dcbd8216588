"""The contracts of losses on logits, embeddings and views, and the input checks that all of them share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from repertoire.errors import ShapeError
from repertoire.losses.contracts._function import derive
from repertoire.ops import commit_memories
from repertoire.ranges import AtLeast, checked

if TYPE_CHECKING:
    from repertoire.data import Kind

__all__ = [
    "EmbeddingLoss",
    "LogitsLoss",
    "Loss",
    "Reduction",
    "ViewsLoss",
    "check_embeddings",
    "check_index",
    "check_logits",
    "reduce",
]

Reduction = Literal["mean", "sum", "none"]


class Loss(nn.Module):
    """Base of all losses.

    A loss is written as a function, and its module is made from it: `class Focal(LogitsLoss, function=focal_loss)`. The
    options of the module are the keyword-only arguments of the function. A loss with parameters or with state has an
    `__init__` and a `forward` of its own; state that moves with training is a :class:`repertoire.ops.Memory`.

    Attributes:
        contract: how it is called.
        targets: the kinds of targets it can learn from: "classes", "labels" (several a sample), "number", "votes";
            empty for a loss that looks at no targets.
        views: how many augmented views of each sample training gives it.
        wants: what it needs to know of the samples beside what its contract says, and takes by keyword: "index", int64
            `[N]`, the number of each sample in the data set; "transformation", float `[N, p]`, how the last view was
            made from the first.
        augmentation: spec of the augmentation that makes the views it was designed for; empty for that of the method.
        random: whether it draws from torch's random state while training: then a batch is not cut into pieces, each of
            which would draw anew.
        gathers: whether, in several processes, it can be given the samples of all of them (`compare_across_ranks`). Of
            no meaning for a loss on logits, which looks at each sample by itself.
        function: the function that it is the module form of, if any.
        options: the options that are passed on to the function.
    """

    contract: ClassVar[Literal["logits", "embeddings", "views", "predictions"]]
    targets: ClassVar[tuple[Kind, ...]] = ()
    views: int = 1
    wants: tuple[str, ...] = ()
    augmentation: ClassVar[str] = ""
    random: ClassVar[bool] = False
    gathers: ClassVar[bool] = True
    function: ClassVar[Callable[..., Tensor] | None] = None
    options: ClassVar[tuple[str, ...]] = ()
    kept: ClassVar[Mapping[str, Callable[[Any], Tensor | None]]] = {}
    example: ClassVar[str]
    """How a documented example calls it."""

    def __init_subclass__(cls, *, function: Callable[..., Any] | None = None, **more: Any) -> None:
        super().__init_subclass__(**more)
        if function is not None:
            cls.from_function(function)
        elif "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]

    @classmethod
    def from_function(cls, function: Callable[..., Any]) -> None:
        """Makes the class the module form of a function."""
        derive(cls, function)

    @classmethod
    def example_options(cls) -> dict[str, Any]:
        """Options for an example of four classes and six dimensions, where the defaults do not do."""
        return {"counts": [9.0, 6.0, 3.0, 1.0]} if "counts" in cls.kept else {}

    def make(self, values: dict[str, Any]) -> None:
        """Keeps the options, by name, when the loss is built: tensors as buffers, all others as attributes."""
        for name, value in values.items():
            if name in self.kept:
                self.register_buffer(name, self.kept[name](value))
            else:
                setattr(self, name, value)

    def call(self, *inputs: Tensor, **known: Tensor | None) -> Tensor:
        """The function, with the options of this loss."""
        if self.function is None:
            raise NotImplementedError(f"{type(self).__name__} has no function, and no forward of its own")
        return self.function(*inputs, **known, **{name: getattr(self, name) for name in self.options})

    def prepare(self, dimensions: int) -> None:
        """Told by a method, when it is built, how wide its embeddings will be: a loss with state or parameters of that
        width makes them here, so that they are there before optimisers, copies and checkpoints are. Does nothing by
        default.
        """

    def after_update(self) -> None:
        """Called by a method when the weights have changed: memories commit what the loss has seen."""
        commit_memories(self)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        *_, unexpected, errors = args
        if type(self).prepare is not Loss.prepare and any(key.startswith(prefix) for key in unexpected):
            errors.append(
                f"{type(self).__name__} does not know yet how wide its embeddings are: give dimensions, or call "
                "prepare(dimensions), before its state is loaded"
            )

    def extra_repr(self) -> str:
        values = {name: getattr(self, name) for name in self.options}
        return ", ".join(f"{name}={value!r}" for name, value in values.items() if not isinstance(value, Tensor))


class LogitsLoss(Loss):
    """`loss(logits, targets)` with logits float `[N, C]`.

    Targets are int64 `[N]`, or float `[N, C]` where soft targets make sense.

    Args:
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Attributes:
        soft: whether targets may be distributions over the classes, float `[N, C]`.
        linear: whether the loss of a mixture of targets is that mixture of their losses, as of most that are soft.
        bounded: whether a target that is surely wrong costs no more than so much, however high its logit.
    """

    contract = "logits"
    targets: ClassVar[tuple[Kind, ...]] = ("classes",)
    soft: ClassVar[bool] = False
    linear: ClassVar[bool] = True
    bounded: ClassVar[bool] = False
    example = "(torch.zeros(2, 4), torch.tensor([0, 2]))"

    reduction: Reduction

    if TYPE_CHECKING:
        # The options of a class that is made from a function are those of the function.
        def __init__(self, *args: Any, **options: Any) -> None: ...

    else:

        def __init__(self, reduction: Reduction = "mean") -> None:
            super().__init__()
            self.reduction = reduction

    def width(self, outputs: int) -> int:
        """Width of the head for a task with so many outputs: classes, labels, or numbers a sample.

        Raises:
            ConfigError: the loss has no use for so many.
        """
        return outputs

    def predict(self, logits: Tensor) -> Tensor:
        """Reads the targets off the logits: the logits themselves, as scores of the classes or labels; for a loss on
        numbers the numbers, `[N, k]`, in the units of the targets."""
        return logits

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits `[N, C]` against targets."""
        return self.call(logits, targets)


class EmbeddingLoss(Loss):
    """`loss(embeddings, labels, reference=None, reference_labels=None) -> scalar`.

    Embeddings float `[N, d]`, labels int64 `[N]`; a reference set (a memory queue, another rank's batch) float `[M, d]`
    with labels int64 `[M]`. The loss is zero, with a zero gradient, for an anchor without positives.

    `proxied` says that the positives of an anchor are no other rows but a learned vector of its class, for which labels
    must lie in 0..C-1, or below 0 without a class.
    """

    contract = "embeddings"
    targets: ClassVar[tuple[Kind, ...]] = ("classes",)
    proxied: ClassVar[bool] = False
    example = "(torch.randn(4, 6), torch.tensor([0, 0, 1, 1]))"

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        reference: Tensor | None = None,
        reference_labels: Tensor | None = None,
    ) -> Tensor:
        """The loss of embeddings `[N, d]` with labels `[N]`, among themselves or against a reference set."""
        return self.call(embeddings, labels, reference=reference, reference_labels=reference_labels)


class ViewsLoss(Loss):
    """`loss(*views) -> scalar`: each view float `[N, d]`, and row i of each view is the same sample."""

    contract = "views"
    views = 2
    example = "(torch.randn(4, 6), torch.randn(4, 6))"

    @classmethod
    def from_function(cls, function: Callable[..., Any]) -> None:
        views = inspect.Parameter(
            "views",
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=cls.views,
            annotation=Annotated[int, AtLeast(2)],
        )
        derive(cls, function, after=[views], texts={"views": "augmented views of each sample in training, 2 or more."})

    def forward(self, *views: Tensor, **known: Tensor | None) -> Tensor:
        """The loss of two or more views `[N, d]`; `known` are further tensors that its function takes by keyword."""
        return self.call(*views, **known)


def check_logits(logits: Tensor, targets: Tensor, *, soft: bool = True) -> None:
    """Raises `ShapeError` unless the pair fits the contract of losses on logits. Looks at no values: no device sync."""
    if logits.ndim != 2:
        raise ShapeError(f"logits must be [N, C], found {list(logits.shape)}")
    if not logits.is_floating_point():
        raise ShapeError(f"logits must be floating point, found {logits.dtype}")
    if targets.is_floating_point():
        if not soft:
            raise ShapeError(f"targets must be int64 class indices [N] for this loss, found {targets.dtype}")
        if targets.shape != logits.shape:
            raise ShapeError(
                f"soft targets must have the logits' shape {list(logits.shape)}, found {list(targets.shape)}"
            )
        return
    _check_indices("targets", targets, len(logits))


def check_embeddings(
    embeddings: Tensor, labels: Tensor, reference: Tensor | None = None, reference_labels: Tensor | None = None
) -> None:
    """Raises `ShapeError` unless the arguments fit the contract of losses on embeddings. Looks at no values."""
    if embeddings.ndim != 2:
        raise ShapeError(f"embeddings must be [N, d], found {list(embeddings.shape)}")
    if not embeddings.is_floating_point():
        raise ShapeError(f"embeddings must be floating point, found {embeddings.dtype}")
    _check_indices("labels", labels, len(embeddings))
    if (reference is None) != (reference_labels is None):
        raise ShapeError("reference and reference_labels go together: give both or neither")
    if reference is not None and reference_labels is not None:
        if reference.ndim != 2 or reference.shape[1] != embeddings.shape[1]:
            raise ShapeError(f"reference must be [M, {embeddings.shape[1]}], found {list(reference.shape)}")
        if reference.dtype != embeddings.dtype:
            raise ShapeError(f"reference must be {embeddings.dtype} like the embeddings, found {reference.dtype}")
        _check_indices("reference_labels", reference_labels, len(reference))


def check_index(index: Tensor, rows: int, samples: int) -> None:
    """Raises `ShapeError` unless the numbers of the samples are integers `[rows]`, and on the CPU below `samples`."""
    if index.shape != (rows,) or index.is_floating_point() or index.is_complex():
        raise ShapeError(f"index must be integers [{rows}], one a sample, found {index.dtype} {list(index.shape)}")
    if index.device.type == "cpu" and rows and not torch.compiler.is_compiling():
        least, most = int(index.min()), int(index.max())
        if least < 0 or most >= samples:
            found = least if least < 0 else most
            raise ShapeError(
                f"index must be in 0..{samples - 1}, since the loss was made for {samples} samples; found {found}"
            )


def _check_indices(name: str, values: Tensor, count: int) -> None:
    if values.is_floating_point() or values.is_complex():
        raise ShapeError(f"{name} must be integers, found {values.dtype}")
    if values.ndim != 1 or len(values) != count:
        raise ShapeError(f"{name} must be [{count}], one for each row, found {list(values.shape)}")


@checked
def reduce(values: Tensor, reduction: Reduction) -> Tensor:
    """Mean, sum or neither over the samples; the mean of nothing is zero, so that an empty batch is no NaN."""
    if reduction == "none":
        return values
    if reduction == "sum" or values.numel() == 0:
        return values.sum()
    return values.mean()
