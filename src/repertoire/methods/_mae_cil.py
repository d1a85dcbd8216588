"""Classes in stages with a classifier that is a masked autoencoder, too: a few patches of an image are enough to
remember it by."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Self

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.losses import Loss
from repertoire.methods._base import REPLAY, Needs, Stage, Step, Stream
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.methods._masked_autoencoder import Rebuilding, patches_of, pixels_of
from repertoire.methods._precision import at_least_float32
from repertoire.methods._staged import as_it_was, softened_divergence
from repertoire.ranges import AtLeast, Between, Positive
from repertoire.registry import register

__all__ = ["MAECIL"]

SHALLOW = 2
"""Blocks of the transformer whose tokens the detail branch sees."""

CHANNELS = 0.2
"""Share of the channels of these tokens that it sees."""

MORE = 9 / 16
"""Share of the patches that are seen for what the detail branch learns from."""

LOW = 0.7
"""Share of the frequencies along each side that are low."""


@register("methods", "mae-cil", paper="mae-cil")
class MAECIL(Rebuilding, Classifying):
    r"""Learns classes in stages and how to draw hidden patches, with one transformer: images are remembered as patches.

    Zhai et al., *Masked Autoencoders are Efficient Class Incremental Learners* (2023). New samples and remembered ones
    are classified from all their patches; of the same images, the transformer also sees a random few, and a decoder
    draws the others. With :math:`H` the hidden patches, :math:`x_p` their standardised pixels, and :math:`T` the
    temperature, a step of a stage that finds k of K classes known minimises

    .. math::
        \ell = (1 - \tfrac k K) \Bigl(\ell_\text{class} + \frac{\lambda}{|H|} \sum_{p \in H} \frac{1}{d}
        \lVert \hat x_p - x_p \rVert^2 + \mu\, \ell_\text{detail}\Bigr) + \tfrac k K\, T^2\, \mathrm{KL}

    where KL compares the probabilities of the known classes with those of the network as it was before the stage; in
    the first stage it is not there.

    The image is drawn by two branches: :math:`\hat x` is what the decoder makes of the last tokens, plus the high
    frequencies of what it makes of some channels of tokens after the second block. The latter are told what a drawing
    from 9/16 of the patches would add to the one at hand: :math:`\ell_\text{detail}` is the mean difference of the high
    frequencies (those of the cosine transform that are in the upper 30 % along a side or both) in absolute terms. The
    transformer is not trained by it.

    What is remembered may be patches (`store=patches` of a protocol, :class:`repertoire.protocols.Patches`): before a
    stage, the network as the stage before has left it draws what is missing, and the images that come out are replayed
    like any others. With a memory of whole images it is replay beside masked autoencoding.

    In the authors' code the frequencies that it means to take away are kept and the others lost, patches are the same
    for all images, the loss is binary cross-entropy with a head for each stage, and the classifier also gets early
    tokens; a balanced fine-tuning follows each stage. Here the loss is the user's, the head has a row for each class,
    and the latter two are not there.

    Args:
        model: normalisation, backbone and head; the backbone is a transformer, whose first block makes tokens of
            patches.
        loss: a loss on logits.
        image_size: side of the images in pixels; told by the trainer.
        hidden: share of the patches that is hidden in training, above 0 and below 1; the paper's 0.75.
        rebuilding: lambda, weight of the hidden pixels, positive; 1 as in the authors' code.
        detail: mu, weight of the detail branch, 0 or more; with 0 there is none. In the authors' code it is 0.02 for
            frequencies that are 32 times as large, which is the default of 0.64.
        distil: whether the network as it was before a stage teaches its classes, as in the paper.
        temperature: of the distillation, positive; 1 as in the authors' code.
        width: of the decoder; half of the backbone's, and a multiple of 8, if None.
        depth: blocks of the decoder; 1 as in the authors' code.
        ratio: remembered samples for each new one, above 0.

    Raises:
        ConfigError: an option out of range, or a backbone that does not turn patches into tokens; see also
            `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import MAECIL, Classifier, Normalize
        >>> net = backbones.ViT(in_channels=1, image_size=8, patch=2, dim=16, depth=2, heads=2)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(16, 4))
        >>> method = MAECIL(model, losses.CrossEntropy(), image_size=8)
        >>> batch = Batch((torch.rand(4, 1, 8, 8),), torch.tensor([2, 2, 3, 3]), torch.arange(4))
        >>> batch.streams = {"replay": Batch((torch.rand(2, 1, 8, 8),), torch.tensor([0, 1]), torch.arange(2))}
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'classification_loss', 'detail_loss', 'loss', 'rebuilding_loss']
        >>> method.rebuild(torch.rand(2, 1, 8, 8), torch.tensor([[0, 3, 5, 9], [1, 2, 3, 15]])).shape
        torch.Size([2, 1, 8, 8])
    """

    needs = Needs(
        labels="required",
        targets=frozenset({"classes"}),
        streams={REPLAY: Stream(optional=True, labels=True)},
        step="whole",
        # What is hidden is drawn for a whole batch.
        per_sample=False,
        defaults={"backbone": "vit", "optimizer": "adamw", "lr": 5e-4, "weight_decay": 1e-6},
    )
    example_backbone = "vit:patch=2,dim=16,depth=2,heads=2"

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        image_size: int,
        hidden: Annotated[float, Between(0, 1, "()")] = 0.75,
        rebuilding: Annotated[float, Positive] = 1.0,
        detail: Annotated[float, AtLeast(0)] = 0.64,
        distil: bool = True,
        temperature: Annotated[float, Positive] = 1.0,
        width: Annotated[int, AtLeast(8)] | None = None,
        depth: Annotated[int, AtLeast(1)] = 1,
        ratio: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__(model, loss)
        self.rebuilding = rebuilding
        self.detail = detail
        self.distil = distil
        self.temperature = temperature
        self.known = 0
        self.teacher: Classifier | None
        self.register_module("teacher", None)
        self.make_decoder(model, image_size, hidden, width, depth)
        if detail:
            dim = model.backbone.out_features
            self.expand = nn.Linear(max(1, int(CHANNELS * dim)), dim)
        self.needs = replace(self.needs, streams={REPLAY: replace(self.needs.streams[REPLAY], per_sample=ratio)})

    def train(self, mode: bool = True) -> Self:
        """The copy stays in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def begin(self, stage: Stage) -> None:
        self.known = len(stage.classes) - len(stage.new)
        self.teacher = as_it_was(self.model) if self.known and self.distil else None

    def high_frequencies(self, images: Tensor) -> Tensor:
        """Images without what varies slowly along both sides."""
        low = _low_frequencies(images.shape[-1], images)
        return images - low @ images @ low

    def painted(self, images: Tensor, order: Tensor) -> tuple[Tensor, Tensor | None]:
        """The pixels of all patches, standardised, as either branch draws them: `[N, P, C p p]`, and images of high
        frequencies `[N, C, H, W]`; None where there is no detail branch."""
        layers = self.layers(images, order)
        main = at_least_float32(self.paint(layers[-1], order))
        if not self.detail:
            return main, None
        early = layers[min(SHALLOW, len(layers)) - 1].detach()[..., : self.expand.in_features]
        drawn = at_least_float32(self.paint(self.expand(early), order))
        return main, self.high_frequencies(pixels_of(drawn, images.shape[1], images.shape[-1]))

    def whole(self, main: Tensor, fine: Tensor | None) -> Tensor:
        """The pixels of all patches by both branches together."""
        return main if fine is None else main + patches_of(fine, self.side)

    @torch.no_grad()
    def rebuild(self, images: Tensor, order: Tensor) -> Tensor:
        drawn = self.whole(*self.painted(images, order))
        pixels = pixels_of(drawn, images.shape[1], images.shape[-1])
        pixels = pixels * self.model.normalize.std + self.model.normalize.mean
        return self.joined(images, order, patches_of(pixels.clamp(0, 1), self.side))

    def step(self, batch: Batch) -> Step:
        if REPLAY in batch.streams:
            batch = batch.join(batch.streams[REPLAY])
        images = batch.images
        features = self.model.embed(images)
        found = self.classify(features, batch.targets)
        drawn, details = self._drawing(images)
        loss = found.loss + self.rebuilding * drawn
        logs = {**found.logs, "classification_loss": found.loss.detach(), "rebuilding_loss": drawn.detach()}
        if details is not None:
            loss, logs["detail_loss"] = loss + self.detail * details, details.detach()
        if self.teacher is not None:
            with torch.no_grad():
                before = self.teacher(images)[:, : self.known]
            logits = self.model.head(features)
            apart = softened_divergence(logits[:, : self.known], before, self.temperature)
            share = self.known / logits.shape[1]
            loss = (1 - share) * loss + share * self.temperature**2 * apart
            logs["distillation_loss"] = apart.detach()
        return Step(loss, {**logs, "loss": loss.detach()})

    def _drawing(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The mean squared error of hidden pixels, and how far the detail branch is from what it should add."""
        places = torch.rand(len(images), self.side**2, device=images.device).argsort(1)
        seen = self._count(1 - self.hidden)
        order = places[:, :seen].sort(1).values
        main, fine = self.painted(images, order)
        wanted = patches_of(at_least_float32(self.model.normalize(images)), self.side)
        hidden = torch.ones(wanted.shape[:2], dtype=main.dtype, device=images.device).scatter(1, order, 0.0)
        error = ((self.whole(main, fine) - wanted).square().mean(2) * hidden).sum() / hidden.sum().clamp_min(1)
        if fine is None:
            return error, None
        with torch.no_grad():
            more = places[:, : max(seen, self._count(MORE))].sort(1).values
            better = at_least_float32(self.paint(self.layers(images, more)[-1], more))
            added = self.high_frequencies(pixels_of(better - main, images.shape[1], images.shape[-1]))
        return error, (fine - added).abs().mean(dim=(1, 2, 3)).sum() / max(1, len(images))

    def _count(self, share: float) -> int:
        """How many patches a share of them is: one at least, and not all."""
        return min(max(1, round(share * self.side**2)), self.side**2 - 1)


def _low_frequencies(size: int, like: Tensor) -> Tensor:
    """What keeps the low frequencies of a row of so many pixels, as a matrix: a projection onto the first vectors of
    the discrete cosine transform."""
    # Made anew in every step, which costs little: it is no state, and goes where the images are.
    place = torch.arange(size, dtype=like.dtype, device=like.device)
    basis = torch.cos(math.pi / size * (place[None] + 0.5) * place[:, None])
    basis /= basis.norm(dim=1, keepdim=True)
    first = basis[: max(1, round(LOW * size))]
    return first.T @ first
