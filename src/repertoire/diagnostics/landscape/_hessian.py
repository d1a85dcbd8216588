"""The Hessian of a loss, as an operator that is never written out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from repertoire.diagnostics._objective import Batches, Loss, Objective, finite, finite_loss, flat_gradient
from repertoire.errors import ShapeError
from repertoire.ops import evaluating

__all__ = ["Hessian"]


class Hessian:
    r"""The Hessian of a model's mean loss over batches, which multiplies vectors.

    Pearlmutter, *Fast Exact Multiplication by the Hessian* (1994): the product with a vector v is the gradient of the
    inner product of gradient and v,

    .. math:: H v = \nabla_\theta \big( \nabla_\theta L(\theta)^\top v \big), \qquad
              L(\theta) = \frac{1}{N} \sum_{i=1}^{N} \ell(f_\theta(x_i), y_i)

    so that memory is that of a few gradients, and a product costs about as much as two backward passes over the
    batches. Several vectors at once, as columns of a matrix, share the first of them. The model is in evaluation mode
    (no dropout, batch normalisation with the statistics it has), and is left as it was: mode, weights, gradients,
    buffers.

    Args:
        model: any module; the Hessian is that of its parameters that need a gradient, in their order, flattened.
        batches: pairs of inputs and targets, or batches of `repertoire.data`; gone through once for each product, so
            they may come from a disk. An iterator is read into memory once.
        loss: of outputs and targets, the mean over a batch; cross-entropy by default. For a method of
            `repertoire.methods` with batches of `repertoire.data` it may be None, which is the method's own.

    Attributes:
        dimension: number of parameters P.

    Raises:
        ConfigError: no parameter needs a gradient. DataError: no batch (when it first multiplies).
        NonFiniteLoss: the loss or a product is not finite.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import Hessian
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> batches = [(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))]
        >>> hessian = Hessian(model, batches, torch.nn.functional.mse_loss)
        >>> hessian @ torch.ones(1)  # twice the mean square of the inputs
        tensor([10.])
    """

    def __init__(self, model: nn.Module, batches: Batches, loss: Loss | None = None) -> None:
        self.objective = Objective(model, batches, loss)
        self.dimension = self.objective.dimension

    @property
    def like(self) -> Tensor:
        """An empty tensor with the dtype and the device of what it multiplies."""
        weight = next(iter(self.objective.weights.values()))
        return weight.new_empty(0)

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The product with a vector `[P]`, or with the columns of a matrix `[P, m]`."""
        if vectors.ndim not in (1, 2) or len(vectors) != self.dimension:
            raise ShapeError(
                f"the Hessian multiplies [{self.dimension}] or [{self.dimension}, m], found {list(vectors.shape)}"
            )
        columns = vectors.detach().reshape(self.dimension, -1).to(self.like)
        result = torch.zeros_like(columns)
        count = 0
        objective = self.objective
        # Only the plain form of attention can be differentiated twice.
        with evaluating(objective.model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            for batch, size in objective:
                leaves = {name: weight.detach().requires_grad_() for name, weight in objective.weights.items()}
                value = objective.value(leaves, batch)
                finite_loss(float(value.detach()))
                gradient = flat_gradient(value, leaves, create_graph=True)
                last = columns.shape[1] - 1
                for column in range(columns.shape[1]):
                    if not gradient.requires_grad:  # a loss that is linear in the weights
                        break
                    product = torch.autograd.grad(
                        gradient, list(leaves.values()), columns[:, column], retain_graph=column < last,
                        materialize_grads=True,
                    )  # fmt: skip
                    result[:, column].add_(torch.cat([part.reshape(-1) for part in product]), alpha=size)
                count += size
        return finite(result / count, "the product with the Hessian").reshape(vectors.shape)
