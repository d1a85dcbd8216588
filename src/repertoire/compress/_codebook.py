"""Weights as indices into small codebooks, of which each group of similar neurons has one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from repertoire.compress._int8 import nearest_steps, whole_numbers
from repertoire.compress._layers import decoded, inner_weights, part_of
from repertoire.compress._packing import pack, unpack
from repertoire.data import Batch
from repertoire.errors import CheckpointError
from repertoire.ranges import AtLeast, Between, checked
from repertoire.registry import register
from repertoire.weights import Progress, Stored, form, input_moments, refresh_in_parts

__all__ = ["codebook", "codebook_form"]


@register("compressors", "codebook", paper="learnable-codebooks")
@checked
@torch.no_grad()
def codebook(
    model: nn.Module,
    batches: Callable[[], Iterable[Batch]] | None = None,
    *,
    bits: Annotated[int, Between(1, 8)] = 3,
    groups: Annotated[int, AtLeast(1)] = 4,
    rounds: Annotated[int, AtLeast(0)] = 10,
    ends: bool = False,
    progress: Progress | None = None,
) -> Stored:
    r"""Codebooks and which of their values each weight takes, learned together so that layers answer as before.

    Yvinec, Dapogny and Bailly, *Network Memory Footprint Compression Through Jointly Learnable Codebooks and Mappings*
    (2023). The neurons of a layer are sorted by the scale of their weights and cut into groups, each of which has a
    codebook of 2^b values, found by k-means. Values C and indices I are then moved in turn to lower the change of the
    layer's output,

    .. math::
        \min_{C, I} \sum_x \| W x - W_q x \|^2, \qquad (W_q)_{oj} = C^{(g(o))}_{I_{oj}},

    where an index may only move to the next larger or the next smaller value of its codebook: a proximal search. The
    authors descend along a gradient that is passed straight through and favours near values. The loss is a quadratic
    function of the weights, whose values have a least squares solution and whose single moves can be computed, so no
    step raises it here. They also permute the rows so that groups need no index; here a row says its group in
    log2(groups) bits, so that networks with shortcuts need no other treatment. What is written are the indices, packed,
    the codebooks in 32 bits, and the first and the last layer in eight bits. Biases stay: moments of the inputs are not
    centred, so that a shift of the mean counts, and batch normalisation takes up what is left of it.

    Args:
        model: the network; it stays as it is.
        batches: called without arguments, gives samples to measure the inputs of layers on; no labels are needed. None
            leaves the codebooks as k-means finds them, as `rounds=0` does.
        bits: b of each index, 1 to 8, 3 by default.
        groups: codebooks of each layer, 4 by default; no more than it has neurons.
        rounds: how often values and indices are moved, at most; it ends when no index moves.
        ends: whether the first and the last layer have codebooks, too.
        progress: where moments, what the layers have learned and statistics are kept; by default nowhere.

    Returns:
        The stored network, of form "codebook". Statistics of batch normalisation are measured anew on the batches.

    Raises:
        ConfigError: the network has no layer to compress, there is no batch, or options out of range.

    Example:
        >>> import torch
        >>> from repertoire.compress import codebook
        >>> model = torch.nn.Linear(64, 32)
        >>> stored = codebook(model, bits=2, groups=1, ends=True)
        >>> stored.build(torch.nn.Linear(64, 32)).weight.unique().numel(), stored.tensors["weight:indices"].nbytes
        (4, 512)
    """
    weights = inner_weights(model, ends)
    tensors = {name: value.clone() for name, value in model.state_dict().items() if name not in weights}
    rough = {} if ends else {name: w for name, w in inner_weights(model, True).items() if name not in weights}
    for name, weight in rough.items():
        del tensors[name]
        numbers, tensors[f"{name}:steps"] = nearest_steps(weight, 8)
        tensors[f"{name}:numbers"] = pack(numbers + 128, 8)
    learned = batches is not None and rounds > 0
    layers = [name.removesuffix("weight").removesuffix(".") for name in weights]
    progress = progress or Progress()
    moments = input_moments(model, batches(), layers, progress=progress) if learned and batches is not None else {}
    for number, ((name, weight), layer) in enumerate(zip(weights.items(), layers, strict=True)):

        def packed(number: int = number, weight: Tensor = weight, layer: str = layer) -> dict[str, Tensor]:
            found = _Codes(weight.flatten(1).double(), min(groups, len(weight)), 2**bits)
            if layer in moments:
                held = moments[layer].to(found.rows)
                found.learn(held if held.ndim == 3 else held[None], rounds, progress, f"layer-{number}-round")
            books = {"indices": pack(found.indices, bits), "codebooks": found.books.float()}
            return {**books, "groups": pack(found.owner, _bits_for(len(found.books)))}

        for part, value in progress.part(f"layer-{number}", packed).items():
            tensors[f"{name}:{part}"] = value.to(weight.device)
        progress.forget(f"layer-{number}-round")
    stored = Stored("codebook", tensors, {"bits": bits, "weights": list(weights), "rough": list(rough)})
    if batches is None:
        return stored
    network = stored.build(copy.deepcopy(model))
    if refresh_in_parts(network, batches(), progress, "statistics"):
        state = network.state_dict()
        tensors |= {name: state[name].clone() for name in tensors if name in state}
    return stored


class _Codes:
    """A weight as codebooks and indices, which can be made better for the inputs that there are.

    Attributes:
        rows: the weight itself `[out, d]`.
        owner: group of each row.
        books: `[groups, codes]`, ascending.
        indices: `[out, d]`.
    """

    def __init__(self, rows: Tensor, groups: int, codes: int) -> None:
        self.rows = rows
        order = rows.square().mean(1).argsort(stable=True)
        self.owner = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
        # Cut where k-means cuts the logarithms of their scales.
        scales = rows[order].square().mean(1).clamp_min(1e-30).log()
        self.owner[order] = _nearest(scales, _centres(scales, groups))
        used = self.owner.unique()
        self.owner = torch.searchsorted(used, self.owner)
        books = [_centres(rows[self.owner == group].flatten(), codes) for group in range(len(used))]
        self.books = torch.stack(books)
        self.indices = torch.stack(
            [_nearest(row, book) for row, book in zip(rows, self.books[self.owner], strict=True)]
        )

    def quantised(self) -> Tensor:
        return self.books[self.owner].gather(1, self.indices)

    def loss(self, moments: Tensor) -> float:
        """Mean squared change of the layer's output, for the second moments of its inputs `[blocks, d, d]`."""
        error = _blocks(self.quantised() - self.rows, len(moments))
        return float(((error @ moments) * error).sum())

    def learn(self, moments: Tensor, rounds: int, progress: Progress, name: str) -> None:
        begun, still = 0, False
        if (kept := progress.load(name)) is not None:
            self.books, self.indices = kept.tensors["books"].to(self.rows), kept.tensors["indices"].to(self.rows.device)
            begun, still = kept.told["round"], kept.told["still"]
        for number in range(begun, rounds):
            if still:
                break
            self.move_values(moments)
            still = not self.move_indices(moments)
            if progress.due():
                progress.save(
                    name, {"books": self.books, "indices": self.indices}, {"round": number + 1, "still": still}
                )
        self.move_values(moments)

    def move_values(self, moments: Tensor) -> None:
        """The codebooks with the least loss for the indices that there are: least squares, K x K for each group."""
        codes = self.books.shape[1]
        blocks = len(moments)
        block = torch.arange(len(self.rows), device=self.rows.device) // (len(self.rows) // blocks)
        for group in range(len(self.books)):
            normal = self.rows.new_zeros(codes, codes)
            right = self.rows.new_zeros(codes)
            for row in (self.owner == group).nonzero().flatten().tolist():
                held = moments[block[row]]
                weighted = held.new_zeros(len(held), codes).index_add_(1, self.indices[row], held)
                normal.index_add_(0, self.indices[row], weighted)
                right += weighted.T @ self.rows[row]
            # Values that no weight takes, or whose inputs are all zero, stay where they are.
            ridge = 1e-10 * normal.diagonal().max().clamp_min(1e-30)
            change = right - normal @ self.books[group]
            normal = normal + ridge * torch.eye(codes, dtype=normal.dtype, device=normal.device)
            moved = self.books[group] + torch.linalg.solve(normal, change)
            order = moved.argsort(stable=True)
            self.books[group] = moved[order]
            inverse = torch.empty_like(order)
            inverse[order] = torch.arange(codes, device=order.device)
            rows = self.owner == group
            self.indices[rows] = inverse[self.indices[rows]]

    def move_indices(self, moments: Tensor) -> int:
        """Moves indices to a neighbour in the codebook where that lowers the loss, one input after the other.

        Returns:
            How many have moved.
        """
        blocks, d = moments.shape[:2]
        codes = self.books.shape[1]
        books = self.books[self.owner]
        error = _blocks(self.quantised() - self.rows, blocks)
        slope = error @ moments  # half the gradient; kept up to date with every move
        moved = 0
        for j in range(d):
            now = books.gather(1, self.indices[:, j : j + 1])
            near = torch.stack([self.indices[:, j] - 1, self.indices[:, j] + 1], 1)
            steps = books.gather(1, near.clamp(0, codes - 1)) - now
            curvature = moments[:, j, j].repeat_interleave(len(self.rows) // blocks)[:, None]
            gain = 2 * steps * slope[..., j].reshape(-1, 1) + steps.square() * curvature
            best, which = gain.min(1)
            moves = best < -1e-12 * curvature[:, 0] * now[:, 0].square() - 1e-30
            step = torch.where(moves, steps.gather(1, which[:, None])[:, 0], 0.0)
            self.indices[:, j] = torch.where(moves, near.gather(1, which[:, None])[:, 0], self.indices[:, j])
            slope += step.view(blocks, -1, 1) * moments[:, None, j]
            moved += int(moves.sum())
        return moved


def _blocks(rows: Tensor, blocks: int) -> Tensor:
    return rows.view(blocks, -1, rows.shape[1])


def _centres(values: Tensor, count: int) -> Tensor:
    """k-means of numbers, from their quantiles on; `[count]`, ascending."""
    places = (2 * torch.arange(count, device=values.device) + 1) * len(values) // (2 * count)
    centres = values.sort().values[places]
    for _ in range(25):
        nearest = _nearest(values, centres)
        sums = torch.zeros_like(centres).index_add_(0, nearest, values)
        sizes = torch.bincount(nearest, minlength=count)
        moved = torch.where(sizes > 0, sums / sizes.clamp_min(1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres.sort().values


def _nearest(values: Tensor, centres: Tensor) -> Tensor:
    """The nearest of ascending numbers."""
    return torch.searchsorted((centres[1:] + centres[:-1]) / 2, values.contiguous())


def _bits_for(count: int) -> int:
    return max(1, (count - 1).bit_length())


@form("codebook")
def codebook_form(
    model: nn.Module, tensors: Mapping[str, Tensor], bits: int = 3, weights: Any = (), rough: Any = ()
) -> nn.Module:
    """Weights as indices into the codebook of their row's group, and some as whole numbers of eight bits."""

    def decode(name: str, shape: torch.Size) -> Tensor:
        if name in rough:
            return whole_numbers(tensors, name, shape, 8)
        books = part_of(tensors, f"{name}:codebooks")
        owner = unpack(part_of(tensors, f"{name}:groups"), _bits_for(len(books)), shape[0])
        indices = unpack(part_of(tensors, f"{name}:indices"), bits, shape.numel()).view(shape[0], -1)
        if books.ndim != 2 or books.shape[1] != 2**bits or int(owner.max()) >= len(books):
            raise CheckpointError(f"{name} has codebooks of {list(books.shape)}, which its indices do not fit")
        return books[owner].gather(1, indices).view(shape)

    parts = ("indices", "codebooks", "groups", "numbers", "steps")
    return decoded(model, tensors, [*weights, *rough], parts, decode)
