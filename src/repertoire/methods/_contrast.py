"""The base of methods that train a projector with a loss on embeddings or on views."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import Loss
from repertoire.methods._apply import KNOWN, apply_loss, check_wants, on_features
from repertoire.methods._base import Method, Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._mlp import mlp
from repertoire.methods._readout import read_out
from repertoire.ranges import AtLeast

__all__ = ["Projected"]


class Projected(Method):
    """Base of methods that train backbone and projector with a loss on embeddings or on views.

    The projector is thrown away afterwards; the head is a read-out that learns from detached features, which gives
    `predict` at any time and changes nothing for the encoder.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        loss: a loss on embeddings (it gets the labels) or on views (it does not).
        dimensions: width of the projector's output.
        hidden: width of the projector's hidden layer; the backbone's own width if None.
        batch_norm: batch normalisation before the projector's ReLU.

    Raises:
        ConfigError: a width that is not positive, a loss on logits, or one that needs to know more of a sample than its
            number in the data set.
    """

    needs = Needs(views=2, labels="used", per_sample=False, augmentation="simclr", loss="supcon")
    #: What the method can tell a loss of its samples.
    known: ClassVar[tuple[str, ...]] = KNOWN

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        dimensions: Annotated[int, AtLeast(1)] = 128,
        hidden: Annotated[int, AtLeast(1)] | None = None,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if not on_features(loss):
            other = "unlabelled-loss:term=..." if loss.contract == "predictions" else "supervised"
            raise ConfigError(
                f"loss {type(loss).__name__} is one on {loss.contract}, and this method needs one on embeddings or on "
                f"views: use method {other!r} for it, or another loss"
            )
        check_wants(loss, self.known)
        self.model = model
        self.loss = loss
        labels: Literal["used", "unused"] = "unused" if loss.contract == "views" else "used"
        fields = frozenset(name for name in loss.wants if name != "index")
        self.needs = replace(type(self).needs, views=self._views(loss), labels=labels, fields=fields)
        loss.prepare(dimensions)
        width = model.backbone.out_features
        self.projector = mlp(width, hidden or width, dimensions, batch_norm=batch_norm)

    def _views(self, loss: Loss) -> int:
        """Number of views of each sample that a batch must have for this loss."""
        return max(2, loss.views)

    @property
    def block_loss(self) -> Loss:
        return self.loss

    def objective(self, features: Tensor, batch: Batch) -> Step:
        loss = apply_loss(self.loss, self.projector(features), batch)
        readout, logs = read_out(self.model.head, features, batch.targets.repeat(len(batch.views)))
        return Step(loss + readout, {"loss": loss.detach(), **logs})
