"""Attention roll-out: how much of each patch is in what the network reads at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from repertoire.errors import ConfigError
from repertoire.explain._arguments import one_of
from repertoire.explain._explainer import Explainer, classes, every_row
from repertoire.ops import as_maps
from repertoire.registry import register

__all__ = ["AttentionRollout"]

Heads = Literal["mean", "max", "min"]


@register("explainers", "attention-rollout")
class AttentionRollout(Explainer):
    r"""Attention roll-out: the attention of all layers multiplied, for networks of tokens. The same for each class.

    Abnar and Zuidema, *Quantifying Attention Flow in Transformers* (2020). With :math:`W_l` the attention of layer l,
    averaged over its heads (tokens times tokens, each row a distribution), and half of each token kept by the
    connection past the attention:

    .. math:: A_l = \tfrac12 (W_l + I), \qquad R = A_L A_{L-1} \cdots A_1

    A row of R says how much of each patch is in a token at the end. The map is the mean of the rows of the tokens that
    the answer is read from, without tokens that stand for no place: the class token, or all patches where the network
    averages them. Which these are is asked of the gradient of one image.

    Attention is taken where it is computed: in `scaled_dot_product_attention` (which does not give it, so it is
    computed once more from queries and keys), in `nn.MultiheadAttention`, and in a softmax over tokens times tokens.
    Only the product is kept, so memory does not grow with depth.

    No score takes part, so **the map does not depend on the class**. Targets are checked, and otherwise ignored.

    Args:
        heads: what becomes of a layer's heads: their "mean" (default, as in the paper), or the "max" or "min" of each
            entry, after which rows are made distributions again.
        normalize: divide each map by its largest value. Without it, the values of a map are shares of the whole.

    Raises:
        ConfigError: the network has no attention between all of its tokens, or they make up no grid.

    Example:
        >>> import torch
        >>> from repertoire.backbones import ViT
        >>> from repertoire.explain import AttentionRollout
        >>> net = torch.nn.Sequential(ViT(image_size=16, dim=12, depth=2, heads=2), torch.nn.Linear(12, 5))
        >>> AttentionRollout()(net, torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 16, 16])
    """

    class_dependent = False
    kinds = ("tokens",)

    def __init__(
        self, heads: Heads = "mean", normalize: bool = True, output: Callable[..., Tensor] | None = None
    ) -> None:
        super().__init__(normalize, output)
        one_of(heads=(heads, get_args(Heads)))
        self.heads = heads

    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        read = self._read(model, inputs[:1])
        with _Watching(len(inputs), self.heads) as watching:
            result = model(inputs)
        count = len(classes(targets, self.scores(model, result, every_row(inputs))))
        with torch.autocast(inputs.device.type, enabled=False):
            assert watching.product is not None
            flow = torch.einsum("t,ntu->nu", read.to(watching.product), watching.product)
            heat = as_maps(flow[..., None], (int(inputs.shape[2]), int(inputs.shape[3])))
            if heat.ndim != 4:
                raise ConfigError(
                    f"the {flow.shape[1]} tokens of the {type(model).__name__} make up no grid of the proportions of "
                    f"the images, which are {inputs.shape[2]}x{inputs.shape[3]}"
                )
            heat = F.interpolate(heat, inputs.shape[2:], mode="bilinear", align_corners=False)
        return heat[:, 0].expand(count, -1, -1, -1)

    def _read(self, model: nn.Module, image: Tensor) -> Tensor:
        """The share that each token at the end has in what the answer is read from: alike for all with a gradient."""
        with torch.enable_grad(), _Watching(1, self.heads, mark=True) as watching:
            scores = self.scores(model, model(image), every_row(image))
            if watching.product is None or watching.last is None:
                raise ConfigError(
                    f"no attention from every token to every other was seen in the {type(model).__name__}; roll-out "
                    "is for transformers, without windows and without attention of their own making"
                )
            signs = torch.randn(scores.shape, generator=torch.Generator().manual_seed(0)).to(scores)
            gradient = None
            if scores.requires_grad:
                (gradient,) = torch.autograd.grad(scores, watching.last, signs, allow_unused=True)
        if gradient is None or not gradient.any():
            raise ConfigError(f"the scores of the {type(model).__name__} do not depend on its last attention")
        moved = gradient.movedim(watching.dim, 0).flatten(1)
        read = (moved != 0).any(1).to(torch.promote_types(moved.dtype, torch.float32))
        return read / read.sum()


class _Watching(TorchFunctionMode):
    """Multiplies the attention of a forward pass, layer by layer.

    Attributes:
        product: of the layers so far, `[N, T, T]`.
        last: what the last of them gave, a leaf of the graph, if `mark`; `dim` is its dimension of tokens.
    """

    def __init__(self, count: int, heads: Heads, mark: bool = False) -> None:
        super().__init__()
        self.count, self.heads, self.mark = count, heads, mark
        self.product: Tensor | None = None
        self.last: Tensor | None = None
        self.dim = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._marked(func(*args, **kwargs), _attention(*args, **kwargs), 2)
        if func is F.multi_head_attention_forward:
            wanted = kwargs.get("need_weights", True)
            weights: Any
            output, weights = func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})
            output = self._marked(output, weights if weights.ndim == 4 else weights[None], 0)
            if not wanted:
                return output, None
            return output, weights.mean(-3) if kwargs.get("average_attn_weights", True) else weights
        result = func(*args, **kwargs)
        if func in (F.softmax, torch.softmax, Tensor.softmax) and isinstance(result, Tensor):
            return self._marked(result, result, 2)
        return result

    def _marked(self, result: Tensor, attention: Tensor | None, dim: int) -> Tensor:
        """Takes notice of an attention `[N, heads, T, T]`, and gives the result of its layer, of which `dim` is that of
        the tokens. What is no such attention only passes through."""
        fits = attention is not None and attention.ndim == 4 and len(attention) == self.count
        if attention is None or not fits or attention.shape[2] != attention.shape[3]:
            return result
        tokens = attention.shape[2]
        if self.product is not None and self.product.shape[1] != tokens:
            raise ConfigError(
                f"attention is between {tokens} tokens after being between {self.product.shape[1]}; roll-out follows "
                "tokens that stay the same throughout the network"
            )
        with torch.no_grad(), torch.autocast(attention.device.type, enabled=False):
            weights = attention.detach().to(torch.promote_types(attention.dtype, torch.float32))
            if self.heads == "mean":
                mixed = weights.mean(1)
            else:
                mixed = weights.amax(1) if self.heads == "max" else weights.amin(1)
                total = mixed.sum(2, keepdim=True)
                mixed = mixed / total.masked_fill(total == 0, 1.0)
            if self.product is None:
                self.product = torch.eye(tokens, dtype=mixed.dtype, device=mixed.device).expand_as(mixed)
            self.product = 0.5 * (mixed @ self.product + self.product)
        if self.mark:
            self.last, self.dim = result.detach().requires_grad_(), dim
            return self.last
        return result


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """The attention that `scaled_dot_product_attention` computes of these arguments."""
    if query.ndim != 4 or query.shape[2] != key.shape[2]:
        return None
    if enable_gqa:
        key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    with torch.no_grad():
        logits = query @ key.mT * (scale if scale is not None else query.shape[3] ** -0.5)
        if is_causal:
            logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -torch.inf)
        if attn_mask is not None:
            blocked = attn_mask.dtype == torch.bool
            logits = logits.masked_fill(~attn_mask, -torch.inf) if blocked else logits + attn_mask
        return logits.softmax(3)
