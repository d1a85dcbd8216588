"""Losses that compare the samples of a batch, where the batch is shared by several processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from repertoire.losses.contracts._base import Loss
from repertoire.ops import gather_rows, ranks_of, sees_all_ranks

__all__ = ["compare_across_ranks", "compared_losses"]

Group = Any
"""A process group of `torch.distributed`, or None for all processes: the class is not in every build of torch."""


def compare_across_ranks(module: nn.Module, group: Group = None) -> None:
    r"""Has the losses inside a module compare the samples of all processes, as one process with all of them would.

    In training, embeddings or views, labels and whatever else a loss is told of the samples go to all ranks, and every
    rank computes the loss of all of them. The gradient of a rank's own rows is the whole one, times the number of all
    rows over that of its own: averaged over the ranks, as DistributedDataParallel does it, the gradient of the
    parameters is

    .. math:: \frac1W \sum_{r=1}^{W} \frac{N}{N_r} \sum_{i \in r}
              \frac{\partial L(z_1, \dots, z_N)}{\partial z_i} \frac{\partial z_i}{\partial \theta}

    that of one process, where all ranks have equally many samples. Where they have not, the whole loss of a rank wants
    the weight :math:`W N_r / N`; a rule of this package gives it. Parameters of the loss get the same gradient on every
    rank. Random numbers are those of the first rank, and memories are told that they see everything.

    Losses on logits are means over samples, which the mean over ranks leaves alone, and a loss that declares
    `gathers = False` compares those of each rank. So does, in evaluation and against a reference set that it is given,
    every loss.

    All ranks must call the losses together. What travels is embeddings; what is computed W times is the loss.

    Args:
        module: a loss, or anything with losses in it.
        group: the ranks; all of them if None. In one process nothing changes.

    Example:
        >>> from repertoire.losses import NTXent, compare_across_ranks
        >>> loss = NTXent()
        >>> compare_across_ranks(loss)  # on each rank, before training
    """
    for loss in compared_losses(module):
        for handle in loss.__dict__.pop("_across", ()):
            handle.remove()
        if not loss.gathers or ranks_of(group) == 1:
            continue
        across = _Across(group)
        loss.__dict__["_across"] = (
            loss.register_forward_pre_hook(across.before, with_kwargs=True),
            loss.register_forward_hook(across.after, always_call=True),
        )


def compared_losses(module: nn.Module) -> Iterator[Loss]:
    """The losses inside a module that compare samples with each other; not those inside such a loss."""
    if isinstance(module, Loss) and module.contract != "logits":
        yield module
        return
    for child in module.children():
        yield from compared_losses(child)


class _Across:
    """What happens around a call of a loss."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._open = ExitStack()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Across:
        # A group of processes has no copy.
        return _Across(self.group)

    def before(self, loss: Loss, inputs: tuple[Any, ...], known: dict[str, Any]) -> Any:
        if not loss.training or _compared_with_others(loss, inputs, known):
            return None
        names = [name for name, value in known.items() if isinstance(value, Tensor)]
        tensors = [*inputs, *(known[name] for name in names)]
        given = [place for place, value in enumerate(tensors) if isinstance(value, Tensor)]
        random = any(isinstance(module, Loss) and module.random for module in loss.modules())
        gathered, seed = gather_rows(*(tensors[place] for place in given), group=self.group, seed=random)
        for place, value in zip(given, gathered, strict=True):
            tensors[place] = value
        self._open.close()
        self._open.enter_context(sees_all_ranks(loss))
        if seed is not None:
            device = gathered[0].device
            self._open.enter_context(torch.random.fork_rng([device] if device.type != "cpu" else [], True))
            torch.manual_seed(seed)
        return tuple(tensors[: len(inputs)]), {**known, **dict(zip(names, tensors[len(inputs) :], strict=True))}

    def after(self, loss: Loss, inputs: tuple[Any, ...], output: Any) -> None:
        self._open.close()


def _compared_with_others(loss: Loss, inputs: tuple[Any, ...], known: dict[str, Any]) -> bool:
    """Whether a loss on embeddings is given a reference set: then it compares with that alone."""
    reference = inputs[2] if len(inputs) > 2 else known.get("reference")
    return loss.contract == "embeddings" and reference is not None
