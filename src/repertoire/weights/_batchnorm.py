"""Batch statistics for weights that never saw a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.ops import evaluating
from repertoire.weights._progress import Kept, Progress

__all__ = ["refresh_batchnorm", "refresh_in_parts"]


@torch.no_grad()
def refresh_batchnorm(model: nn.Module, batches: Iterable[Tensor | Batch | tuple[Tensor, ...]]) -> int:
    """Measures the running statistics of batch normalisation anew, changing no weight.

    A mean of weights does not have the mean of the statistics: activations of an averaged network are on another scale,
    usually a smaller one, than those that the averaged statistics describe. The statistics become the mean over the
    batches of each batch's own, each counting alike, as in Izmailov et al., *Averaging Weights Leads to Wider Optima
    and Better Generalization* (2018). All other modules (dropout) are in evaluation mode for it.

    Args:
        model: changed in place: the running statistics and counters only. Without batch normalisation, nothing is done.
        batches: training images as evaluation sees them; tensors, `Batch`, or tuples whose first element is the
            images. Moved to the model's device. One batch of a few hundred images goes a long way.

    Returns:
        The number of batches it saw.

    Raises:
        ConfigError: there are no batches. The statistics are as before, as they are after any error.

    Example:
        >>> import torch
        >>> from repertoire.weights import refresh_batchnorm
        >>> norm = torch.nn.BatchNorm1d(2)
        >>> refresh_batchnorm(norm, [torch.tensor([[0.0, 1.0], [2.0, 3.0]])])
        1
        >>> norm.running_mean
        tensor([1., 2.])
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return 0
    device = next(tensor.device for tensor in norms[0].buffers())
    count = 0
    with _measuring(model, norms):
        for batch in batches:
            model(images_of(batch).to(device))
            count += 1
        if count == 0:
            raise ConfigError("batches is empty; give some training images to measure the statistics of")
    return count


def refresh_in_parts(
    model: nn.Module, batches: Iterable[Tensor | Batch | tuple[Tensor, ...]], progress: Progress, name: str
) -> bool:
    """`refresh_batchnorm`, of which what was measured is kept: in the middle, too, and the end is not measured again.

    Args:
        model: as there.
        batches: as there; the same ones in the same order when a process goes on.
        progress: where the statistics so far are kept.
        name: of this part.

    Returns:
        Whether there is anything that has statistics.

    Raises:
        ConfigError: there are no batches.

    Example:
        >>> import torch
        >>> from repertoire.weights import Progress, refresh_in_parts
        >>> norm = torch.nn.BatchNorm1d(2)
        >>> refresh_in_parts(norm, [torch.tensor([[0.0, 1.0], [2.0, 3.0]])], Progress(), "statistics")
        True
        >>> norm.running_mean
        tensor([1., 2.])
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return False
    buffers = {
        f"{number}.{own}": b for number, norm in enumerate(norms) for own, b in norm.named_buffers(recurse=False)
    }

    def put_back(kept: Kept) -> None:
        for own, buffer in buffers.items():
            buffer.copy_(kept.tensors[own])

    if (kept := progress.load(name)) is not None and kept.told["whole"]:
        put_back(kept)
    else:
        # The first batch is asked for once the statistics were reset, which is when those of the batches before come
        # back.
        refresh_batchnorm(model, progress.through(name, batches, lambda: (buffers, {}), put_back))
    return True


def first_of(batches: Iterable[Batch], samples: int) -> Iterator[Batch]:
    """Batches until there were so many samples."""
    for batch in batches:
        yield batch
        samples -= len(images_of(batch))
        if samples <= 0:
            return


def images_of(batch: Tensor | Batch | tuple[Tensor, ...]) -> Tensor:
    if isinstance(batch, Batch):
        return batch.images
    return batch[0] if isinstance(batch, tuple | list) else batch


@contextmanager
def _measuring(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Only the normalisations in training mode, with statistics that start from nothing and average all batches."""
    momenta = [norm.momentum for norm in norms]
    before = [{name: buffer.clone() for name, buffer in norm.named_buffers(recurse=False)} for norm in norms]
    try:
        with evaluating(model):
            for norm in norms:
                norm.training = True
                norm.momentum = None  # a mean over all batches instead of a moving one
                norm.reset_running_stats()
            yield
    except BaseException:
        for norm, buffers in zip(norms, before, strict=True):
            for name, buffer in buffers.items():
                getattr(norm, name).copy_(buffer)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
