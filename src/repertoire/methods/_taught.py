"""The base of methods that learn from targets and from a finished run."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from repertoire.errors import ConfigError, option
from repertoire.losses import Loss
from repertoire.methods._classifier import Classifier, Normalize
from repertoire.methods._classifying import Classifying
from repertoire.methods._precision import at_least_float32

__all__ = ["Taught"]


class Taught(Classifying):
    """Base of methods that learn from targets, and from what the network of a finished run says.

    The teacher answers as it did when its run was over, whatever the mode of the method, and is trained no more.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits, for the labelled samples.
        teacher: a trained classifier.
        name: of the method, for messages.

    Raises:
        ConfigError: there is no teacher, or one of another number of classes; see also `Classifying`.
    """

    def __init__(self, model: Classifier, loss: Loss, teacher: Classifier | None, name: str) -> None:
        super().__init__(model, loss)
        if teacher is None:
            raise ConfigError(
                f"method {name!r} learns from another run: give {option('teacher', 'runs/NAME')}, or use method "
                "'supervised'"
            )
        if teacher.head.num_classes != model.head.num_classes:
            raise ConfigError(
                f"the teacher knows {teacher.head.num_classes} classes, and this network is to learn "
                f"{model.head.num_classes}: use a run on the same classes"
            )
        self.teacher = teacher.requires_grad_(False)
        self.train(self.training)

    @classmethod
    def example_options(cls) -> dict[str, Any]:
        """Options for an example of four classes and images of 8 x 8 pixels, where the defaults do not do."""
        from repertoire import backbones, heads

        net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
        return {"teacher": Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 4))}

    def train(self, mode: bool = True) -> Self:
        """The teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def answers(self, images: Tensor) -> Tensor:
        """What the teacher says of images: logarithms of probabilities `[N, C]`, in float32 at least."""
        return at_least_float32(self.teacher(images)).log_softmax(1)
