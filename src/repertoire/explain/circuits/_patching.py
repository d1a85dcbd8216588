"""Patching, measured and estimated: the parts of a network that make the difference between two inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError, ShapeError, UnknownName
from repertoire.explain._explainer import moved, undisturbed
from repertoire.explain._frozen import frozen
from repertoire.explain._relevance import Relevance

__all__ = ["activation_patching", "estimated_patching"]

Metric = Callable[[Any], Tensor]


def activation_patching(
    model: nn.Module,
    inputs: Tensor,
    corrupted: Tensor,
    metric: Metric,
    components: Sequence[str],
    *,
    axis: int | None = None,
) -> dict[str, Tensor]:
    r"""Measures the change of the outcome when a part of the network gives what it gives for another input.

    Meng et al., *Locating and Editing Factual Associations in GPT* (2022). With the activation :math:`a_c` of component
    c, the outcome m, an input x and another :math:`\tilde x`:

    .. math:: e_c = m\bigl(x \mid a_c \leftarrow a_c(\tilde x)\bigr) - m(x)

    One pass for each component, or each piece of each: exact, and slow where there are many.
    :func:`repertoire.explain.estimated_patching` needs two passes and one back for all of them.

    Args:
        model: runs in evaluation mode, and is left as it was.
        inputs, corrupted: float or int64 `[N, ...]` of the same shape, sample by sample.
        metric: from what the model returns to a number for each sample, `[N]`: the difference of two logits, say.
        components: names of modules whose output is one tensor.
        axis: patch each position along this dimension of the output by itself (1 for the tokens of `[N, T, d]` or the
            channels of maps); by default all of a sample's output at once.

    Returns:
        For each component, `[N]`, or `[N, size of the axis]`.

    Raises:
        UnknownName: the model has no such module.
        ConfigError: a component does not run exactly once, or gives no tensor.
        ShapeError: inputs, axis or metric that do not fit.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import activation_patching
        >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
        >>> x, other = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]])
        >>> effect = activation_patching(net, x, other, lambda y: y[:, 0], ["0"])["0"]
        >>> torch.allclose(effect, (net(other) - net(x))[:, 0])
        True
    """
    with undisturbed(model):
        modules, x, other = _prepared(model, inputs, corrupted, components)
        kept, _ = _outputs(model, modules, other, metric)
        own, before = _outputs(model, modules, x, metric)
        effects = {}
        for name in components:
            pieces = _pieces(name, kept[name], axis)
            found = []
            for piece in pieces:
                patched = own[name].clone()
                patched[piece] = kept[name][piece]
                with _replaced(modules[name], patched):
                    found.append(_measured(metric, model(x), len(x)) - before)
            effects[name] = found[0] if axis is None else torch.stack(found, 1)
    return effects


def estimated_patching(
    model: nn.Module,
    inputs: Tensor,
    corrupted: Tensor,
    metric: Metric,
    components: Sequence[str],
    *,
    axis: int | None = None,
    rule: Literal["relevance", "gradient"] = "relevance",
    epsilon: float = 0.0,
) -> dict[str, Tensor]:
    r"""Estimates activation patching for all components by two passes forward and one back.

    Jafari et al., *RelP: Faithful and Efficient Circuit Discovery via Relevance Patching* (2025):

    .. math:: e_c \approx \bigl(a_c(\tilde x) - a_c(x)\bigr) \cdot \rho_c

    where :math:`\rho_c` is what a backward pass from m(x) brings to :math:`a_c`. With the gradient it is attribution
    patching (Nanda, 2023). Relevance patching brings the coefficients of layer-wise relevance propagation instead, by
    which the scale of a normalisation and the weights of attention are constants, an activation y = f(x) is x times a
    constant, and products of two activations share by halves. A gradient says what a tiny change would do; these
    coefficients say what the value is made of, which bears more on taking it away.

    Args:
        model, inputs, corrupted, metric, components, axis: as :func:`activation_patching` takes them.
        rule: "relevance" (default), or "gradient" for attribution patching.
        epsilon: of the rule for linear maps, see :class:`repertoire.explain.LRP`; 0 as in the paper.

    Returns:
        For each component, `[N]`, or `[N, size of the axis]`.

    Raises:
        UnknownName, ConfigError, ShapeError: as :func:`activation_patching`; a component that the metric does not
            depend on has an effect of zero.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import activation_patching, estimated_patching
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 2))
        >>> given = net, torch.randn(5, 3), torch.randn(5, 3), lambda y: y[:, 0] - y[:, 1], ["2"]
        >>> torch.allclose(estimated_patching(*given)["2"], activation_patching(*given)["2"], atol=1e-5)
        True
    """
    if rule not in ("relevance", "gradient"):
        raise ConfigError(f"rule must be relevance or gradient, found {rule!r}")
    mode = Relevance(epsilon) if rule == "relevance" else None
    with undisturbed(model):
        modules, x, other = _prepared(model, inputs, corrupted, components)
        kept, _ = _outputs(model, modules, other, metric)
        with frozen(model), torch.enable_grad():
            own, outcome = _outputs(model, modules, x, metric, mode=mode, graph=True)
            points = [own[name] for name in components]
            slopes: Sequence[Tensor | None] = [None] * len(points)
            if outcome.requires_grad:
                slopes = torch.autograd.grad(outcome.sum(), points, allow_unused=True)
        effects = {}
        for name, slope in zip(components, slopes, strict=True):
            difference = kept[name] - own[name].detach()
            product = torch.zeros_like(difference) if slope is None else difference * slope
            _pieces(name, difference, axis)  # refuses an axis that is not there
            effects[name] = _summed(product, axis)
    return effects


def _prepared(
    model: nn.Module, inputs: Tensor, corrupted: Tensor, components: Sequence[str]
) -> tuple[dict[str, nn.Module], Tensor, Tensor]:
    if inputs.shape != corrupted.shape or not inputs.ndim:
        raise ShapeError(f"corrupted must be {list(inputs.shape)} like the inputs, found {list(corrupted.shape)}")
    known = dict(model.named_modules())
    for name in components:
        if name not in known or not name:
            raise UnknownName(f"module of the {type(model).__name__}", name, [key for key in known if key])
    if not components:
        raise ConfigError("components is empty; name the modules to patch")
    x, other = (moved(model, given) if given.is_floating_point() else given for given in (inputs, corrupted))
    return {name: known[name] for name in components}, x, other


def _outputs(
    model: nn.Module,
    modules: dict[str, nn.Module],
    x: Tensor,
    metric: Metric,
    *,
    mode: Relevance | None = None,
    graph: bool = False,
) -> tuple[dict[str, Tensor], Tensor]:
    """Runs the model for the outputs of some modules and the metric of its own output."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., Tensor | None]:
        def hook(module: nn.Module, args: Any, output: Any) -> Tensor | None:
            if not isinstance(output, Tensor) or not output.is_floating_point():
                raise ConfigError(f"component {name!r} gives a {type(output).__name__}, not one tensor of activations")
            if name in kept:
                raise ConfigError(f"component {name!r} runs more than once in a forward pass")
            if graph and not output.requires_grad:
                output = output.detach().requires_grad_()
            kept[name] = output if graph else output.clone()
            # What follows gets a copy, which it may overwrite.
            return output.clone() if graph else None

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        if mode is None:
            outcome = _measured(metric, model(x), len(x))
        else:
            with mode:
                result = model(x)
            outcome = _measured(metric, result, len(x))
    finally:
        for handle in handles:
            handle.remove()
    missing = [name for name in modules if name not in kept]
    if missing:
        raise ConfigError(f"component {missing[0]!r} does not run in the forward pass of the {type(model).__name__}")
    return kept, outcome


@contextmanager
def _replaced(module: nn.Module, output: Tensor) -> Iterator[None]:
    handle = module.register_forward_hook(lambda *_: output)
    try:
        yield
    finally:
        handle.remove()


def _measured(metric: Metric, result: Any, count: int) -> Tensor:
    outcome = metric(result)
    if not isinstance(outcome, Tensor) or outcome.shape != (count,):
        found = list(outcome.shape) if isinstance(outcome, Tensor) else type(outcome).__name__
        raise ShapeError(f"metric must give one number a sample, [{count}]; found {found}")
    return outcome


def _pieces(name: str, output: Tensor, axis: int | None) -> list[Any]:
    """The indices of the pieces of an output that are patched one by one."""
    if axis is None:
        return [slice(None)]
    if not 1 <= axis < output.ndim:
        raise ShapeError(f"axis must be from 1 to {output.ndim - 1} for component {name!r}, found {axis}")
    return [(*[slice(None)] * axis, place) for place in range(output.shape[axis])]


def _summed(product: Tensor, axis: int | None) -> Tensor:
    """The sum over all dimensions but the first and the axis."""
    if axis is None:
        return product.flatten(1).sum(1)
    return product.movedim(axis, 1).flatten(2).sum(2) if product.ndim > 2 else product
