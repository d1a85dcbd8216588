"""Which axes of a network's tensors may be permuted together without changing what it computes."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map_only

from repertoire.errors import ConfigError
from repertoire.ops import evaluating
from repertoire.weights._state import State

__all__ = ["UnitAxis", "UnitGroup", "permute_units", "units"]


@dataclass(frozen=True, eq=False)
class UnitAxis:
    """Where the units of a group stand in one tensor.

    Attributes:
        tensor: name in the state.
        axis: of the tensor.
        index: int64 `[units, k]`, the positions of each unit along the axis. k is 1, except where maps were flattened:
            there a unit is a block of columns, one for each place of the grid.
    """

    tensor: str
    axis: int
    index: Tensor


@dataclass(frozen=True, eq=False)
class UnitGroup:
    """Units that may be permuted among each other.

    Attributes:
        axes: every place that has to follow, in the order of the state.
    """

    axes: tuple[UnitAxis, ...]

    @property
    def size(self) -> int:
        """How many units there are."""
        return len(self.axes[0].index)

    def __repr__(self) -> str:
        places = ", ".join(f"{place.tensor}:{place.axis}" for place in self.axes)
        return f"UnitGroup({self.size} units of {places})"


def units(model: nn.Module, example: Tensor) -> list[UnitGroup]:
    """The units of a network in groups: in each, any permutation of them leaves the network's outputs as they are.

    A unit is a channel of a convolution or a neuron of a linear layer, with all that has to move with it: its row of
    weights, its entries in the normalisation, its columns in every layer that reads it. What a residual stream adds up
    is one group; where a shortcut pads channels with zeros, the channels that it carries and those that it pads are
    two. Channels of the input and of the output are in no group.

    The forward pass is traced once, in evaluation mode and without memory for its values, down to single operations.
    So it does not matter how the network was written. Operations whose meaning for single channels is not known, such
    as the inside of attention or convolutions in groups, keep the units that they touch where they are.

    Args:
        model: takes one tensor. It is left as it was.
        example: a batch of two or more inputs, on the device of the model; only its shape matters.

    Returns:
        The groups of two units and more, by their first tensor in the state.

    Raises:
        ConfigError: the forward pass cannot be traced, because it depends on values in its input.

    Example:
        >>> import torch
        >>> from repertoire.backbones import MLP
        >>> from repertoire.weights import units
        >>> net = torch.nn.Sequential(MLP(1, 8, hidden=16), torch.nn.Linear(16, 3))
        >>> first, second = units(net, torch.zeros(2, 1, 8, 8))
        >>> first.size, [(place.tensor, place.axis) for place in first.axes][-1]
        (16, ('0.blocks.1.linear.weight', 1))
        >>> [(place.tensor, place.axis) for place in second.axes][-1]
        ('1.weight', 1)
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # imports a compiler, which takes seconds

    # Of tied tensors the first name takes part, and the others follow it.
    names: dict[int, list[str]] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor):
            names.setdefault(id(tensor), []).append(name)
            tensors.setdefault(names[id(tensor)][0], tensor)

    def forward(state: dict[str, Tensor], inputs: Tensor) -> Any:
        return functional_call(model, state, (inputs,))

    try:
        with evaluating(model), torch.no_grad():
            graph = make_fx(forward, tracing_mode="fake", _allow_non_fake_inputs=True)(tensors, example).graph
    except Exception as error:  # the network's own code runs here and may fail in any way
        line = str(error).strip().split("\n", 1)[0][:160]
        raise ConfigError(
            f"the units of {type(model).__name__} cannot be found: its forward pass cannot be traced "
            f"({type(error).__name__}: {line})"
        ) from error
    flow = _Flow()
    roots = flow.run(graph, tensors)
    signatures = flow.signatures()
    found: dict[tuple[Any, ...], dict[tuple[str, int], list[list[int]]]] = {}
    places: dict[int, dict[tuple[str, int], list[int]]] = defaultdict(lambda: defaultdict(list))
    for first, axes in roots.items():
        for name in names[id(tensors[first])]:
            for axis, labels in enumerate(axes):
                for position, root in enumerate(labels.tolist()):
                    if root != _FIXED:
                        places[root][name, axis].append(position)
    for root, where in places.items():
        key = (*((name, axis, len(index)) for (name, axis), index in where.items()), *signatures[root])
        group = found.setdefault(key, {place: [] for place in where})
        for place, index in where.items():
            group[place].append(index)
    return [
        UnitGroup(tuple(UnitAxis(name, axis, torch.tensor(index)) for (name, axis), index in group.items()))
        for group in found.values()
        if len(next(iter(group.values()))) > 1
    ]


@torch.no_grad()
def permute_units(
    state: State, groups: Sequence[UnitGroup], permutations: Sequence[Tensor | None]
) -> dict[str, Tensor]:
    """The state of the same network with its units in another order.

    Args:
        state: of the network that the groups are of.
        groups: as :func:`units` gives them.
        permutations: for each group an int64 `[units]`: unit i of the result is unit `permutation[i]` of the state.
            None leaves a group as it is.

    Returns:
        New tensors.

    Raises:
        ConfigError: there are not as many permutations as groups, or one is no permutation of the group's units.

    Example:
        >>> import torch
        >>> from repertoire.weights import permute_units, units
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> x = torch.randn(5, 3)
        >>> before = net(x)
        >>> net.load_state_dict(permute_units(net.state_dict(), units(net, x), [torch.tensor([2, 0, 3, 1])]))
        <All keys matched successfully>
        >>> torch.allclose(net(x), before, atol=1e-5)
        True
    """
    if len(permutations) != len(groups):
        raise ConfigError(f"permutations are {len(permutations)}, and the network has {len(groups)} groups of units")
    orders: dict[tuple[str, int], Tensor] = {}
    for number, (group, permutation) in enumerate(zip(groups, permutations, strict=True)):
        if permutation is None:
            continue
        permutation = permutation.cpu()
        if permutation.shape != (group.size,) or not torch.equal(permutation.sort().values, torch.arange(group.size)):
            raise ConfigError(f"permutations[{number}] is no permutation of the {group.size} units of its group")
        for place in group.axes:
            if place.tensor in state:
                key = place.tensor, place.axis
                if key not in orders:
                    orders[key] = torch.arange(state[place.tensor].shape[place.axis])
                orders[key][place.index.flatten()] = place.index[permutation].flatten()
    moved: dict[str, Tensor] = {}
    for name in state:
        tensor = state[name].clone()
        for axis in range(tensor.dim()):
            order = orders.get((name, axis))
            if order is not None:
                tensor = tensor.index_select(axis, order.to(tensor.device))
        moved[name] = tensor
    return moved


_FIXED = 0
"""The label of what stays where it is."""
_ZERO = -1
"""The label of a channel of zeros, which any unit may be added to."""
_ANY = -2
"""The label of every position along an axis on which a value does not change."""

Labels = list[np.ndarray]
"""For each axis of a value, the label of every position along it."""

#: Operations of single elements that leave a zero as it is.
_KEEP_ZERO = {"relu", "gelu", "silu", "tanh", "neg", "mul", "clone", "_to_copy", "alias", "detach"}
_SAME = {"clone", "_to_copy", "alias", "detach", "lift_fresh_copy", "contiguous"}
_NORMS = {"native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"}
_REDUCTIONS = {"mean", "sum", "amax", "amin", "linalg_vector_norm", "norm", "var", "std", "logsumexp", "any", "all"}
_POOLS = {
    "max_pool2d_with_indices",
    "avg_pool2d",
    "_adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "upsample_nearest2d",
    "upsample_bilinear2d",
}
_SOFTMAX = {"_softmax", "_log_softmax"}


class _Flow:
    """Follows labels through a graph of operations; whatever an operation makes equal gets one label.

    Labels are nodes of a forest (union-find), one for each position along each axis of each tensor of the state.
    """

    def __init__(self) -> None:
        self.parents = [_FIXED]
        self.values: dict[fx.Node, Any] = {}

    def run(self, graph: fx.Graph, tensors: dict[str, Tensor]) -> dict[str, Labels]:
        """Goes through the graph, whose first inputs are the tensors, and returns the labels of these."""
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        state = {name: self.fresh(tensor) for name, tensor in tensors.items()}
        for node, labels in zip(inputs, [*state.values(), None], strict=True):
            self.values[node] = self.fixed(node) if labels is None else labels
        for node in graph.nodes:
            if node.op == "call_function":
                self.values[node] = self.apply(node)
            elif node.op == "output":
                for found in self.operands(node):
                    self.fix(found)
            elif node.op != "placeholder":
                self.values[node] = self.fixed(node)
        return {name: [self.find(axis) for axis in labels] for name, labels in state.items()}

    def signatures(self) -> dict[int, tuple[tuple[int, int, int], ...]]:
        """For each label, how often it stands along each axis of each value: what differs there is not exchangeable."""
        found: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for number, value in enumerate(self.values.values()):
            for axis, labels in enumerate(value if _is_labels(value) else ()):
                if labels.max(initial=_FIXED) == _FIXED:
                    continue
                roots, counts = np.unique(self.find(labels), return_counts=True)
                for root, count in zip(roots.tolist(), counts.tolist(), strict=True):
                    if root > _FIXED:
                        found[root].append((number, axis, count))
        return defaultdict(tuple, {root: tuple(where) for root, where in found.items()})

    # The forest.

    def fresh(self, tensor: Tensor) -> Labels:
        labels = []
        for size in tensor.shape:
            start = len(self.parents)
            self.parents.extend(range(start, start + size))
            labels.append(np.arange(start, start + size))
        return labels

    def root(self, label: int) -> int:
        parents = self.parents
        while parents[label] != label:
            parents[label] = parents[parents[label]]
            label = parents[label]
        return label

    def find(self, labels: np.ndarray) -> np.ndarray:
        return np.array([label if label <= _FIXED else self.root(label) for label in labels.tolist()], dtype=np.int64)

    def join(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """What stands at the same position is one; the labels of the result."""
        differ = (first != second) & (first >= _FIXED) & (second >= _FIXED)
        for a, b in zip(first[differ].tolist(), second[differ].tolist(), strict=True):
            low, high = sorted((self.root(a), self.root(b)))
            self.parents[high] = low  # what is joined with the fixed label, the lowest, is fixed
        return np.maximum(first, second)  # equal by now, save that anything is more than a zero, and that than any

    def fix(self, labels: Labels) -> None:
        for axis in labels:
            self.join(axis, np.full(len(axis), _FIXED))

    # Operations.

    def operands(self, node: fx.Node) -> list[Labels]:
        """The labels of all tensors that a node takes."""
        flat: list[Labels] = []
        for argument in node.all_input_nodes:
            value = self.values[argument]
            flat.extend([value] if _is_labels(value) else value)
        return flat

    def fixed(self, node: fx.Node) -> Any:
        return tree_map_only(Tensor, lambda value: _still(value.shape), node.meta.get("val", []))

    def apply(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            source, number = node.args
            return self.values[source][number]  # type: ignore[index]
        packet = getattr(node.target, "overloadpacket", node.target)
        name = str(getattr(packet, "__name__", packet))
        rule = _RULES.get(name)
        if rule is None:
            tags = getattr(node.target, "tags", ())
            rule = _pointwise if name in _SAME or torch.Tag.pointwise in tags else None
        args = [self.values[a] if isinstance(a, fx.Node) else a for a in node.args]
        result = None if rule is None else rule(self, node, name, args)
        if result is not None:
            return result
        for labels in self.operands(node):  # nothing is known of it
            self.fix(labels)
        return self.fixed(node)

    def broadcast(self, operands: Iterable[Labels]) -> Labels:
        """The labels of what elementwise operations make of several values."""
        operands = list(operands)
        result: Labels = []
        for place in range(-max(map(len, operands)), 0):
            axes = [labels[place] for labels in operands if len(labels) >= -place]
            wide = [axis for axis in axes if len(axis) != 1] or axes[:1]
            joined = wide[0]
            for axis in wide[1:]:
                joined = self.join(joined, axis)
            result.append(joined)
        return result


def _is_labels(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(axis, np.ndarray) for axis in value)


def _still(shape: Sequence[int]) -> Labels:
    return [np.full(int(size), _FIXED) for size in shape]


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _settled(labels: Labels, kind: int = _ZERO) -> Labels:
    """Zeros that are none any more, or what is beside other things now."""
    return [np.where(axis == kind, _FIXED, axis) for axis in labels]


def _pointwise(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    operands = flow.operands(node)
    adds = name in ("add", "sub") and all(isinstance(argument, fx.Node) for argument in node.args[:2])
    if not operands:
        return flow.fixed(node)
    return flow.broadcast(operands if adds or name in _KEEP_ZERO else map(_settled, operands))


def _convolution(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    x, weight, bias, transposed, count = args[0], args[1], args[2], args[6], args[8]
    flow.fix(weight[2:])
    if count == 1:
        ins, outs = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
        flow.join(x[1], ins)
    elif count == len(x[1]) == len(weight[0]) and not transposed:
        outs = flow.join(x[1], weight[0])
    else:
        return None
    if bias is not None:
        outs = flow.join(outs, bias[0])
    return [x[0], outs, *_still(_shape(node)[2:])]


def _batch_norm(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    x, channels = args[0], args[0][1]
    for labels in args[1:5]:
        if labels is not None and _is_labels(labels):
            channels = flow.join(channels, labels[0])
    return _and_rest(flow, node, [x[0], channels, *x[2:]])


def _layer_norm(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    x, shape = args[0], args[1]
    last = x[-len(shape) :]
    for labels in args[2:4]:
        if labels is not None:
            last = [flow.join(a, b) for a, b in zip(last, labels, strict=True)]
    return _and_rest(flow, node, [*x[: -len(shape)], *last])


def _group_norm(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    x, count = args[0], args[6]
    if count not in (1, len(x[1])):
        return None
    channels = x[1]
    for labels in args[1:3]:
        if labels is not None:
            channels = flow.join(channels, labels[0])
    return _and_rest(flow, node, [x[0], channels, *x[2:]])


def _and_rest(flow: _Flow, node: fx.Node, first: Labels) -> list[Any]:
    """The labels of an operation that gives statistics beside its result."""
    return [first, *flow.fixed(node)[1:]]


def _product(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    added = args.pop(0) if name in ("addmm", "baddbmm", "addmv") else None
    first, second = args[:2]
    batch = [flow.join(first[0], second[0])] if len(first) == 3 else []
    flow.join(first[-1], second[-2] if len(second) > 1 else second[0])
    result = [*batch, *first[len(batch) : -1], *second[len(batch) + 1 :]]
    return result if added is None else flow.broadcast([result, added])


def _reduced(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    x, shape = args[0], _shape(node) if isinstance(node.meta["val"], Tensor) else None
    if shape is None:
        return None
    given = [a for a in (*args[1:], *node.kwargs.values()) if isinstance(a, list | tuple)]
    number = len(args) > 1 and isinstance(args[1], int) and not isinstance(args[1], bool)
    if name in ("linalg_vector_norm", "norm"):
        number = False  # the number is the order of the norm
    dims = {dim % len(x) for dim in ([args[1]] if number else given[0] if given else range(len(x)))}
    if len(shape) == len(x):
        return [np.full(1, _FIXED) if dim in dims else axis for dim, axis in enumerate(x)]
    return [axis for dim, axis in enumerate(x) if dim not in dims]


def _pooled(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    x, found = args[0], node.meta["val"]
    flow.fix(x[-2:])
    several = not isinstance(found, Tensor)
    labels = [*x[:-2], *_still((found[0] if several else found).shape[-2:])]
    return _and_rest(flow, node, labels) if several else labels


def _softmax(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    return _settled(args[0])


def _moved(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    x = args[0]
    if name == "t":
        return x[::-1]
    if name == "permute":
        return [x[dim] for dim in args[1]]
    if name == "transpose":
        order = list(range(len(x)))
        a, b = args[1] % len(x), args[2] % len(x)
        order[a], order[b] = order[b], order[a]
        return [x[dim] for dim in order]
    if name == "unsqueeze":
        dim = args[1] % (len(x) + 1)
        return [*x[:dim], np.full(1, _FIXED), *x[dim:]]
    return None


def _expanded(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    shape = _shape(node)
    padded = [np.full(1, _FIXED)] * (len(shape) - len(args[0])) + args[0]
    return [axis if len(axis) == size else np.full(size, _ANY) for axis, size in zip(padded, shape, strict=True)]


def _viewed(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    """Another shape: axes that are taken together keep their labels where one of them at most has any."""
    x, shape = args[0], _shape(node)
    result: Labels = []
    for old, new in _segments([len(axis) for axis in x], shape):
        axes = [x[dim] for dim in old]
        free = [axis for axis in axes if len(axis) > 1 and (flow.find(axis) > _FIXED).any()]
        wide = [size for size in new if size > 1]
        if len(free) == 1 and len(wide) == 1:
            place = next(number for number, axis in enumerate(axes) if axis is free[0])
            before = int(np.prod([len(axis) for axis in axes[:place]]))
            after = int(np.prod([len(axis) for axis in axes[place + 1 :]]))
            together = np.tile(np.repeat(free[0], after), before)
            result.extend(together if size > 1 else np.full(1, _FIXED) for size in new)
        else:
            flow.fix(free)
            result.extend(_still(new))
    return result


def _segments(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Runs of axes with equal products: the numbers of the old axes, and the sizes of the new ones."""
    found, a, b = [], 0, 0
    while a < len(old) or b < len(new):
        mine, theirs = [a] if a < len(old) else [], [new[b]] if b < len(new) else []
        a, b = a + len(mine), b + len(theirs)
        p, q = int(np.prod([old[dim] for dim in mine])), int(np.prod(theirs))
        while p != q:
            if p < q:
                mine.append(a)
                p, a = p * old[a], a + 1
            else:
                theirs.append(new[b])
                q, b = q * new[b], b + 1
        found.append((mine, theirs))
    return found


def _sliced(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    x = list(args[0])
    given = dict(zip(("dim", "start", "end", "step"), args[1:], strict=False))
    dim = given.pop("dim", 0)
    x[dim] = x[dim][slice(given.get("start"), given.get("end"), given.get("step"))]
    return x


def _selected(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    x, dim = args[0], (args[1] if len(args) > 1 else 0) % len(args[0])
    flow.fix([x[dim]])
    rest = [*x[:dim], *x[dim + 1 :]]
    return rest if name == "select" else [rest] * len(x[dim])


def _split(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    x, dim = args[0], (args[2] if len(args) > 2 else 0) % len(args[0])
    ends = np.cumsum([0, *(value.shape[dim] for value in node.meta["val"])]).tolist()
    return [[*x[:dim], x[dim][start:end], *x[dim + 1 :]] for start, end in pairwise(ends)]


def _joined(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    parts = [flow.values[part] for part in node.args[0]]  # type: ignore[union-attr, index]
    dim = (args[1] if len(args) > 1 else 0) % len(parts[0])
    rest = flow.broadcast([[np.full(1, _FIXED) if i == dim else a for i, a in enumerate(p)] for p in parts])
    rest[dim] = np.concatenate(_settled([part[dim] for part in parts], _ANY))
    return rest


def _padded(flow: _Flow, node: fx.Node, name: str, args: list[Any]) -> Any:
    x, widths = _settled(args[0], _ANY), args[1]
    label = _ZERO if len(args) < 3 or args[2] == 0 else _FIXED
    for number in range(len(widths) // 2):
        before, after, dim = widths[2 * number], widths[2 * number + 1], len(x) - 1 - number
        if before < 0 or after < 0:
            return None
        x[dim] = np.concatenate([np.full(before, label), x[dim], np.full(after, label)])
    return x


Rule = Callable[[_Flow, fx.Node, str, list[Any]], Any]
"""The labels of a node's value from those of its arguments, or None where they cannot be told."""

_RULES: dict[str, Rule] = {
    "convolution": _convolution,
    **dict.fromkeys(_NORMS, _batch_norm),
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    **dict.fromkeys(("mm", "bmm", "mv", "addmm", "baddbmm", "addmv"), _product),
    **dict.fromkeys(_REDUCTIONS, _reduced),
    **dict.fromkeys(_POOLS, _pooled),
    **dict.fromkeys(_SOFTMAX, _softmax),
    **dict.fromkeys(("t", "permute", "transpose", "unsqueeze"), _moved),
    "expand": _expanded,
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "squeeze"), _viewed),
    "slice": _sliced,
    **dict.fromkeys(("select", "unbind"), _selected),
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    "cat": _joined,
    "constant_pad_nd": _padded,
}
