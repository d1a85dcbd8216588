"""Training a changed network to answer as the one that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.ops import evaluating
from repertoire.weights import Learning, Progress

__all__ = ["answers_alike", "distil"]


def answers_alike(logits: Tensor, target: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of the answers from those that are wanted, which get no gradient."""
    return F.kl_div(logits.log_softmax(1), target.detach().log_softmax(1), reduction="batchmean", log_target=True)


def distil(
    network: nn.Module,
    teacher: nn.Module,
    batches: Callable[[], Iterable[Batch]],
    *,
    epochs: int,
    rate: float,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    after: Callable[[int], None] = lambda epoch: None,
    generators: Sequence[torch.Generator] = (),
    progress: Progress | None = None,
    name: str = "learned",
) -> None:
    """Trains a changed network to answer as another does, without labels.

    Adam, with a rate that falls to zero in a line. Both networks are in evaluation mode, so that statistics of batch
    normalisation stay, and dropout does nothing.

    Args:
        network: changed in place.
        teacher: gives the answers that are wanted; in evaluation mode, unchanged.
        batches: called once for each epoch. Who goes on with what was kept calls it as often, and looks at what is
            left.
        epochs: how often.
        rate: learning rate at the beginning.
        loss: images and the teacher's logits to a loss; by default the divergence of the network's answers.
        after: called with the number of each epoch behind it; not for those before the one that is gone on with.
        generators: what the loss draws random numbers from.
        progress: where the network, the state of its optimiser, random numbers and the epoch are kept; by default
            nowhere. What was learned to the end is not learned again.
        name: of what is kept there.

    Raises:
        ConfigError: there is no batch.

    Example:
        >>> import torch
        >>> from repertoire.compress import distil
        >>> from repertoire.data import Batch
        >>> _ = torch.manual_seed(0)
        >>> teacher, student = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
        >>> batch = Batch((torch.randn(64, 4),), torch.zeros(64), torch.arange(64))
        >>> distil(student, teacher, lambda: [batch], epochs=300, rate=0.03)
        >>> x = torch.randn(5, 4)
        >>> torch.allclose(student(x).softmax(1), teacher(x).softmax(1), atol=0.01)
        True
    """
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    progress = progress or Progress()
    changed = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    learning = Learning(changed, optimizer, generators=generators)
    begun = seen = 0
    if (kept := progress.load(name)) is not None:
        learning.put_back(kept)
        begun, seen = kept.told["epoch"], kept.told["seen"]
    with evaluating(network, teacher), torch.enable_grad():
        for epoch in range(epochs):
            given = batches()
            if epoch < begun:
                continue
            optimizer.param_groups[0]["lr"] = rate * (1 - epoch / epochs)
            for batch in islice(given, seen, None):
                images = batch.images.to(device)
                with torch.no_grad():
                    wanted = teacher(images)
                optimizer.zero_grad()
                (answers_alike(network(images), wanted) if loss is None else loss(images, wanted)).backward()
                optimizer.step()
                seen += 1
                if progress.due():
                    tensors, told = learning.state()
                    progress.save(name, tensors, {**told, "epoch": epoch, "seen": seen})
            if not seen:
                raise ConfigError("batches is empty; give some training samples to learn from")
            after(epoch)
            seen = 0
    if begun < epochs:
        tensors, told = learning.state()
        progress.save(name, tensors, {**told, "epoch": epochs, "seen": 0})
