"""DenseCL: places of the feature map are contrasted beside whole images."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.backbones import Backbone
from repertoire.errors import ConfigError
from repertoire.losses import info_nce_loss
from repertoire.methods._classifier import Classifier
from repertoire.methods._mlp import mlp
from repertoire.methods._precision import at_least_float32
from repertoire.methods._two_networks import TwoNetworks
from repertoire.ops import Queue
from repertoire.ranges import AtLeast, Positive, Share
from repertoire.registry import register

__all__ = ["DenseCL"]


class _Seen(NamedTuple):
    """Output of a network for a batch: features `[N, d]`, projections `[N, D]`; and of the S places of each image the
    map `[N, S, d]` and its projections `[N, S, D]`."""

    features: Tensor
    projected: Tensor
    places: Tensor
    projected_places: Tensor


@register("methods", "densecl", paper="densecl")
class DenseCL(TwoNetworks):
    r"""DenseCL: MoCo on whole images and on the places of the feature map, for networks that are to find and segment.

    Wang et al., *Dense Contrastive Learning for Self-Supervised Visual Pre-Training* (2020). A second projector looks
    at each place of the last feature map. The positive of a place s of one view is the place of the other view whose
    features f' are most similar to its own, by cosine, before the projector; with the projections r and t of student
    and teacher, and the negatives t_n, each the mean over the places of an image of an earlier batch:

    .. math::
        \ell_\text{dense} = -\frac{1}{S} \sum_s \log \frac{\exp(r_s \cdot t_{m(s)} / \tau)}
            {\exp(r_s \cdot t_{m(s)} / \tau) + \sum_n \exp(r_s \cdot t_n / \tau)}, \qquad
        m(s) = \arg\max_j \cos(f_s, f'_j)

    and the loss is :math:`(1 - \lambda)\,\ell_\text{MoCo} + \lambda\,\ell_\text{dense}`, the first on whole images as
    in :class:`repertoire.methods.MoCo`. Both have a queue of their own, which begins empty: the first batch is
    contrasted with its own keys.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        dense: lambda, the weight of the places, in [0, 1]; 0 is MoCo.
        warm_up: updates at the beginning in which lambda is 0, until the features know what is alike; the released code
            has a thousand of them.
        temperature: tau, positive.
        momentum: of the teacher, in [0, 1]; 0.999 in the paper, and 0.99 or less for a run of a few thousand steps.
        queue: keys to remember in each queue; 65536 in the paper.
        dimensions: width of the embeddings.
        hidden: width of the projectors' hidden layers; the backbone's own width if None, as in the paper.

    Raises:
        ConfigError: a width, a queue or a temperature that is not positive, a momentum or weight out of range, or in
            the first step a backbone whose map has another width than its features.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, DenseCL, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = DenseCL(Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2)), queue=8)
        >>> batch = Batch((torch.rand(4, 1, 4, 4), torch.rand(4, 1, 4, 4)), torch.full((4,), -1), torch.arange(4))
        >>> method.step(batch).loss.backward()
        >>> method.after_update()  # after the step of the optimiser
        >>> len(method.queue), len(method.dense_queue)
        (4, 4)
    """

    def __init__(
        self,
        model: Classifier,
        dense: Annotated[float, Share] = 0.5,
        warm_up: Annotated[int, AtLeast(0)] = 0,
        temperature: Annotated[float, Positive] = 0.2,
        momentum: Annotated[float, Share] = 0.999,
        queue: Annotated[int, AtLeast(1)] = 4096,
        dimensions: Annotated[int, AtLeast(1)] = 128,
        hidden: Annotated[int, AtLeast(1)] | None = None,
    ) -> None:
        width = model.backbone.out_features
        whole, places = (mlp(width, hidden or width, dimensions, batch_norm=False) for _ in range(2))
        super().__init__(model, nn.ModuleDict({"whole": whole, "places": places}), momentum)
        self.dense = dense
        self.warm_up = warm_up
        self.temperature = temperature
        self.queue = Queue(queue, dimensions)
        self.dense_queue = Queue(queue, dimensions)

    def compare(self, views: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        queries = _look(self.student, views[0])
        with torch.no_grad():
            keys = _look(self.teacher.network, views[1])
            whole = F.normalize(keys.projected)
            pooled = F.normalize(keys.projected_places.mean(1))
            alike = F.normalize(queries.places, dim=2) @ F.normalize(keys.places, dim=2).transpose(1, 2)
            match = alike.argmax(2, keepdim=True).expand(-1, -1, keys.projected_places.shape[2])
            positives = keys.projected_places.gather(1, match)
        self.queue.see(whole)
        self.dense_queue.see(pooled)
        # The teacher counts the updates; the weight stays on the device.
        weight = torch.where(self.teacher.updates < self.warm_up, 0.0, self.dense)
        one = self._contrast(queries.projected, whole, self.queue)
        two = self._contrast(queries.projected_places.flatten(0, 1), positives.flatten(0, 1), self.dense_queue)
        return (1 - weight) * one + weight * two, queries.features

    def _contrast(self, queries: Tensor, keys: Tensor, queue: Queue) -> Tensor:
        return info_nce_loss(
            queries, keys, temperature=self.temperature, negatives=queue.rows.to(keys.dtype) if len(queue) else None
        )


def _look(network: nn.Module, images: Tensor) -> _Seen:
    """Runs normalisation, backbone and the two projectors on images."""
    normalize, backbone, projectors = network.children()
    assert isinstance(backbone, Backbone)
    assert isinstance(projectors, nn.ModuleDict)
    last = backbone.forward_map(normalize(images))
    features, places = backbone.pool(last), backbone.grid(last).flatten(2).transpose(1, 2)
    if places.shape[2] != features.shape[1]:
        raise ConfigError(
            f"densecl needs a map as wide as the features, {features.shape[1]}, and this backbone's has "
            f"{places.shape[2]} channels; use moco, or another backbone"
        )
    projected, projected_places = projectors["whole"](features), projectors["places"](places)
    wide = [at_least_float32(found) for found in (projected, places, projected_places)]
    return _Seen(features, *wide)
