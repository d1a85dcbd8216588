"""Twin-Merging: one shared network, and what each expert has of its own, mixed for each input by a router."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import CheckpointError, ConfigError
from repertoire.ops import evaluating
from repertoire.ranges import AtLeast, Finite, checked
from repertoire.registry import register
from repertoire.weights._arithmetic import task_arithmetic
from repertoire.weights._batchnorm import first_of, images_of, refresh_batchnorm
from repertoire.weights._progress import Progress
from repertoire.weights._state import State, check_alike, is_averaged
from repertoire.weights._stored import Stored, form
from repertoire.weights._wide import check_base

__all__ = ["TwinRouter", "twin", "twin_form"]

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
_OWN = "twin"
"""What the names of an expert's own tensors begin with."""


class TwinRouter(nn.Module):
    """How much of each expert an input gets: a softmax over the experts, linear in the features of the shared network.

    The network that holds it computes its features twice, once without any expert, and then with those that the router
    asks for.

    Args:
        experts: how many there are.
        features: width of the features.

    Attributes:
        shares: float `[N, experts]` of the batch that is computed, None for the shared network alone.
        fixed: shares `[experts]` or `[N, experts]` to take instead of the router's, where the expert is known.
    """

    def __init__(self, experts: int, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, experts)
        self.shares: Tensor | None = None
        self.fixed: Tensor | None = None

    def forward(self, features: Tensor) -> Tensor:
        shares: Tensor = self.linear(features).softmax(1)
        return shares

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "shares": None}  # of the last batch, with its graph, which cannot be copied

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Looks at a batch by the shared network, before the network that mixes the experts does."""
        if self._looking:
            return
        count = len(inputs[0])
        if self.fixed is not None:
            self.shares = self.fixed.to(inputs[0]).expand(count, -1)
            return
        self._looking, self.shares = True, None
        try:
            features = _features(module, inputs[0])
        finally:
            self._looking = False
        self.shares = self(features)

    _looking = False


def _features(module: nn.Module, inputs: Tensor) -> Tensor:
    """What a backbone gives; of a network that is not divided, what enters its last linear layer."""
    if hasattr(module, "out_features") and not isinstance(module, nn.Linear):  # a backbone
        return torch.as_tensor(module(inputs)).flatten(1)
    last = [part for part in module.modules() if isinstance(part, nn.Linear | _TwinLayer) and _is_linear(part)]
    if not last:
        return torch.as_tensor(module(inputs)).flatten(1)
    seen: list[Tensor] = []
    handle = last[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        module(inputs)
    finally:
        handle.remove()
    return seen[-1].flatten(1)


def _is_linear(part: nn.Module) -> bool:
    return isinstance(part.layer if isinstance(part, _TwinLayer) else part, nn.Linear)


class TwinNetwork(nn.Module):
    """A network without a backbone of its own, and the router that looks at its inputs first."""

    def __init__(self, network: nn.Module, router: TwinRouter) -> None:
        super().__init__()
        self.network = network
        self.twin_router = router

    def forward(self, inputs: Tensor) -> Tensor:
        self.twin_router.before(self.network, (inputs,))
        outputs: Tensor = self.network(inputs)
        return outputs


class _TwinLayer(nn.Module):
    """A linear layer or convolution that adds, for each sample, what its experts have of their own."""

    left: Tensor | None
    right: Tensor
    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: nn.Module, own: Mapping[str, Tensor], router: TwinRouter) -> None:
        super().__init__()
        self.layer = layer
        self._router = [router]  # in a list, so that it is not a part of every layer
        for name in ("left", "right", "weight", "bias"):
            self.register_buffer(name, own.get(name))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        shares = self._router[0].shares
        if shares is None:
            return result
        if self.left is not None:
            result = result + self._low_rank(x, self.left, shares)
        elif self.weight is not None:
            for expert, weight in enumerate(self.weight):
                result = torch.addcmul(result, _beside(shares[:, expert : expert + 1], result), self._bare(x, weight))
        if self.bias is not None:
            result = result + _channels(shares @ self.bias, result, last=isinstance(self.layer, nn.Linear))
        return result

    def _bare(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer with another weight, of as many rows as one likes, and no bias."""
        given = {"weight": weight}
        if self.layer.bias is not None:
            given["bias"] = weight.new_zeros(len(weight))
        # Called as it is, since a convolution may pad its inputs in a way of its own.
        result: Tensor = functional_call(self.layer, given, (x,))
        return result

    def _low_rank(self, x: Tensor, left: Tensor, shares: Tensor) -> Tensor:
        experts, rank = self.right.shape[:2]
        inner = self._bare(x, self.right.flatten(0, 1))
        factors = shares.repeat_interleave(rank, 1)
        outer = left.transpose(0, 1).reshape(-1, experts * rank)
        if isinstance(self.layer, nn.Linear):
            return F.linear(inner * _channels(factors, inner, last=True), outer)
        inner = inner * _channels(factors, inner, last=False)
        return torch.einsum("or,nr...->no...", outer, inner)


class _TwinNorm(nn.Module):
    """A normalisation whose scale, shift and statistics are, for each sample, those of its experts."""

    def __init__(self, layer: nn.Module, own: Mapping[str, Tensor], router: TwinRouter) -> None:
        super().__init__()
        self.layer = layer
        self._router = [router]
        self._names = tuple(own)
        for name, value in own.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        shares = self._router[0].shares
        if shares is None:
            result: Tensor = self.layer(x)
            return result
        layer, last = self.layer, isinstance(self.layer, nn.LayerNorm)

        def mixed(name: str) -> Tensor | None:
            shared = getattr(layer, name)
            if shared is None:
                return None
            value = shared.flatten()[None]
            if name in self._names:
                value = value + shares @ getattr(self, name).flatten(1)
            return value.view(len(value), *shared.shape)

        weight, bias = mixed("weight"), mixed("bias")
        if isinstance(layer, nn.LayerNorm):
            y = F.layer_norm(x, layer.normalized_shape, None, None, layer.eps)
        elif isinstance(layer, nn.GroupNorm):
            y = F.group_norm(x, layer.num_groups, None, None, layer.eps)
        else:
            mean, var = mixed("running_mean"), mixed("running_var")
            assert mean is not None
            assert var is not None
            # In one pass over the maps: scale and shift are made for channels, of which there are few.
            scale = (var + layer.eps).rsqrt()  # type: ignore[operator]
            scale = scale if weight is None else scale * weight
            return _scaled(x, scale, -mean * scale if bias is None else bias - mean * scale, last)
        return y if weight is None else _scaled(y, weight, bias, last)


def _scaled(x: Tensor, scale: Tensor, shift: Tensor | None, last: bool) -> Tensor:
    """Channels, each times its scale and with its shift."""
    factor = _channels(scale, x, last)
    return x * factor if shift is None else torch.addcmul(_channels(shift, x, last), x, factor)


def _channels(values: Tensor, x: Tensor, last: bool) -> Tensor:
    """Values `[N, ...]` of channels, so shaped that they go with maps or with rows."""
    own = values.shape[1:]
    between = (1,) * (x.ndim - 1 - len(own))
    return values.view(len(values), *between, *own) if last else values.view(len(values), *own, *between)


def _beside(values: Tensor, x: Tensor) -> Tensor:
    return values.view(len(values), *(1,) * (x.ndim - 1))


@register("weight-operators", "twin", paper="twin-merging")
@checked
def twin(
    states: Sequence[State],
    base: State,
    network: Callable[[State, int], nn.Module],
    batches: Callable[[int | None], Iterator[Batch]],
    *,
    rank: Annotated[int, AtLeast(1)] = 16,
    scale: Annotated[float, Finite] = 0.3,
    samples: Annotated[int, AtLeast(1)] = 512,
    progress: Progress | None = None,
) -> Stored:
    r"""Twin-Merging: a merged network that all inputs share, and of each expert a low-rank rest that a router adds.

    Lu et al., *Twin-Merging: Dynamic Integration of Modular Expertise in Model Merging* (2024). The shared network is
    that of task arithmetic. What is left of each expert is brought to a low rank, matrix by matrix:

    .. math::
        \theta^* = \theta_0 + \lambda \sum_t (\theta_t - \theta_0), \qquad
        v_t = \mathrm{SVD}_r(\theta_t - \theta^*), \qquad
        \theta(x) = \theta^* + \sum_t w_t(x)\, v_t

    where w is a softmax of the shared network's features, learned to tell whose training samples they are. Kernels of
    convolutions are matrices of `[channels, inputs * places]`; vectors, normalisation with its statistics, convolutions
    in groups and matrices that a low rank would not make smaller are kept whole, so that with a high rank and the right
    expert the network is that expert. Each layer adds its low-rank part to its outputs; no weights are made for a
    sample. Features are computed twice, once for the router. The statistics of batch normalisation of the shared
    network are measured here, and those of the experts are their own: do not refresh them.

    The authors' router has three hidden layers, and this one none.

    Args:
        states: fine-tuned from the base, of one architecture. Integers and booleans are taken from the first.
        base: the weights that all of them started from.
        network: `network(state, of)`, a new network with these weights, and the head of that run.
        batches: `batches(of)`, training samples of that run.
        rank: of what each expert adds to a matrix.
        scale: factor of the task vectors in the shared network.
        samples: how many of each run the router learns from. As many in all are what statistics are measured on.
        progress: where statistics and the features of each run are kept once they are measured; by default nowhere.

    Returns:
        The network, of the form "twin".

    Raises:
        ConfigError: there are no states or no batches, an option lies outside its range, or the states differ in a
            layer that is not linear, a convolution or a normalisation.
        CheckpointError: names or shapes differ; all that do are named.

    Example:
        >>> import torch
        >>> from repertoire.weights import twin
        >>> def network(state, of=0):
        ...     layer = torch.nn.Linear(2, 1)
        ...     layer.load_state_dict(dict(state))
        ...     return layer
        >>> inputs = [torch.tensor([[-5.0, 0.0]]), torch.tensor([[5.0, 0.0]])]
        >>> base = {"weight": torch.zeros(1, 2), "bias": torch.zeros(1)}
        >>> states = [base | {"bias": torch.tensor([value])} for value in (1.0, 2.0)]
        >>> merged = twin(states, base, network, lambda of: iter(inputs if of is None else [inputs[of]]))
        >>> net = merged.build(torch.nn.Linear(2, 1))
        >>> [round(net(x).item(), 1) for x in inputs]
        [1.0, 2.0]
    """
    check_alike(states)
    check_base(states[0], base)
    shared = task_arithmetic(states, base, scale=scale)
    net = network(shared, 0)
    progress = progress or Progress()

    def statistics() -> dict[str, Tensor]:
        refresh_batchnorm(net, first_of(batches(None), len(states) * samples))
        return dict(net.named_buffers())

    buffers = dict(net.named_buffers())
    for name, value in progress.part("statistics", statistics).items():
        if buffers[name] is not value:
            buffers[name].copy_(value)
    measured = net.state_dict()
    tensors = {n: measured[n].detach().clone() if is_averaged(v) and n in measured else v for n, v in shared.items()}
    modules = dict(net.named_modules())
    for name, value in shared.items():
        if not is_averaged(value):
            continue
        changes = torch.stack([state[name].to(value.device).double() - tensors[name].double() for state in states])
        if not changes.any():
            continue
        owner, _, own = name.rpartition(".")
        if not isinstance(modules.get(owner), (*_LAYERS, *_NORMS)):
            kind = type(modules.get(owner)).__name__
            raise ConfigError(f"twin mixes linear layers, convolutions and normalisation, and {name} is of {kind}")
        for part, tensor in _parts(changes, own, rank, getattr(modules[owner], "groups", 1)).items():
            tensors[f"{_OWN}.{owner}.{part}" if owner else f"{_OWN}.{part}"] = tensor.to(value.dtype)

    def features(of: int) -> dict[str, Tensor]:
        return {"rows": _rows_of(net, batches(of), samples)}

    rows = [progress.part(f"features-{of}", partial(features, of))["rows"] for of in range(len(states))]
    device = next(tensor.device for tensor in (*net.parameters(), *net.buffers()))
    rows = [each.to(device) for each in rows]
    for name, value in _routing(rows).items():
        tensors[f"{_OWN}.router.{name}"] = value
    return Stored("twin", tensors, {"experts": len(states)})


def _parts(changes: Tensor, name: str, rank: int, groups: int) -> dict[str, Tensor]:
    """What the experts have of their own, `[experts, ...]`: in two factors where these are smaller."""
    experts, rows = changes.shape[:2]
    columns = math.prod(changes.shape[2:])
    if name != "weight" or changes.ndim < 3 or groups > 1 or rank * (rows + columns) >= rows * columns:
        return {name: changes}
    u, s, v = torch.linalg.svd(changes.flatten(2), full_matrices=False)
    left = u[:, :, :rank] * s[:, None, :rank]
    return {"left": left, "right": v[:, :rank].reshape(experts, rank, *changes.shape[2:])}


@torch.no_grad()
def _rows_of(net: nn.Module, batches: Iterator[Batch], samples: int) -> Tensor:
    """Features of so many samples, by the shared network."""
    device = next(tensor.device for tensor in (*net.parameters(), *net.buffers()))
    with evaluating(net):
        rows = [_seen_by(net, images_of(batch).to(device)).double() for batch in first_of(batches, samples)]
    if not rows:
        raise ConfigError("batches is empty; give some training samples to teach the router")
    return torch.cat(rows)[:samples]


def _seen_by(net: nn.Module, images: Tensor) -> Tensor:
    """The features of a whole network: what its backbone gives where it has one."""
    backbone = getattr(net, "backbone", None)
    if backbone is None:
        return _features(net, images)
    seen: list[Tensor] = []
    handle = backbone.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        net(images)
    finally:
        handle.remove()
    return seen[-1].flatten(1)


def _routing(rows: Sequence[Tensor], ridge: float = 1e-3) -> dict[str, Tensor]:
    """Weights and biases of a softmax that tells whose samples they are: logistic regression on standardised rows."""
    x = torch.cat(list(rows))
    y = torch.cat([torch.full((len(part),), number, device=x.device) for number, part in enumerate(rows)])
    mean, spread = x.mean(0), x.std(0, correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    z = (x - mean) / spread
    weight = z.new_zeros(len(rows), z.shape[1], requires_grad=True)
    bias = z.new_zeros(len(rows), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(z @ weight.T + bias, y) + ridge * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    scaled = weight.detach() / spread
    return {"weight": scaled.float(), "bias": (bias.detach() - scaled @ mean).float()}


@form("twin")
def twin_form(model: nn.Module, tensors: Mapping[str, Tensor], experts: int) -> nn.Module:
    """The shared network, whose layers add what the router asks for: `twin_router` of its backbone, if it has one."""
    own: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(f"{_OWN}."):
            owner, _, part = name[len(_OWN) + 1 :].rpartition(".")
            own.setdefault(owner, {})[part] = value
    routing = own.pop("router", {})
    model = Stored("dense", {n: v for n, v in tensors.items() if not n.startswith(f"{_OWN}.")}).build(model).eval()
    if routing.keys() != {"weight", "bias"} or len(routing["bias"]) != experts:
        raise CheckpointError("the tensors do not fit: there is no router for the experts")
    device = next(tensor.device for tensor in (*model.parameters(), *model.buffers()))
    router = TwinRouter(experts, routing["weight"].shape[1])
    router.linear.load_state_dict(routing)
    modules = dict(model.named_modules())
    for owner, parts in own.items():
        layer = modules.get(owner)
        if not isinstance(layer, (*_LAYERS, *_NORMS)):
            raise CheckpointError(f"the tensors do not fit the network: it has no layer {owner}")
        kind = _TwinLayer if isinstance(layer, _LAYERS) else _TwinNorm
        mixing = kind(layer, parts, router)
        if not owner:
            model = mixing
            continue
        parent, _, name = owner.rpartition(".")
        modules[parent]._modules[name] = mixing
    backbone = getattr(model, "backbone", None)
    if backbone is None:
        return TwinNetwork(model, router).to(device).eval()
    if getattr(getattr(model, "head", None), "takes_maps", False):
        raise CheckpointError("the router looks at pooled features, and this head takes maps")
    backbone.add_module("twin_router", router)
    backbone.register_forward_pre_hook(router.before)
    return model.to(device).eval()
