"""GradCache: a contrastive batch of any size in the memory of a chunk of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ShapeError
from repertoire.methods import Method, Step
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register
from repertoire.rules._base import Rule, add_logs
from repertoire.rules._statistics import not_counting, nothing_counts

__all__ = ["GradCache", "cached_backward"]

Encoder = Callable[[Tensor], Tensor]


@checked
def cached_backward(
    encoders: Encoder | Sequence[Encoder],
    inputs: Sequence[Tensor],
    loss: Callable[..., Tensor],
    *,
    chunk: Annotated[int, AtLeast(1)] = 64,
    backward: Callable[[Tensor], Any] = Tensor.backward,
) -> Tensor:
    r"""Back-propagates a loss that compares all samples of a batch, with the activations of one chunk in memory.

    Gao, Zhang, Han and Callan, *Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup* (2021):

    1. All inputs are encoded chunk by chunk, without keeping activations.
    2. The loss of all embeddings z, and its gradient :math:`u_i = \partial L / \partial z_i`, are computed and cached.
    3. Each chunk is encoded once more, now with activations, and passes its cached gradient on:
       :math:`\partial L / \partial\theta = \sum_i u_i\,\partial z_i / \partial\theta`.

    The gradient is that of the whole batch, for any loss, where samples meet in the loss only. Dropout draws the same
    numbers in both passes. As the paper says, an encoder whose samples meet in batch normalisation is another matter:
    each chunk is normalised by its own statistics (as when gradients are accumulated), and the gradient is exact for
    that network. Running statistics follow the second pass only, so that they move once for each sample.

    The price is one more forward pass: about a third more time.

    Args:
        encoders: what makes embeddings `[n, ...]` of a chunk of inputs; one for all inputs, or as many as inputs
            (an `nn.ModuleList` too).
        inputs: one tensor `[N, ...]` for each argument of the loss: the views of a batch, or what goes into two towers.
            Their lengths may differ.
        loss: `loss(*embeddings) -> scalar`; its own parameters get their gradient too.
        chunk: samples that are encoded at a time, 1 or more; chunks are of nearly equal size.
        backward: called with the loss in place of `loss.backward()`, to scale it for mixed precision.

    Returns:
        The loss, detached. Gradients are added to `.grad`, as `backward` does; zero them before.

    Raises:
        ConfigError: the chunk is smaller than 1.
        ShapeError: the numbers of encoders and inputs do not fit, or there are no inputs.

    Example:
        >>> import torch
        >>> from repertoire.losses import nt_xent_loss
        >>> from repertoire.rules import cached_backward
        >>> net = torch.nn.Linear(4, 2)
        >>> views = torch.randn(10, 4), torch.randn(10, 4)
        >>> loss = cached_backward(net, views, nt_xent_loss, chunk=3)
        >>> net.weight.grad.shape
        torch.Size([2, 4])
    """
    one = callable(encoders) and not isinstance(encoders, nn.ModuleList)
    each: list[Encoder] = [encoders] * len(inputs) if one else list(encoders)  # type: ignore[list-item, arg-type]
    if len(each) != len(inputs) or not inputs:
        raise ShapeError(f"one encoder, or one for each of the inputs, is needed: {len(each)} for {len(inputs)} inputs")
    chunks = [_split(tensor, chunk) for tensor in inputs]
    states: list[list[_Random]] = []
    embeddings = []
    for encode, pieces in zip(each, chunks, strict=True):
        found = []
        states.append([])
        with torch.no_grad(), not_counting(encode) if isinstance(encode, nn.Module) else nothing_counts():
            for piece in pieces:
                states[-1].append(_Random(piece.device))
                found.append(encode(piece))
        embeddings.append(torch.cat(found).requires_grad_())
    with torch.enable_grad():
        value = loss(*embeddings)
        backward(value)
    after = _Random(inputs[0].device)
    for encode, pieces, random, embedding in zip(each, chunks, states, embeddings, strict=True):
        if embedding.grad is None:
            continue
        start = 0
        for piece, state in zip(pieces, random, strict=True):
            state.restore()
            with torch.enable_grad():
                again = encode(piece)
            if again.requires_grad:
                torch.autograd.backward(again, embedding.grad[start : start + len(again)])
            start += len(again)
    after.restore()
    return value.detach()


class _Random:
    """The random states of the CPU and of a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.other = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.other is not None:
            torch.get_device_module(self.device).set_rng_state(self.other, self.device)


def _split(inputs: Tensor, chunk: int) -> list[Tensor]:
    """Pieces of nearly equal size, so that none is a single sample, which batch normalisation cannot use."""
    count = len(inputs)
    parts = max(1, -(-count // chunk))
    return [inputs[count * i // parts : count * (i + 1) // parts] for i in range(parts)]


@register("rules", "gradcache", paper="gradcache")
class GradCache(Rule):
    """Back-propagation of a whole batch with the activations of a chunk: large contrastive batches in little memory.

    Gao, Zhang, Han and Callan, *Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup* (2021); see
    :func:`repertoire.rules.cached_backward`, which it calls with the network for the encoder and the method's objective
    for the loss. Unlike `accumulate`, every sample is compared with all others of the batch. Under batch normalisation
    each chunk is normalised by its own statistics; elsewhere the step is that of `backprop`.

    Under several ranks the loss compares the samples of all, as with `backprop`, and gradients are averaged once.

    Args:
        chunk: images that go through the network at a time, over all views; 1 or more.

    Raises:
        ConfigError: the chunk is smaller than 1, or the method makes more than one pass through its network, so that
            there is no one place to cut.

    Example:
        >>> from repertoire.rules import GradCache
        >>> GradCache(chunk=128).chunk
        128
    """

    requires = "objective"

    @classmethod
    def example_options(cls) -> dict[str, Any]:
        """Options for an example of a small network and batch, where the defaults do not do."""
        return {"chunk": 7}

    def __init__(self, chunk: Annotated[int, AtLeast(1)] = 64) -> None:
        self.chunk = chunk

    def step(self, method: Method, batch: Batch) -> dict[str, Tensor]:
        logs: dict[str, Tensor] = {}
        with self._pieces(method, batch) as pieces:
            for piece, share, _ in pieces:
                add_logs(logs, self._piece(method, method.transform(piece), share, batch), share)
        self._average(method.parameters())
        self._update(method)
        return logs

    def _piece(self, method: Method, batch: Batch, share: float, whole: Batch) -> dict[str, Tensor]:
        found: list[Step] = []

        def loss(features: Tensor) -> Tensor:
            with self.fabric.autocast():
                found.append(method.objective(features, batch))
            return self._scaled(found[0].loss, share, whole)

        encoder = _Encoder(method, self.fabric.autocast)
        cached_backward(encoder, [torch.cat(batch.views)], loss, chunk=self.chunk, backward=self.fabric.backward)
        return {"loss": found[0].loss.detach(), **found[0].logs}


class _Encoder(nn.Module):
    """The network of a method, in the precision of the run."""

    def __init__(self, method: Method, autocast: Callable[[], Any]) -> None:
        super().__init__()
        self.model = method.model
        self.autocast = autocast

    def forward(self, images: Tensor) -> Tensor:
        with self.autocast():
            features: Tensor = self.model.embed(images)
        return features
