"""Virtual adversarial training: answers that do not change where they would change most easily."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from repertoire.data import Batch
from repertoire.losses import Loss, entropy_loss, virtual_adversarial_loss
from repertoire.methods._base import Needs, Step, Stream
from repertoire.methods._beside import STREAM, all_images, at_ratio
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.ops import not_counting, rewinding
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["VAT"]


@register("methods", "vat", paper="vat")
class VAT(Classifying):
    r"""Virtual adversarial training: answers stay what they are where they would change most easily, labelled or not.

    Miyato, Maeda, Koyama and Ishii, *Virtual Adversarial Training: A Regularization Method for Supervised and
    Semi-Supervised Learning* (2017). With the B labelled samples of a batch, and all N of it:

    .. math:: \ell = \frac{1}{B} \sum_b \ell\bigl(f(x_b), y_b\bigr) + \frac{\lambda}{N} \sum_i
        \mathrm{KL}\bigl(p(x_i) \,\|\, p(x_i + \epsilon\,d_i)\bigr) \; \Bigl[{} + \frac{1}{N} \sum_i H(p(x_i)) \Bigr]

    where d is the direction of length one in which the answer changes fastest, found by a power step without a label
    (:func:`repertoire.losses.virtual_adversarial_loss`), and the last term, the entropy of the answers, is there with
    `entropy`. Unlabelled samples are learned from where there are any; without, it is a regulariser of supervised
    training.

    Lengths are measured in inputs of mean 0 and deviation 1 in each channel, as the network gets them, so that one
    epsilon does for images and for features: of images whose deviation is 0.25, 8 there are 2 in pixels of [0, 1]. The
    paper tunes epsilon alone, with lambda at 1.

    A step has two passes more, one of them with a backward pass to the inputs. All of them see the dropout masks of the
    first, and only the first moves the statistics of batch normalisation.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits, for the labelled samples.
        epsilon: length of the change of a sample, 0 or more. The one number to tune.
        weight: lambda, 0 or more.
        entropy: also ask the answers to be sure, which the paper finds to help with few labels.
        steps: power iterations; 1 in the paper. With 0 directions are random, the paper's baseline.
        xi: length of the step of the finite difference; what the precision asks for if None.
        ratio: unlabelled samples for each labelled one; above 0. The released code has 4.

    Raises:
        ConfigError: an option out of range; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import VAT, Classifier, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = VAT(model, losses.CrossEntropy(), epsilon=1.0, entropy=True)
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> batch.streams = {"unlabelled": Batch((torch.rand(8, 1, 4, 4),), torch.full((8,), -1), torch.arange(8))}
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'adversarial_loss', 'entropy', 'loss']
    """

    needs = Needs(
        labels="required",
        targets=frozenset({"classes"}),
        streams={STREAM: Stream(per_sample=4, optional=True)},
        step="whole",
        # Each sample counts alone, but begins its search at random: pieces would search from elsewhere.
        per_sample=False,
    )

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        epsilon: Annotated[float, AtLeast(0)] = 8.0,
        weight: Annotated[float, AtLeast(0)] = 1.0,
        entropy: bool = False,
        steps: Annotated[int, AtLeast(0)] = 1,
        xi: Annotated[float, Positive] | None = None,
        ratio: Annotated[float, Positive] = 4.0,
    ) -> None:
        super().__init__(model, loss)
        self.epsilon = epsilon
        self.weight = weight
        self.entropy = entropy
        self.steps = steps
        self.xi = xi
        self.needs = at_ratio(self.needs, ratio)

    def step(self, batch: Batch) -> Step:
        images = all_images(batch)
        rewind = rewinding(images.device)
        features = self.model.embed(images)
        found = self.classify(features[: len(batch)], batch.targets)
        logits = self.model.head(features)
        scale = self._scale(images)

        def network(scaled: Tensor) -> Tensor:
            return self.model(scaled * scale)

        with not_counting(self.model):
            smooth = virtual_adversarial_loss(
                network,
                images / scale,
                logits=logits,
                rewind=rewind,
                epsilon=self.epsilon,
                xi=self.xi,
                steps=self.steps,
            )
        loss = found.loss + self.weight * smooth
        logs = {**found.logs, "adversarial_loss": smooth.detach()}
        if self.entropy:
            doubt = entropy_loss(logits)
            loss = loss + doubt
            logs["entropy"] = doubt.detach()
        return Step(loss, {**logs, "loss": loss.detach()})

    def _scale(self, images: Tensor) -> Tensor:
        """The deviations that the network divides inputs by; 1 where what enters is no input any more."""
        if self.model.enters is not None:
            return images.new_ones(())
        std = self.model.normalize.std.to(images)
        return std.flatten() if images.ndim == 2 else std
