"""Backward passes that carry relevance in place of gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from repertoire.errors import ConfigError

__all__ = ["Relevance"]

#: y = f(x), entry by entry, with f(0) = 0 or nearly: what comes back is shared as if f had been a factor.
_NAMES = (
    (F, "relu relu6 gelu silu elu selu celu leaky_relu hardtanh hardswish mish tanh prelu rrelu softsign"),
    (torch, "relu relu_ tanh square selu selu_ celu celu_"),
    (Tensor, "relu relu_ tanh tanh_ square"),
)
_ACTIVATIONS = {getattr(module, name) for module, names in _NAMES for name in names.split()}
_SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax}
#: Roots that scale what a normalisation divides by.
_SCALES = {torch.rsqrt, Tensor.rsqrt}
_PRODUCTS = {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.multiply, Tensor.multiply}
_PRODUCTS_IN_PLACE = {Tensor.mul_, Tensor.__imul__}
_MATRIX_PRODUCTS = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}
_QUOTIENTS = {torch.div, Tensor.div, Tensor.__truediv__, torch.true_divide}
_LINEAR = {F.linear, F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d}


class Relevance(TorchFunctionMode):
    r"""A mode in which a forward pass gives what it always gives, and the gradient of it is relevance per activation.

    The relevance of an activation is then itself times its gradient. Rules, by what the network calls:

    - **linear maps and convolutions**, :math:`z = W x + b`: LRP-epsilon, to each input its share :math:`w x / (z +
      \epsilon \operatorname{sign} z)`. Biases keep theirs.
    - **activations** :math:`y = f(x)`: the identity rule, all of it goes to x, as if y were x times a constant.
    - **normalisation** (layer, group, RMS): the scale is a constant.
    - **attention**: the weights are constants, and values get all of it.
    - **products** of two activations: half to each; **quotients**: all to the numerator.

    Sums, means, pooling and batch normalisation in evaluation mode come back as they do in a gradient. It does not
    matter whether the network uses modules or functions. Parameters must not take gradients while it is on, so that
    products with them are no products of two activations.

    Args:
        epsilon: of the linear rule, in units of the root mean square of z (over a vector, or the maps of a sample); 0
            for the plain shares.
    """

    def __init__(self, epsilon: float = 0.0) -> None:
        super().__init__()
        if not epsilon >= 0:
            raise ConfigError(f"epsilon must be 0 or more, found {epsilon}")
        self.epsilon = epsilon
        #: What the first linear map or convolution read.
        self.entrance: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled() or not args or not isinstance(args[0], Tensor):
            return func(*args, **kwargs)
        if func in _ACTIVATIONS:
            return _identity(func, args, kwargs)
        if func in _LINEAR:
            return self._linear(func, args, kwargs)
        if func in _SOFTMAX or func in _SCALES:
            return func(*args, **kwargs).detach()
        if func is F.scaled_dot_product_attention:
            query, key, *rest = args
            return func(query.detach(), key.detach(), *rest, **kwargs)
        if func is F.multi_head_attention_forward:
            return _multi_head(func, args, kwargs)
        if func in _PRODUCTS or func in _MATRIX_PRODUCTS:
            return _halves(func, args, kwargs)
        if func in _PRODUCTS_IN_PLACE and _both(args):
            return args[0].copy_(0.5 * (args[0] * args[1].detach() + args[0].detach().clone() * args[1]))
        if func in _QUOTIENTS and _both(args):
            return func(args[0], args[1].detach(), *args[2:], **kwargs)
        if func in _NORMALISATIONS:
            return _NORMALISATIONS[func](func, args, kwargs)
        return func(*args, **kwargs)

    def _linear(self, func: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor:
        if self.entrance is None and args[0].requires_grad:
            self.entrance = args[0]
        z = func(*args, **kwargs)
        if not self.epsilon:
            return z
        held = z.detach()
        # Of one vector, or of one sample's maps: samples must not depend on each other.
        dims = (-1,) if func is F.linear else tuple(range(1, z.ndim))
        size = self.epsilon * held.square().mean(dims, keepdim=True).sqrt()
        kept = held.abs() / (held.abs() + size).clamp_min(torch.finfo(z.dtype).tiny)
        return z * kept + held * (1 - kept)


def _both(args: Any) -> bool:
    """True if the first two arguments are activations, not numbers or parameters."""
    return len(args) > 1 and all(isinstance(a, Tensor) and a.requires_grad for a in args[:2])


def _identity(func: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor:
    """y as x times the constant y / x; where x is zero, the constant of a number near it."""
    x = args[0]
    name = getattr(func, "__name__", "")
    in_place = bool(kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__"))
    with torch.no_grad():
        tiny = 1e-6 if x.dtype in (torch.float32, torch.float64) else 1e-3
        held = torch.where(x.abs() < tiny, torch.copysign(torch.full_like(x, tiny), x), x)
        outside = {key: value for key, value in kwargs.items() if key != "inplace"}
        factor = func(held.clone(), *[a for a in args[1:] if not isinstance(a, bool)], **outside) / held
    y = x * factor
    return x.copy_(y) if in_place and not x.is_leaf else y


def _halves(func: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor:
    if not _both(args):
        return func(*args, **kwargs)
    a, b, *rest = args
    return 0.5 * (func(a, b.detach(), *rest, **kwargs) + func(a.detach(), b, *rest, **kwargs))


def _multi_head(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """`nn.MultiheadAttention` with constant weights: the values are projected, averaged and projected again."""
    bound = inspect.signature(func).bind(*args, **kwargs)
    bound.apply_defaults()
    asked = bound.arguments
    if asked["bias_k"] is not None or asked["add_zero_attn"] or asked["use_separate_proj_weight"]:
        raise ConfigError("relevance cannot pass an nn.MultiheadAttention with bias_kv, add_zero_attn, kdim or vdim")
    if asked["query"].ndim != 3:
        raise ConfigError("relevance cannot pass an nn.MultiheadAttention without a dimension of samples")
    with torch.no_grad():
        _, weights = func(**{**asked, "need_weights": True, "average_attn_weights": False})
    width, heads = asked["embed_dim_to_check"], asked["num_heads"]
    bias = asked["in_proj_bias"]
    value = F.linear(asked["value"], asked["in_proj_weight"][2 * width :], None if bias is None else bias[2 * width :])
    split = value.unflatten(2, (heads, -1)).permute(1, 2, 0, 3)
    output = F.linear(
        (weights @ split).permute(2, 0, 1, 3).flatten(2), asked["out_proj_weight"], asked["out_proj_bias"]
    )
    if not asked["need_weights"]:
        return output, None
    return output, weights.mean(1) if asked["average_attn_weights"] else weights


def _layer_norm(
    x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    dims = tuple(range(-len(tuple(shape)), 0))
    centred = x - x.mean(dims, keepdim=True)
    return _affine(centred * _constant_scale(centred, dims, eps), weight, bias)


def _rms_norm(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    dims = tuple(range(-len(tuple(shape)), 0))
    return _affine(x * _constant_scale(x, dims, torch.finfo(x.dtype).eps if eps is None else eps), weight, None)


def _group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    split = x.unflatten(1, (groups, -1))
    dims = tuple(range(2, split.ndim))
    centred = split - split.mean(dims, keepdim=True)
    shape = [1, -1, *[1] * (x.ndim - 2)]
    scaled = (centred * _constant_scale(centred, dims, eps)).view_as(x)
    return _affine(scaled, *(None if t is None else t.view(shape) for t in (weight, bias)))


def _constant_scale(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    return (x.detach().square().mean(dims, keepdim=True) + eps).rsqrt()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = x if weight is None else x * weight
    return scaled if bias is None else scaled + bias


def _normalised(x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Tensor:
    return x / x.detach().norm(p, dim, keepdim=True).clamp_min(eps)


_NORMALISATIONS: dict[Any, Callable[..., Tensor]] = {
    F.layer_norm: lambda func, args, kwargs: _layer_norm(*args, **kwargs),
    F.group_norm: lambda func, args, kwargs: _group_norm(*args, **kwargs),
    F.rms_norm: lambda func, args, kwargs: _rms_norm(*args, **kwargs),
    F.normalize: lambda func, args, kwargs: _normalised(*args, **kwargs),
}
