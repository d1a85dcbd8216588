"""Symbolic tracing of a network's top level, with shapes known.

Like `torch.fx`, but an example runs along: what the network asks of a tensor's shape is answered with numbers, so that
the control flow and the reshapes that depend on it can be followed. Only the batch size stays symbolic.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

__all__ = ["Uncuttable", "batch_of", "trace"]


class Uncuttable(Exception):
    """The network is not a composition of blocks, or cannot be traced."""


def batch_of(graph: fx.Graph, tensor: fx.Node) -> fx.Node:
    """A node that gives the batch size of a tensor, marked as such."""
    node = graph.call_method("size", (tensor, 0))
    node.meta["batch"] = True
    return node


def trace(
    model: nn.Module, method: str, example: Tensor, enter: Callable[[nn.Module], bool], **arguments: Any
) -> fx.Graph:
    """The graph of `model.method(x, **arguments)`, whose leaves are the modules that `enter` says no to.

    The value that each node has for the example is left in `node.meta["value"]`.

    Raises:
        Uncuttable: what the network does depends on the values in its input, or its output is not one tensor.
    """
    entry = _Entry(model, method, arguments)
    try:
        graph = _Tracer(entry, example, enter).trace(entry)
    except Exception as error:  # the network's own code runs here, on proxies, and may fail in any way
        raise Uncuttable(f"its forward pass cannot be traced ({type(error).__name__}: {_line(error)})") from error
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            name = str(node.target)
            if name.startswith("model."):
                node.target = name.removeprefix("model.")
            else:  # a tensor that the network made while it was traced: it lives on the entry
                node.target = _adopt(model, getattr(entry, name))
    for node in reversed(list(graph.nodes)):  # questions about shapes that have been answered
        if node.op in ("call_function", "call_method", "get_attr") and not node.users:
            graph.erase_node(node)
    output = next(node for node in graph.nodes if node.op == "output").args[0]
    if not isinstance(output, fx.Node) or not isinstance(output.meta["value"], Tensor):
        raise Uncuttable("its features are not one tensor")
    return graph


class _Entry(nn.Module):
    """Traces one method of a model as if it were `forward`, with the other arguments fixed."""

    def __init__(self, model: nn.Module, method: str, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.method = method
        self.arguments = arguments

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.model, self.method)(x, **self.arguments)


class _Proxy(fx.Proxy):
    def __getattr__(self, name: str) -> Any:
        value = self.node.meta.get("value")
        if isinstance(value, Tensor):
            if name == "shape":
                return self.size()
            if name == "ndim":
                return value.dim()
        return super().__getattr__(name)

    def size(self, dim: int | None = None) -> Any:
        value: Tensor = self.node.meta["value"]
        if dim is None:
            return (self.size(0), *value.shape[1:])
        if dim % value.dim():
            return value.shape[dim]
        node = batch_of(self.tracer.graph, self.node)
        node.meta["value"] = value.shape[0]
        return _Proxy(node, self.tracer)

    def dim(self) -> int:
        return self.node.meta["value"].dim()


class _Tracer(fx.Tracer):
    def __init__(self, entry: nn.Module, example: Tensor, enter: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.entry = entry
        self.example = example
        self.enter = enter
        self.running = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not self.enter(m)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def iter(self, obj: Any) -> Iterator[Any]:
        value = obj.node.meta.get("value")
        if isinstance(value, Tensor | tuple | list):
            return iter([obj[i] for i in range(len(value))])
        return super().iter(obj)

    # While the tracer works, torch's own calls of modules and looks at their parameters come here, the example's too.
    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self.running else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta["value"] = self._value(node)
        return node

    def create_proxy(self, *args: Any, **kwargs: Any) -> Any:
        proxy = super().create_proxy(*args, **kwargs)
        value = proxy.node.meta["value"]
        # A number is as good as its proxy, and can decide an `if`; but what comes of the batch size is no constant.
        batch = any("batch" in argument.meta for argument in proxy.node.all_input_nodes)
        return value if _is_constant(value) and not batch else proxy

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self.example
        if node.op == "output":
            return None
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda argument: argument.meta["value"])
        self.running = True
        try:
            with torch.no_grad():
                if node.op == "call_function":
                    return node.target(*args, **kwargs)  # type: ignore[operator]
                if node.op == "call_method":
                    return getattr(args[0], str(node.target))(*args[1:], **kwargs)
                found = operator.attrgetter(str(node.target))(self.entry)
                return found if node.op == "get_attr" else found(*args, **kwargs)
        finally:
            self.running = False


def _is_constant(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_constant(item) for item in value)
    return isinstance(value, int | float | str) or value is None


def _adopt(model: nn.Module, value: Tensor) -> str:
    """Gives a tensor that the tracer met a place on the model."""
    if value.requires_grad:
        raise Uncuttable("it computes a tensor from its parameters outside its modules")
    for name, buffer in model.named_buffers(recurse=False):
        if buffer is value:
            return name
    name = next(name for name in map("constant{}".format, range(10_000)) if not hasattr(model, name))
    model.register_buffer(name, value, persistent=False)
    return name


def _line(error: BaseException) -> str:
    """The first line of an error's message, shortened."""
    text = str(error).strip().split("\n", 1)[0]
    return text if len(text) <= 160 else text[:157] + "..."
