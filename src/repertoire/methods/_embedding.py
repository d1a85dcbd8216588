"""Training an embedding with a loss on embeddings or on views, and reading the classes out of it."""

from __future__ import annotations

from repertoire.methods._contrast import Projected
from repertoire.registry import register

__all__ = ["Embedding"]


@register("methods", "embedding")
class Embedding(Projected):
    """Trains backbone and projector with a contrastive loss, and a linear read-out that sends no gradient back.

    As in Khosla et al., *Supervised Contrastive Learning* (2020), the loss sees the output of a two-layer projector
    which is thrown away afterwards, and classes are read out of the backbone's features. The paper trains the read-out
    in a second stage; here it learns beside the encoder from detached features, which gives `predict` at any time and
    changes nothing for the encoder.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        loss: a loss on embeddings (it gets the labels) or on views (it does not).
        dimensions: width of the projector's output.
        hidden: width of the projector's hidden layer; the backbone's own width if None.
        batch_norm: batch normalisation before the projector's ReLU, as the papers of VICReg, Barlow Twins and W-MSE
            have it.

    Raises:
        ConfigError: a width that is not positive, a loss on logits, or one that needs to know more of a sample than its
            number in the data set.

    Example:
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.methods import Classifier, Embedding, Normalize
        >>> net = backbones.resnet20()
        >>> model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 10))
        >>> import torch
        >>> from repertoire.data import Batch
        >>> method = Embedding(model, losses.SupCon())
        >>> views = (torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32))
        >>> sorted(method.step(Batch(views, torch.tensor([0, 0, 1, 1]), torch.arange(4))).logs)
        ['accuracy', 'loss', 'readout_loss']
    """
