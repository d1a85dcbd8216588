"""Calling a loss, whatever its contract is."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import LogitsLoss, Loss
from repertoire.ops import Memory

__all__ = ["apply_loss", "check_wants", "on_features", "own_state", "right_answers"]

KNOWN = ("index", "transformation")
"""What a batch of images can know of its samples, of all that a loss may want: the first is there always, the others
where a method asks for the field of that name."""


def on_features(loss: Loss | Callable[..., Tensor]) -> bool:
    """Tells a loss on embeddings or on views from one on class scores; anything callable is taken for the latter."""
    return isinstance(loss, Loss) and loss.contract in ("embeddings", "views")


def apply_loss(loss: Loss | Callable[..., Tensor], outputs: Tensor, batch: Batch) -> Tensor:
    """Calls a loss as its contract says, with what a network gives for all views of a batch.

    A loss on logits gets the targets once for each view, one on embeddings the labels, and one on views the views. To a
    loss on embeddings an unlabelled sample is a class of its own, in its memory too: its views are its only positives.

    Args:
        loss: a loss of any contract, or anything that is called with class scores and labels.
        outputs: class scores or embeddings `[V * N, d]` of the V views, one after the other.
        batch: the N samples.

    Raises:
        ShapeError: a loss on embeddings, and targets that are not classes; see also the loss.

    Example:
        >>> import torch
        >>> from repertoire.losses import NTXent
        >>> views = torch.eye(4), torch.eye(4)
        >>> batch = Batch(views, torch.full((4,), -1), torch.arange(4))
        >>> bool(apply_loss(NTXent(), torch.cat(views), batch) == NTXent()(*views))
        True
    """
    count = len(batch.views)
    if not on_features(loss):
        return loss(outputs, batch.targets.repeat(count, *[1] * (batch.targets.dim() - 1)))
    assert isinstance(loss, Loss)
    if loss.contract == "views":
        return loss(*outputs.chunk(count), **{name: _wanted(batch, name) for name in loss.wants})
    if batch.targets.dim() != 1 or batch.targets.is_floating_point():
        raise ShapeError(
            f"loss {type(loss).__name__} needs the class of each sample, integers [{len(batch)}], found "
            f"{batch.targets.dtype} {list(batch.targets.shape)}"
        )
    labels = batch.targets.repeat(count)
    own = -1 - batch.index.to(labels).repeat(count)
    wanted = {name: _of_views(_wanted(batch, name), count) for name in loss.wants}
    return loss(outputs, torch.where(labels < 0, own, labels), **wanted)


def _wanted(batch: Batch, name: str) -> Tensor:
    found = batch.index if name == "index" else batch.fields.get(name)
    if not isinstance(found, Tensor):
        raise ConfigError(f"the loss needs the {name} of every sample, and the batch has no field of that name")
    return found


def _of_views(values: Tensor, count: int) -> Tensor:
    return values.repeat(count, *[1] * (values.dim() - 1))


def right_answers(loss: Loss | Callable[..., Tensor], scores: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """The share of class scores `[N, K]` that are right, as a log; none where a loss is for other targets than classes.

    Of soft targets `[N, K]`, the class with the largest share is right.
    """
    kinds = loss.targets if isinstance(loss, LogitsLoss) else ("classes",)
    if "classes" not in kinds or (targets.dim() == 2 and targets.shape != scores.shape):
        return {}
    classes = targets.argmax(1) if targets.dim() == 2 else targets
    return {"accuracy": (scores.detach().argmax(1) == classes).sum() / max(1, len(classes))}


def check_wants(loss: Loss, known: tuple[str, ...] = KNOWN) -> None:
    """Raises `ConfigError` where a loss needs to know more of a sample than a method can tell it."""
    unknown = [name for name in loss.wants if name not in known]
    if unknown:
        other = "method embedding, or " if set(unknown) <= set(KNOWN) else ""
        raise ConfigError(
            f"loss {type(loss).__name__} needs the {' and the '.join(unknown)} of every sample, which this method "
            f"cannot tell: use {other}the loss in a loop of your own"
        )


def own_state(loss: object) -> str:
    """Says what ties a loss to one place in the network, for a message; "" where nothing does.

    A memory holds embeddings of one layer, and a loss that was prepared for a width has parameters of that width.
    """
    if not isinstance(loss, Loss):
        return ""
    if any(isinstance(module, Memory) for module in loss.modules()):
        return "has a memory, which is of one layer"
    for module in loss.modules():
        if not isinstance(module, Loss) or type(module).prepare is Loss.prepare:
            continue
        if _holds(module) or _holds(_told(module)):
            return "is made for embeddings of one width"
    return ""


def _told(loss: Loss) -> nn.Module:
    """A copy of a loss that was told a width; any module with parameters where it refuses that width."""
    told = copy.deepcopy(loss)
    try:
        told.prepare(2)
    except ConfigError:
        return nn.Linear(1, 1)
    return told


def _holds(module: nn.Module) -> bool:
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())
