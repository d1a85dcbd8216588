"""The mean loss of a model over batches, as a function of its weights; the model itself is never changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError, DataError, NonFiniteLoss, ShapeError
from repertoire.ops import evaluating

__all__ = ["Batches", "Loss", "Objective"]

Loss = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets of a batch to the mean loss of its samples, a scalar."""

Batches = Iterable[Batch | tuple[Tensor, Tensor]]
"""What a loss is averaged over: pairs of inputs and targets, or batches of `repertoire.data`."""


class Objective:
    """The mean loss over batches, each counting by its number of samples, as a function of the trainable weights.

    All diagnostics of optimisation look at a model through it. The model is in evaluation mode while it computes: no
    dropout, and batch normalisation with the statistics it has. Its weights, gradients, buffers and mode are
    afterwards what they were: other weights and buffers are only ever lent to it for one call.

    Args:
        model: any module; parameters that need no gradient are constants.
        batches: gone through once for each evaluation. An iterator is read into memory once.
        loss: of outputs and targets. By default cross-entropy for pairs, and a method's own loss
            (`method(batch).loss`) for batches of `repertoire.data`.

    Raises:
        ConfigError: the model has no parameters, or none that needs a gradient.
        DataError: there is no batch.
    """

    def __init__(self, model: nn.Module, batches: Batches, loss: Loss | None = None) -> None:
        self.model = model
        self.batches = list(batches) if isinstance(batches, Iterator) else batches
        self.loss = loss
        self.weights: dict[str, Tensor] = {
            name: parameter.detach()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and parameter.is_floating_point()
        }
        if not self.weights:
            raise ConfigError(
                f"{type(model).__name__} has no parameter that needs a gradient, so its loss is no function of "
                "weights; unfreeze some with requires_grad_()"
            )
        self._constants = {
            **{name: p.detach() for name, p in model.named_parameters() if name not in self.weights},
            **dict(model.named_buffers()),
        }

    @property
    def dimension(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.weights.values())

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        """Each batch on the device of the weights, and how many samples it has."""
        device = next(iter(self.weights.values())).device
        seen = False
        for batch in self.batches:
            size = _size(batch)
            if size == 0:
                continue
            seen = True
            yield _to(batch, device), size
        if not seen:
            raise DataError("batches is empty; give at least one batch of inputs and targets")

    def value(self, weights: Mapping[str, Tensor], batch: Any) -> Tensor:
        """The loss of a batch at some weights, which may carry a graph."""
        # Buffers are lent as copies, should a layer write to them in evaluation mode as well.
        constants = {name: tensor.clone() for name, tensor in self._constants.items()}
        tensors = {**constants, **weights}
        return self._loss_of(batch, lambda given: torch.func.functional_call(self.model, tensors, (given,)))

    def call(self, batch: Any) -> Tensor:
        """The loss of a batch at the weights and buffers that the model itself has."""
        return self._loss_of(batch, self.model)

    def _loss_of(self, batch: Any, model: Callable[[Any], Any]) -> Tensor:
        # Copies, as a model may overwrite what it is given, and the batch passes again.
        if isinstance(batch, Batch) and self.loss is None:
            step = model(batch.map(Tensor.clone))
            if not isinstance(getattr(step, "loss", None), Tensor):
                raise ConfigError(
                    f"loss is None, but {type(self.model).__name__} is no method: it gave a {type(step).__name__} for "
                    "a batch. Give a loss of outputs and targets"
                )
            value = step.loss
        else:
            inputs, targets = (batch.images, batch.targets) if isinstance(batch, Batch) else batch
            value = (self.loss or F.cross_entropy)(model(inputs.clone()), targets)
        if value.ndim:
            raise ShapeError(f"loss must give the mean of a batch, a scalar; found a tensor of {list(value.shape)}")
        return value

    def mean(self, weights: Mapping[str, Tensor] | None = None) -> float:
        """The mean loss over all batches, which may be infinite or nan."""
        weights = self.weights if weights is None else weights
        total, count = 0.0, 0
        with evaluating(self.model), torch.no_grad():
            for batch, size in self:
                total += float(self.value(weights, batch)) * size
                count += size
        return total / count

    def gradients(self, weights: Mapping[str, Tensor] | None = None) -> Iterator[tuple[Tensor, float, int]]:
        """Yields the flat gradient, the loss and the number of samples of each batch.

        Raises:
            NonFiniteLoss: a loss or a gradient is not finite.
        """
        weights = self.weights if weights is None else weights
        with evaluating(self.model):
            for batch, size in self:
                leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
                with torch.enable_grad():
                    value = self.value(leaves, batch)
                    gradient = flat_gradient(value, leaves)
                yield finite(gradient, "the gradient"), finite_loss(float(value.detach())), size

    def flat(self, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """The weights in one vector."""
        weights = self.weights if weights is None else weights
        return torch.cat([weight.reshape(-1) for weight in weights.values()])

    def unflat(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector as weights."""
        parts = vector.split([weight.numel() for weight in self.weights.values()])
        return {name: part.view(weight.shape) for part, (name, weight) in zip(parts, self.weights.items(), strict=True)}


def flat_gradient(value: Tensor, weights: Mapping[str, Tensor], *, create_graph: bool = False) -> Tensor:
    """The gradient of a scalar in one vector; zero for weights that it does not depend on."""
    if not value.requires_grad:
        return torch.cat([torch.zeros_like(weight).reshape(-1) for weight in weights.values()])
    found = torch.autograd.grad(value, list(weights.values()), create_graph=create_graph, materialize_grads=True)
    return torch.cat([gradient.reshape(-1) for gradient in found])


def finite_loss(value: float) -> float:
    """The loss, if it is a finite number."""
    if not math.isfinite(value):
        raise NonFiniteLoss(
            f"the loss at the weights is {value}; diagnostics of optimisation need weights whose loss is finite. Look "
            "for nan in the weights and the data"
        )
    return value


def finite(vector: Tensor, what: str) -> Tensor:
    """The vector, if all of it is finite."""
    if not bool(vector.isfinite().all()):
        raise NonFiniteLoss(f"{what} is not finite in {int((~vector.isfinite()).sum())} of {vector.numel()} places")
    return vector


def _size(batch: Any) -> int:
    if isinstance(batch, Batch):
        return len(batch)
    if not (isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
        raise DataError(
            f"batches must hold pairs of tensors, inputs and targets, or repertoire.data.Batch; found {_name(batch)}"
        )
    if len(batch[0]) != len(batch[1]):
        raise ShapeError(f"a batch has {len(batch[0])} inputs and {len(batch[1])} targets")
    return len(batch[1])


def _name(batch: object) -> str:
    if isinstance(batch, tuple | list):
        return f"{type(batch).__name__} of {', '.join(type(part).__name__ for part in batch) or 'nothing'}"
    return type(batch).__name__


def _to(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Batch):
        return batch if batch.index.device == device else batch.map(lambda tensor: tensor.to(device))
    return batch[0].to(device), batch[1].to(device)
