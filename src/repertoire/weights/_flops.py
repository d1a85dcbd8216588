"""Operations of a forward pass, counted without computing it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from repertoire.ops import evaluating

__all__ = ["count_flops"]


def count_flops(model: nn.Module, example: Tensor) -> int:
    """Floating-point operations of matrix products, convolutions and attention in a forward pass.

    A multiplication and an addition are two operations. What is done element by element, such as normalisation and
    activations, is not counted. The pass runs in evaluation mode, on tensors without memory.

    Args:
        model: takes one tensor; left as it was.
        example: a batch of inputs, of which only the shape and dtype matter.

    Returns:
        The operations of the whole batch.

    Example:
        >>> import torch
        >>> from repertoire.weights import count_flops
        >>> count_flops(torch.nn.Linear(10, 3), torch.zeros(2, 10))
        120
    """
    from torch.utils.flop_counter import FlopCounterMode

    tensors = [*model.named_parameters(), *model.named_buffers()]
    without_memory = {name: torch.empty_like(value, device="meta") for name, value in tensors}
    with evaluating(model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(model, without_memory, (torch.empty_like(example, device="meta"),))
    return int(counter.get_total_flops())
