"""A vision transformer for small images."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.backbones._base import Backbone, resize_positions
from repertoire.errors import ConfigError, ShapeError
from repertoire.registry import register

__all__ = ["Pooling", "ViT"]

Pooling = Literal["mean", "cls"]


class _PatchEmbed(nn.Module):
    def __init__(self, in_channels: int, image_size: int, patch: int, dim: int, cls: bool) -> None:
        super().__init__()
        self.side = math.ceil(image_size / patch)
        self.image_size = image_size
        self.missing = self.side * patch - image_size
        self.proj = nn.Conv2d(in_channels, dim, patch, patch)
        self.cls = nn.Parameter(torch.empty(1, 1, dim)) if cls else None
        self.position = nn.Parameter(torch.empty(1, self.side**2 + cls, dim))
        # Tokens of unit variance whatever the patch size; a fixed standard deviation would drown small patches.
        nn.init.trunc_normal_(self.proj.weight, std=self.proj.weight[0].numel() ** -0.5)
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]
        for parameter in (self.position,) if self.cls is None else (self.position, self.cls):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[2] != self.image_size or images.shape[3] != self.image_size:
            raise ShapeError(
                f"images are {images.shape[2]}x{images.shape[3]}; this vit was built for image_size={self.image_size}"
            )
        if self.missing:
            images = F.pad(images, (0, self.missing, 0, self.missing))
        tokens = self.proj(images).flatten(2).transpose(1, 2)
        if self.cls is not None:
            tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], dim=1)
        return tokens + self.position


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class _TransformerBlock(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = _Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@register("backbones", "vit")
class ViT(Backbone):
    r"""Vision transformer, sized for small images.

    Dosovitskiy et al., *An Image is Worth 16x16 Words* (ICLR 2021). Patches become tokens, learned positions are added,
    and pre-norm transformer blocks follow:

    .. math::
        z' = z + \mathrm{MSA}(\mathrm{LN}(z)), \quad z'' = z' + \mathrm{MLP}(\mathrm{LN}(z'))

    Block 0 embeds the patches, each transformer block is one of the others and a stage, and the last one ends with the
    final normalisation. Linear weights and positions are drawn from a truncated normal distribution of standard
    deviation 0.02, the patch projection from one of 1 / sqrt(fan in).

    The paper pools by a class token; the mean over the tokens is the default here, because it leaves a gradient on the
    last block's map for explainers to look at, which the class token does not.

    Args:
        in_channels: channels of the images, 3 by default.
        image_size: side of the images in pixels, 32 by default; the network takes no other, but weights for another
            size can be loaded: their positions are interpolated.
        patch: side of a patch in pixels; None (default) is an eighth of the image, 1 to 16. Images that are no multiple
            of it are padded with zeros on the right and at the bottom.
        dim: width of the tokens, 192 by default.
        depth: number of transformer blocks, 6 by default.
        heads: attention heads, 3 by default; `dim` is a multiple of it.
        mlp_ratio: width of the hidden layer in units of `dim`, 4 by default.
        pooling: "mean" over the tokens (default), or the "cls" token.

    Shapes:
        images float `[N, C, image_size, image_size]` to features `[N, dim]`.

    Raises:
        ConfigError: a size that is not positive, a dim that is no multiple of heads, an unknown pooling.
        ShapeError: images of another size, in the forward pass.

    Example:
        >>> import torch
        >>> from repertoire.backbones import ViT
        >>> net = ViT(image_size=32, depth=2)
        >>> tokens = net.forward_map(torch.zeros(2, 3, 32, 32))
        >>> tokens.shape, net.grid(tokens).shape
        (torch.Size([2, 64, 192]), torch.Size([2, 192, 8, 8]))
    """

    stem = 1

    def __init__(
        self,
        in_channels: int = 3,
        image_size: int = 32,
        patch: int | None = None,
        dim: int = 192,
        depth: int = 6,
        heads: int = 3,
        mlp_ratio: float = 4.0,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        if patch is None:
            patch = min(max(round(image_size / 8), 1), 16)
        sizes = {"in_channels": in_channels, "image_size": image_size, "patch": patch}
        for name, value in {**sizes, "dim": dim, "depth": depth, "heads": heads}.items():
            if value < 1:
                raise ConfigError(f"{name} is {value}; expected 1 or more")
        if dim % heads:
            raise ConfigError(f"dim is {dim}; expected a multiple of heads, which is {heads}")
        if not mlp_ratio * dim >= 1:
            raise ConfigError(f"mlp_ratio is {mlp_ratio}; expected a positive number")
        if pooling not in ("mean", "cls"):
            raise ConfigError(f"pooling is {pooling!r}; expected 'mean' or 'cls'")
        self.pooling = pooling
        embed = _PatchEmbed(in_channels, image_size, patch, dim, cls=pooling == "cls")
        self.side = embed.side
        blocks: list[nn.Module] = [_TransformerBlock(dim, heads, int(mlp_ratio * dim)) for _ in range(depth)]
        blocks[-1] = nn.Sequential(blocks[-1], nn.LayerNorm(dim, eps=1e-6))
        self.blocks = nn.ModuleList([embed, *blocks])
        self.stage_ends = list(range(1, depth + 1))
        self.in_channels = in_channels
        self.out_features = dim

    def grid(self, x: Tensor) -> Tensor:
        """Tokens `[N, T, dim]` as maps `[N, dim, h, w]`, without the class token."""
        return x[:, -(self.side**2) :].transpose(1, 2).unflatten(2, (self.side, self.side))

    def pool(self, x: Tensor) -> Tensor:
        """The mean over the tokens, or the class token."""
        return x[:, 0] if self.pooling == "cls" else x.mean(dim=1)

    def adapt_weight(self, name: str, tensor: Tensor, like: Tensor) -> Tensor | None:
        """Positions for images of another size are interpolated."""
        if name == "blocks.0.position" and tensor.dim() == 3 and tensor.shape[2] == like.shape[2]:
            return resize_positions(tensor, like.shape[1], (int(self.pooling == "cls"),))
        return super().adapt_weight(name, tensor, like)
