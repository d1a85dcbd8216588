"""Cutting a network that somebody else wrote into blocks with one tensor between each and the next.

The network's top level is traced, and every module that does the work (a residual block, a transformer block, a
convolution) stays whole, as a leaf of the trace. A cut is possible wherever exactly one tensor is still needed; that
keeps residual connections within a block. What the network does between its modules (adding positions, flattening)
goes into the block before it.
"""

from __future__ import annotations

import itertools
import re

from torch import Tensor, fx, nn

from repertoire.backbones._trace import Uncuttable, batch_of, trace

__all__ = ["Uncuttable", "cut", "head", "module_names"]

#: Class names of modules that hold a sequence of blocks.
_CONTAINER = re.compile(r"(Stage|Level|Layers?|Trunk|Encoder|Blocks)(V?\d+)?$")


def cut(model: nn.Module, example: Tensor, method: str = "forward_features") -> list[fx.GraphModule]:
    """The finest blocks whose composition is `model.forward_features`, and that each have weights to learn.

    Args:
        model: in eval mode; it shares its modules with the blocks.
        example: images that the model takes.
        method: what to cut instead of `forward_features`.

    Raises:
        Uncuttable: the model cannot be traced, or there is no place to cut.
    """
    try:
        return _cut(model, trace(model, method, example, _is_container))
    except Uncuttable as first:
        # A container that cannot be looked into can still be a block of its own.
        try:
            return _cut(model, trace(model, method, example, _is_sequence))
        except Uncuttable:
            pass
        # Nothing at the top level: look into whatever is not a layer of PyTorch.
        try:
            return _cut(model, trace(model, method, example, _is_composed))
        except Uncuttable:
            raise first from None


def head(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """`model.forward_head` up to its classifier, as a module of its own.

    Args:
        model: in eval mode; it shares its modules with the result.
        example: output of `model.forward_features`.

    Raises:
        Uncuttable: it cannot be traced.
    """
    return _module(model, trace(model, "forward_head", example, lambda module: False, pre_logits=True))


def module_names(block: nn.Module) -> list[str]:
    """The names, in the network that it was cut from, of the modules that a block calls."""
    assert isinstance(block, fx.GraphModule)
    return [str(node.target) for node in block.graph.nodes if node.op == "call_module"]


def _is_sequence(module: nn.Module) -> bool:
    """Whether a module is an `nn.Sequential`, with the forward pass of one."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _is_composed(module: nn.Module) -> bool:
    """Whether a module is somebody's own, and not a layer of PyTorch."""
    return _is_sequence(module) or not type(module).__module__.startswith("torch.nn.")


def _is_container(module: nn.Module) -> bool:
    """Whether a module looks like a sequence of blocks: by its type, by its name, or by what it holds."""
    if _is_sequence(module) or _CONTAINER.search(type(module).__name__):
        return True
    held = (getattr(module, name, None) for name in ("blocks", "layers"))
    return any(isinstance(child, nn.Sequential | nn.ModuleList) for child in held)


def _segment(model: nn.Module, entrance: fx.Node, body: list[fx.Node]) -> fx.GraphModule:
    """A stretch of a traced graph as a module of its own, which shares its modules and constants with the model.

    Raises:
        Uncuttable: the stretch needs a value from before `entrance`.
    """
    graph = fx.Graph()
    start = graph.placeholder("x")
    copies = {entrance: start}
    inside = set(body)

    def fetch(node: fx.Node) -> fx.Node:
        if node not in copies:
            if node.meta.get("batch"):
                copies[node] = batch_of(graph, start)
            elif node.op == "placeholder" or (node not in inside and _depends(node)):
                raise Uncuttable(f"{node.name} is needed on both sides of a cut")
            else:
                for argument in node.all_input_nodes:
                    fetch(argument)
                copies[node] = graph.node_copy(node, copies.__getitem__)
        return copies[node]

    for node in body:
        fetch(node)
    graph.output(copies[body[-1]])
    return _module(model, graph)


def _module(model: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    for node in graph.nodes:
        node.meta.clear()  # it holds the example's tensors
    block = fx.GraphModule(model, graph, class_name="Block")
    persistent = set(model.state_dict())
    for prefix, owner in block.named_modules():
        for name in owner._buffers:
            if (f"{prefix}.{name}" if prefix else name) not in persistent:
                owner._non_persistent_buffers_set.add(name)
    return block


def _cut(model: nn.Module, graph: fx.Graph) -> list[fx.GraphModule]:
    nodes = list(graph.nodes)
    source, result = nodes[0], nodes[-1].args[0]
    for node in nodes:
        node.meta["moving"] = node is source or any(argument.meta["moving"] for argument in node.all_input_nodes)
    chain = [n for n in nodes if n.meta["moving"] and n.op not in ("placeholder", "output") and "batch" not in n.meta]
    if result not in chain:
        raise Uncuttable("its features do not depend on the images")
    places = _places(source, chain, result)
    working = [i for i, node in enumerate(chain) if node.op == "call_module" and _works(model, str(node.target))]
    boundaries = []
    for before, after in itertools.pairwise(working):
        between = [place for place in places if before <= place < after]
        if between:
            boundaries.append(between[-1])
    if not boundaries:
        raise Uncuttable("there is no point between its modules where a single tensor carries all that is needed")
    edges = [-1, *boundaries, chain.index(result)]
    return [
        _segment(model, source if start < 0 else chain[start], chain[start + 1 : end + 1])
        for start, end in itertools.pairwise(edges)
    ]


def _places(source: fx.Node, chain: list[fx.Node], result: fx.Node) -> list[int]:
    """Positions after which the value just computed is a tensor, and the only one that is still needed."""
    position = {node: i for i, node in enumerate(chain)}

    def last_use(node: fx.Node) -> int:
        return max((position.get(user, -1) for user in node.users), default=-1)

    places, needed_until = [], last_use(source)
    for i, node in enumerate(chain[: position[result]]):
        if needed_until <= i < last_use(node) and isinstance(node.meta["value"], Tensor):
            places.append(i)
        needed_until = max(needed_until, last_use(node))
    return places


def _depends(node: fx.Node) -> bool:
    return bool(node.meta.get("moving")) and "batch" not in node.meta


def _works(model: nn.Module, target: str) -> bool:
    return any(parameter.dim() > 1 for parameter in model.get_submodule(target).parameters())
