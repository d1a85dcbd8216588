"""Masked autoencoder: most patches are hidden from a transformer, and a small decoder has to draw them."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.backbones import Backbone
from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.methods._base import Method, Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._precision import at_least_float32
from repertoire.methods._readout import read_out
from repertoire.ranges import AtLeast, Between
from repertoire.registry import register

__all__ = ["MaskedAutoencoder", "Rebuilding", "patches_of", "pixels_of"]


def patches_of(images: Tensor, side: int) -> Tensor:
    """Images `[N, C, H, W]` as `side` x `side` patches `[N, P, C p p]`, row by row; padded with zeros at right and
    bottom where H is no multiple.

    Example:
        >>> import torch
        >>> from repertoire.methods import patches_of
        >>> patches_of(torch.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 1].tolist()
        [2.0, 3.0, 6.0, 7.0]
    """
    patch = math.ceil(images.shape[-1] / side)
    missing = side * patch - images.shape[-1]
    padded = F.pad(images, (0, missing, 0, missing)) if missing else images
    cut = padded.unflatten(3, (side, patch)).unflatten(2, (side, patch))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def pixels_of(patches: Tensor, channels: int, size: int) -> Tensor:
    """The inverse of `patches_of`: patches `[N, P, C p p]` as images `[N, C, size, size]`.

    Example:
        >>> import torch
        >>> from repertoire.methods import patches_of, pixels_of
        >>> images = torch.rand(2, 3, 10, 10)
        >>> torch.equal(pixels_of(patches_of(images, 4), 3, 10), images)
        True
    """
    side, patch = math.isqrt(patches.shape[1]), math.isqrt(patches.shape[2] // channels)
    cut = patches.unflatten(2, (channels, patch, patch)).unflatten(1, (side, side))
    return cut.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)[..., :size, :size]


class Rebuilding(Method):
    """Base of methods that hide patches of an image from a transformer, and learn to draw them.

    A memory of patches asks such a method for the images that it kept some patches of.

    Attributes:
        side: patches along a side of the image.
        image_size: side of the images in pixels.
        extra: tokens that stand before those of the patches.
        hidden: share of the patches that is hidden.
    """

    side: int
    image_size: int
    extra: int
    hidden: float

    def make_decoder(self, model: Classifier, image_size: int, hidden: float, width: int | None, depth: int) -> None:
        """Looks at how the network makes tokens, and makes the decoder: `enter`, `token`, `position`, `decoder`,
        `draw`.

        Raises:
            ConfigError: the backbone does not turn patches into tokens.
        """
        self.hidden = hidden
        self.image_size = image_size
        self.side, self.extra = _grid(model.backbone, image_size)
        dim, channels = model.backbone.out_features, model.backbone.in_channels
        width = width or max(8, dim // 16 * 8)
        heads = next(count for count in (8, 4, 2, 1) if count == 1 or (width % count == 0 and width // count >= 8))
        pixels = channels * math.ceil(image_size / self.side) ** 2
        self.enter = nn.Linear(dim, width)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, self.side**2, width))
        blocks = [
            nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        ]
        self.decoder = nn.Sequential(*blocks, nn.LayerNorm(width))
        self.draw = nn.Linear(width, pixels)
        for parameter in (self.token, self.position):
            nn.init.trunc_normal_(parameter, std=0.02)

    def layers(self, images: Tensor, order: Tensor) -> list[Tensor]:
        """What each block of the transformer makes of some patches `[N, extra + V, d]`.

        Args:
            images: float `[N, C, H, W]` in [0, 1].
            order: int64 `[N, V]`, the patches that are seen, row by row in the image.
        """
        backbone = self.model.backbone
        tokens = backbone.blocks[0](self.model.normalize(images))
        first, patches = tokens[:, : self.extra], tokens[:, self.extra :]
        x = torch.cat([first, patches.gather(1, order[:, :, None].expand(-1, -1, patches.shape[2]))], dim=1)
        found = []
        for block in list(backbone.blocks)[1:]:
            x = block(x)
            found.append(x)
        return found

    def see(self, images: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """What the transformer makes of some patches, as it gives it, and as features `[N, d]`.

        Args:
            images: float `[N, C, H, W]` in [0, 1].
            order: int64 `[N, V]`, the patches that are seen, row by row in the image.
        """
        x = self.layers(images, order)[-1]
        return x, self.model.backbone.pool(x)

    def paint(self, seen: Tensor, order: Tensor) -> Tensor:
        """The pixels of all patches `[N, P, C p p]`, on the scale of the method's targets.

        Args:
            seen: what `see` gave for the transformer.
            order: the patches that were seen.
        """
        tokens = self.enter(seen[:, self.extra :])
        places = order[:, :, None].expand(-1, -1, tokens.shape[2])
        x = self.token.to(tokens.dtype).expand(len(tokens), self.side**2, -1).scatter(1, places, tokens)
        return self.draw(self.decoder(x + self.position))

    def rebuild(self, images: Tensor, order: Tensor) -> Tensor:
        """Images in [0, 1] of which the patches that are not in `order` are drawn, and the others stay.

        Args:
            images: float `[N, C, H, W]` in [0, 1]; what is not in `order` is not looked at.
            order: int64 `[N, V]`, the patches that are known.
        """
        raise NotImplementedError

    def joined(self, images: Tensor, order: Tensor, drawn: Tensor) -> Tensor:
        """Images whose patches are their own where they are in `order`, and drawn ones `[N, P, C p p]` elsewhere."""
        own = patches_of(images, self.side)
        keep = torch.zeros(own.shape[:2], dtype=torch.bool, device=own.device).scatter(1, order, True)
        whole = torch.where(keep[:, :, None], own, drawn.to(own.dtype))
        return pixels_of(whole, images.shape[1], images.shape[-1])

    def drawn(self, count: int, device: torch.device) -> Tensor:
        """The patches that are seen `[N, V]`, drawn for each image and in their order."""
        patches = self.side**2
        seen = min(max(1, round((1 - self.hidden) * patches)), patches - 1)
        return torch.rand(count, patches, device=device).argsort(1)[:, :seen].sort(1).values


@torch.no_grad()
def _grid(backbone: Backbone, image_size: int) -> tuple[int, int]:
    """Patches along a side, and how many tokens stand before those of the patches."""
    wrong = (
        "this method hides patches from a transformer, and this backbone does not turn them into tokens: use backbone "
        "vit, or one of timm's"
    )
    mode = backbone.training
    backbone.eval()
    try:
        tokens = backbone.blocks[0](torch.zeros(1, backbone.in_channels, image_size, image_size))
    except (RuntimeError, ShapeError):
        # A network of vectors.
        raise ConfigError(wrong) from None
    if tokens.dim() != 3 or len(backbone.blocks) < 2:
        raise ConfigError(wrong)
    maps = backbone.grid(tokens)
    backbone.train(mode)
    extra = tokens.shape[1] - maps.shape[2] * maps.shape[3]
    if maps.shape[2] != maps.shape[3] or extra < 0 or maps.shape[2] < 2:
        raise ConfigError(wrong)
    return maps.shape[2], extra


@register("methods", "masked-autoencoder")
class MaskedAutoencoder(Rebuilding):
    r"""Masked autoencoder: pretraining without labels by drawing what is hidden; one view of each image.

    He et al., *Masked Autoencoders Are Scalable Vision Learners* (2022). Of the patches of an image, a share is hidden,
    drawn anew in every step. The transformer sees the visible ones alone, which makes a step cheap; a small decoder
    sees what it made of them, a learned token at every hidden place, and positions, and predicts the pixels of all
    patches. With :math:`H` the hidden patches, and their pixels :math:`x_p` brought to mean 0 and variance 1 in each
    patch:

    .. math:: \ell = \frac{1}{|H|} \sum_{p \in H} \frac{1}{d} \lVert \hat x_p - x_p \rVert^2

    The read-out sees the mean of the visible patches while training, and that of all of them afterwards.

    Args:
        model: normalisation, backbone and head; the backbone is a transformer, whose first block makes tokens of
            patches. The head is the read-out.
        image_size: side of the images in pixels; told by the trainer.
        hidden: share of the patches that is hidden, above 0 and below 1; the paper's 0.75. At least one patch is hidden
            and one is seen.
        width: of the decoder; half of the backbone's, and a multiple of 8, if None.
        depth: blocks of the decoder. The paper's 8 is for large images.
        normalise: whether the pixels of each patch are brought to mean 0 and variance 1, as in the paper's best.

    Raises:
        ConfigError: an option out of range, or a backbone that does not turn patches into tokens.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, MaskedAutoencoder, Normalize
        >>> net = backbones.ViT(in_channels=1, image_size=8, patch=2, dim=16, depth=2, heads=2)
        >>> method = MaskedAutoencoder(Classifier(Normalize([0.5], [0.25]), net, heads.Linear(16, 2)), image_size=8)
        >>> batch = Batch((torch.rand(4, 1, 8, 8),), torch.full((4,), -1), torch.arange(4))
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'loss', 'readout_loss']
    """

    needs = Needs(
        step="whole",
        # What is hidden is drawn for a whole batch.
        per_sample=False,
        defaults={"backbone": "vit", "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05},
    )
    example_backbone = "vit:patch=2,dim=16,depth=2,heads=2"

    def __init__(
        self,
        model: Classifier,
        image_size: int,
        hidden: Annotated[float, Between(0, 1, "()")] = 0.75,
        width: Annotated[int, AtLeast(8)] | None = None,
        depth: Annotated[int, AtLeast(1)] = 2,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.normalise = normalise
        self.make_decoder(model, image_size, hidden, width, depth)

    @torch.no_grad()
    def rebuild(self, images: Tensor, order: Tensor) -> Tensor:
        """Images in [0, 1] of which the patches that are not in `order` are drawn by the decoder, and the others stay.

        Where pixels were normalised in training, the mean and the deviation of a hidden patch are unknown: those of the
        seen patches of its image stand for them.
        """
        drawn = self.paint(self.see(images, order)[0], order)
        if self.normalise:
            own = patches_of(images, self.side)
            seen = own.gather(1, order[:, :, None].expand(-1, -1, own.shape[2]))
            mean, deviation = seen.mean((1, 2), keepdim=True), seen.std((1, 2), keepdim=True)
            drawn = drawn * deviation + mean
        return self.joined(images, order, drawn.clamp(0, 1))

    def step(self, batch: Batch) -> Step:
        images = batch.images
        order = self.drawn(len(images), images.device)
        seen, features = self.see(images, order)
        painted = at_least_float32(self.paint(seen, order))
        wanted = patches_of(images, self.side).to(painted.dtype)
        if self.normalise:
            variance = wanted.var(2, keepdim=True, correction=min(1, wanted.shape[2] - 1))
            wanted = (wanted - wanted.mean(2, keepdim=True)) / (variance + 1e-6).sqrt()
        hidden = torch.ones(wanted.shape[:2], dtype=painted.dtype, device=images.device).scatter(1, order, 0.0)
        loss = ((painted - wanted).square().mean(2) * hidden).sum() / hidden.sum().clamp_min(1)
        readout, logs = read_out(self.model.head, features, batch.targets)
        return Step(loss + readout, {"loss": loss.detach(), **logs})
