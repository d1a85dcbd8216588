"""Cutting a network that somebody else wrote into blocks with one tensor between each and the next.

The network's top level is traced symbolically, and every module that does the work (a residual block, a transformer
block, a convolution) stays whole, as a leaf of the trace. A cut is possible wherever exactly one value is alive; that
keeps residual connections within a block. What the network does between its modules (adding positions, flattening)
goes into the block before it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, fx, nn

__all__ = ["Uncuttable", "cut", "trace"]

#: Class names of modules that hold a sequence of blocks, and may be entered.
_CONTAINER = re.compile(r"(Stage|Level|Layers?|Trunk|Encoder|Blocks)(V?\d+)?$")


class Uncuttable(Exception):
    """The network is not a composition of blocks, or cannot be traced."""


class _Entry(nn.Module):
    """Traces one method of a model as if it were `forward`, with the other arguments at their defaults."""

    def __init__(self, model: nn.Module, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.model, x)


class _Tracer(fx.Tracer):
    def __init__(self, enter: Callable[[nn.Module], bool]) -> None:
        super().__init__(param_shapes_constant=True)
        self.enter = enter

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not self.enter(m)


def is_sequence(module: nn.Module) -> bool:
    """Whether a module is an `nn.Sequential` with the forward pass of one."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def is_container(module: nn.Module) -> bool:
    """Whether a module looks like a sequence of blocks: by its type, by its name, or by what it holds."""
    if is_sequence(module) or _CONTAINER.search(type(module).__name__):
        return True
    return any(name in ("blocks", "layers") and isinstance(child, nn.Sequential | nn.ModuleList)
               for name, child in module.named_children())


def trace(
    model: nn.Module, function: Callable[[nn.Module, Tensor], Tensor], enter: Callable[[nn.Module], bool]
) -> fx.Graph:
    """The graph of `function(model, x)`, whose leaves are the modules that `enter` says no to.

    Raises:
        Uncuttable: what the network does depends on its input, or its output is not one tensor.
    """
    entry = _Entry(model, function)
    inside = {id(entry)}
    try:
        graph = _Tracer(lambda module: id(module) in inside or enter(module)).trace(entry)
    except Exception as error:  # the network's own code runs here, on proxies, and may fail in any way
        raise Uncuttable(f"its forward pass cannot be traced ({type(error).__name__}: {_line(error)})") from error
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            name = str(node.target)
            if name.startswith("model."):
                node.target = name.removeprefix("model.")
            else:  # a constant that the tracer met: it lives on the entry
                _adopt(model, name, getattr(entry, name))
    output = next(node for node in graph.nodes if node.op == "output")
    if not isinstance(output.args[0], fx.Node):
        raise Uncuttable("its features are not one tensor")
    return graph


def cut(model: nn.Module, graph: fx.Graph) -> list[fx.GraphModule]:
    """The finest blocks of a traced network that each have weights to learn.

    Raises:
        Uncuttable: there is no place to cut.
    """
    nodes = list(graph.nodes)
    source = next(node for node in nodes if node.op == "placeholder")
    result = nodes[-1].args[0]
    moving = _dependents(nodes, source)
    chain = [node for node in nodes if node in moving and node.op != "output"]
    places = _places(chain, result)
    working = [i for i, node in enumerate(chain) if node.op == "call_module" and _works(model, str(node.target))]
    if not working:
        raise Uncuttable("none of its modules has weights")
    boundaries = []
    for before, after in itertools.pairwise(working):
        between = [place for place in places if before <= place < after]
        if between:
            boundaries.append(between[-1])
    if not boundaries:
        raise Uncuttable("more than one tensor is alive between any two of its blocks")
    edges = [-1, *boundaries, chain.index(result)]
    blocks = []
    for start, end in itertools.pairwise(edges):
        entrance = source if start < 0 else chain[start]
        blocks.append(_segment(model, entrance, chain[start + 1 : end + 1], moving))
    return blocks


def _dependents(nodes: list[fx.Node], source: fx.Node) -> set[fx.Node]:
    """The nodes whose value depends on the input."""
    found = {source}
    for node in nodes:
        if any(argument in found for argument in node.all_input_nodes):
            found.add(node)
    return found - {source}


def _places(chain: list[fx.Node], result: fx.Node) -> list[int]:
    """Positions after which the value just computed is the only one that is still needed."""
    position = {node: i for i, node in enumerate(chain)}
    last_use = [max([position.get(user, len(chain)) for user in node.users], default=-1) for node in chain]
    places, needed_until = [], -1
    for i in range(position[result]):
        if needed_until <= i < last_use[i]:
            places.append(i)
        needed_until = max(needed_until, last_use[i])
    return places


def _works(model: nn.Module, target: str) -> bool:
    return any(parameter.dim() > 1 for parameter in model.get_submodule(target).parameters())


def _segment(model: nn.Module, entrance: fx.Node, body: list[fx.Node], moving: set[fx.Node]) -> fx.GraphModule:
    """A module of its own from a stretch of the graph, with the constants that the stretch needs."""
    graph = fx.Graph()
    copies = {entrance: graph.placeholder("x")}

    def copy(node: fx.Node) -> fx.Node:
        if node not in copies:
            if node in moving or node.op == "placeholder":
                raise Uncuttable(f"{node.name} is needed on both sides of a cut")
            for argument in node.all_input_nodes:
                copy(argument)
            copies[node] = graph.node_copy(node, copies.__getitem__)
        return copies[node]

    for node in body:
        for argument in node.all_input_nodes:
            copy(argument)
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[body[-1]])
    block = fx.GraphModule(model, graph, class_name="Block")
    saved = set(model.state_dict())
    for owner, name, path in _buffers(block):
        if path not in saved:
            owner._non_persistent_buffers_set.add(name)
    return block


def _buffers(module: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    for prefix, owner in module.named_modules():
        for name in owner._buffers:
            yield owner, name, f"{prefix}.{name}" if prefix else name


def _adopt(model: nn.Module, name: str, value: Tensor) -> None:
    if not hasattr(model, name):
        model.register_buffer(name, value.detach(), persistent=False)


def _line(error: BaseException) -> str:
    """The first line of an error's message, shortened."""
    text = str(error).strip().split("\n", 1)[0]
    return text if len(text) <= 160 else text[:157] + "..."
