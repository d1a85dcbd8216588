"""Layers whose weight is a product of two thin matrices, the first columns of which matter most."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.compress._layers import plain
from repertoire.diagnostics import prunable_weights
from repertoire.errors import ConfigError

__all__ = [
    "FactoredConv2d",
    "FactoredLayer",
    "FactoredLinear",
    "can_be_factored",
    "factored_layers",
    "group_lasso",
    "low_rank",
    "sampled_rank",
    "truncate",
]


class FactoredLayer(nn.Module):
    """A layer with the weight U V^T; its rank can be lowered for one pass, and for good.

    Attributes:
        left: U `[out, r]`.
        right: V^T `[r, inputs]`, where the inputs of a convolution are those of a patch.
        bias: `[out]`, or None.
        active: how many columns a pass uses; all if None.
    """

    def __init__(self, left: Tensor, right: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.left = nn.Parameter(left)
        self.right = nn.Parameter(right)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.active: int | None = None

    @property
    def rank(self) -> int:
        """Number of columns."""
        return self.left.shape[1]

    def factors(self) -> tuple[Tensor, Tensor]:
        """The columns that a pass uses."""
        return self.left[:, : self.active], self.right[: self.active]

    def weight(self) -> Tensor:
        """The product `[out, inputs]`."""
        left, right = self.factors()
        return left @ right

    def importance(self) -> Tensor:
        """For each column the product of the norms of both sides from it on, `[r]`; it falls from column to column."""
        left, right = _tails(self.left.detach(), self.right.detach())
        return left * right

    def extra_repr(self) -> str:
        return f"{self.right.shape[1]}, {self.left.shape[0]}, rank={self.rank}"


class FactoredLinear(FactoredLayer):
    """A linear layer in two steps."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.factors()
        return F.linear(F.linear(x, right), left, self.bias)


class FactoredConv2d(FactoredLayer):
    """A convolution in two steps: one of its kernel to r channels, and one of a single pixel to its output."""

    def __init__(self, left: Tensor, right: Tensor, bias: Tensor | None, like: nn.Conv2d) -> None:
        super().__init__(left, right, bias)
        self.in_channels, self.kernel = like.in_channels, like.kernel_size
        self.stride, self.dilation = like.stride, like.dilation
        self.padding = list(like._reversed_padding_repeated_twice)
        self.mode = "constant" if like.padding_mode == "zeros" else like.padding_mode

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.factors()
        kernel = right.view(-1, self.in_channels, *self.kernel)
        narrow = F.conv2d(F.pad(x, self.padding, mode=self.mode), kernel, None, self.stride, 0, self.dilation)
        return F.conv2d(narrow, left[:, :, None, None], self.bias)


def low_rank(model: nn.Module, skip: Sequence[str] = ()) -> nn.Module:
    r"""A copy of a network whose layers are products of two matrices, to be trained so that their columns are ordered.

    Horvath et al., *Maestro: Uncovering Low-Rank Structures via Trainable Decomposition* (2023). Every linear layer and
    every convolution of one group, unless it pads its inputs in a way of its own, becomes U V^T of full rank, from its
    singular value decomposition with the singular values shared out to both sides, so that the copy computes what the
    network does. Their training samples, at each step, one layer and a number b of its columns (:func:`sampled_rank`),
    adds the loss of that pass to the one of the whole network, and shrinks what comes late (:func:`group_lasso`); what
    has become small is cut off (:func:`truncate`). :func:`repertoire.compress.lowrank` does all of it.

    Args:
        model: the network; it stays as it is.
        skip: names of layers that are left as they are.

    Returns:
        The copy, in the mode of the network.

    Raises:
        ConfigError: there is no layer to factor, or `skip` names what is not there.

    Example:
        >>> import torch
        >>> from repertoire.compress import low_rank
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 6))
        >>> x = torch.rand(3, 8)
        >>> copied = low_rank(model)
        >>> copied[0].rank, torch.allclose(copied(x), model(x), atol=1e-5)
        (6, True)
    """
    copied = copy.deepcopy(model)
    replaced = False
    for parameter in prunable_weights(model, skip):
        name = parameter.removesuffix("weight").removesuffix(".")
        layer = copied.get_submodule(name)
        made = factored(layer)
        if made is not None:
            copied = put(copied, name, made)
            replaced = True
    if not replaced:
        raise ConfigError(f"{type(model).__name__} has no linear layer and no convolution of one group to factor")
    return copied


def can_be_factored(layer: nn.Module | None) -> bool:
    """Whether a layer is of a kind that is made a product of two matrices."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1 and plain(layer))


def factored(layer: nn.Module, rank: int | None = None) -> FactoredLayer | None:
    """A layer as a product, of the nearest weight of that rank; None if it is of a kind that is not factored."""
    if not can_be_factored(layer):
        return None
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    weight = layer.weight.detach()
    u, s, v = torch.linalg.svd(weight.flatten(1).double(), full_matrices=False)
    root = s.sqrt()
    left, right = (u * root)[:, :rank].to(weight.dtype), (root[:, None] * v)[:rank].to(weight.dtype)
    return product(layer, left.contiguous(), right.contiguous())


def product(layer: nn.Linear | nn.Conv2d, left: Tensor, right: Tensor) -> FactoredLayer:
    """A layer with these factors, and the bias and everything else of a layer."""
    bias = None if layer.bias is None else layer.bias.detach().clone()
    made = (
        FactoredConv2d(left, right, bias, layer) if isinstance(layer, nn.Conv2d) else FactoredLinear(left, right, bias)
    )
    return made.train(layer.training)


def put(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """The network with another module at a place; the module itself where the place is the whole."""
    if not name:
        return module
    model.set_submodule(name, module)
    return model


def factored_layers(model: nn.Module) -> dict[str, FactoredLayer]:
    """The factored layers of a network by name, each once."""
    return {name: module for name, module in model.named_modules() if isinstance(module, FactoredLayer)}


@contextmanager
def sampled_rank(model: nn.Module, generator: torch.Generator | None = None) -> Iterator[tuple[str, int]]:
    """One layer, and a number of its columns to which its passes are restricted meanwhile.

    All pairs of a layer and a number have the same probability, as the released code has it.

    Args:
        model: made by :func:`low_rank`.
        generator: on the CPU; torch's own if None.

    Yields:
        The layer's name and the number of its columns.

    Example:
        >>> import torch
        >>> from repertoire.compress import low_rank, sampled_rank
        >>> model = low_rank(torch.nn.Linear(4, 4))
        >>> with sampled_rank(model, torch.Generator().manual_seed(0)) as (_, rank):
        ...     torch.linalg.matrix_rank(model.weight()).item() == rank
        True
    """
    layers = factored_layers(model)
    number = int(torch.randint(sum(layer.rank for layer in layers.values()), (), generator=generator))
    for name, layer in layers.items():
        if number < layer.rank:
            layer.active = number + 1
            try:
                yield name, number + 1
            finally:
                layer.active = None
            return
        number -= layer.rank


def group_lasso(model: nn.Module) -> Tensor:
    r"""The penalty that makes the last columns of factored layers shrink, since each is in the terms of all before it.

    .. math:: \sum_{\text{layers}} \sum_b \| U_{:, b:} \|_F + \| V_{:, b:} \|_F

    Args:
        model: made by :func:`low_rank`.

    Returns:
        A scalar.

    Example:
        >>> import torch
        >>> from repertoire.compress import group_lasso, low_rank
        >>> model = low_rank(torch.nn.Linear(2, 2, bias=False))
        >>> float(group_lasso(model).detach()) > 0
        True
    """
    total = [sum(part.sum() for part in _tails(layer.left, layer.right)) for layer in factored_layers(model).values()]
    if not total:
        raise ConfigError(f"{type(model).__name__} has no factored layer; make some with low_rank")
    return torch.stack([torch.as_tensor(value) for value in total]).sum()


def _tails(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The norms of all columns from each on."""
    # Where a whole tail is zero the root has no gradient.
    least = torch.finfo(left.dtype).tiny
    return tuple(  # type: ignore[return-value]
        squares.flip(0).cumsum(0).flip(0).clamp_min(least).sqrt()
        for squares in (left.square().sum(0), right.square().sum(1))
    )


@torch.no_grad()
def truncate(model: nn.Module, tolerance: float) -> dict[str, int]:
    """Cuts off the last columns of factored layers whose importance is below a tolerance; one is always left.

    Args:
        model: made by :func:`low_rank`; changed in place. Optimisers know nothing of the new parameters.
        tolerance: of the product of norms that :meth:`FactoredLayer.importance` gives.

    Returns:
        The rank that each layer has left.

    Example:
        >>> import torch
        >>> from repertoire.compress import low_rank, truncate
        >>> layer = torch.nn.Linear(3, 3, bias=False)
        >>> _ = layer.weight.data.copy_(torch.diag(torch.tensor([5.0, 0.1, 1.0])))
        >>> truncate(low_rank(layer), 0.5)
        {'': 2}
    """
    ranks = {}
    for name, layer in factored_layers(model).items():
        ranks[name] = max(1, int((layer.importance() >= tolerance).sum()))
        layer.left = nn.Parameter(layer.left[:, : ranks[name]].clone())
        layer.right = nn.Parameter(layer.right[: ranks[name]].clone())
    return ranks
