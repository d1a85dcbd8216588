"""AdaMixUp: mixed samples whose shares are learned, so that no mixture looks like a real sample of another class."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import LogitsLoss, Loss, reduce
from repertoire.methods._base import Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.methods._precision import at_least_float32
from repertoire.ops import not_counting, rewinding
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["AdaMixUp"]


@register("methods", "adamixup", paper="adamixup")
class AdaMixUp(Classifying):
    r"""Supervised training that also mixes samples, in shares that are learned so that mixtures look like nothing real.

    Guo, Mao and Zhang, *MixUp as Locally Linear Out-Of-Manifold Regularization* (2018). Half a horse and half a rider
    may look like a third class, and mixup then teaches that it is none ("manifold intrusion"). Here a policy looks at a
    pair and says between which shares it may be mixed, and a head d of the same network learns to tell mixtures from
    real samples, which policy and network both help with:

    .. math::
        (\alpha, \Delta, \cdot) = \mathrm{softmax}\,\pi(x, x'), \qquad
        \lambda = \alpha + u \Delta, \quad u \sim U(0, 1), \qquad
        \tilde x = \lambda x + (1 - \lambda) x'

    .. math:: \ell = \ell\bigl(f(x), y\bigr) + \ell\bigl(f(\tilde x), \lambda y + (1 - \lambda) y'\bigr)
        - \gamma \bigl[ \log d(x) + \log (1 - d(\tilde x)) \bigr]

    A pair whose mixtures look real costs, and the gradient reaches the policy through the share. The policy is small
    and looks at the features of the pair, which take no gradient from it; the paper has a network of its own that looks
    at the images. Real samples and mixtures pass through the network together, so that batch normalisation does not
    tell them apart, after a pass without a gradient for the policy.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits that takes soft targets.
        intrusion: gamma, the weight of telling mixtures from real samples; 0 or more, 1 in the paper.
        mixed: weight of the loss of mixtures; 0 or more, 1 in the paper.
        hidden: width of the policy's hidden layer.

    Attributes:
        policy: features of a pair `[N, 2 d]` to three numbers.
        real: features `[N, d]` to the logit of being real.

    Raises:
        ConfigError: a loss without soft targets, or an option out of range; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import AdaMixUp, Classifier, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 3))
        >>> method = AdaMixUp(model, losses.CrossEntropy())
        >>> step = method.step(Batch((torch.rand(4, 1, 8, 8),), torch.tensor([0, 1, 2, 0]), torch.arange(4)))
        >>> sorted(step.logs)
        ['accuracy', 'intrusion_loss', 'loss', 'mixed_loss', 'share']
    """

    needs = Needs(labels="required", targets=frozenset({"classes"}), step="whole", per_sample=False)

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        intrusion: Annotated[float, AtLeast(0)] = 1.0,
        mixed: Annotated[float, AtLeast(0)] = 1.0,
        hidden: Annotated[int, AtLeast(1)] = 64,
    ) -> None:
        super().__init__(model, loss)
        if isinstance(loss, LogitsLoss) and not loss.soft:
            raise ConfigError(
                f"this method makes soft targets, which loss {type(loss).__name__} does not take: use cross-entropy, "
                "or method 'supervised'"
            )
        width = model.backbone.out_features
        self.intrusion = intrusion
        self.mixed = mixed
        self.policy = nn.Sequential(nn.Linear(2 * width, hidden), nn.ReLU(), nn.Linear(hidden, 3))
        self.real = nn.Linear(width, 1)

    def interval(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Between which shares of the first sample pairs with these features `[N, d]` may be mixed, `[N]` each."""
        alpha, delta, _ = at_least_float32(self.policy(torch.cat([first, second], 1))).softmax(1).unbind(1)
        return alpha, alpha + delta

    def step(self, batch: Batch) -> Step:
        images, count = batch.images, len(batch)
        order = torch.randperm(count, device=images.device)
        drawn = torch.rand(count, device=images.device)
        rewind = rewinding(images.device)
        with torch.no_grad(), not_counting(self.model):
            features = self.model.embed(images)
        rewind()
        low, high = self.interval(features, features[order])
        share = low + drawn.to(low) * (high - low)
        weight = share.to(images.dtype).view(-1, *[1] * (images.dim() - 1))
        mixed = weight * images + (1 - weight) * images[order]
        real, made = self.model.embed(torch.cat([images, mixed])).split([count, count])
        found = self.classify(real, batch.targets)
        of_mixed = self._of_mixed(made, batch.targets, order, share)
        told = at_least_float32(self.real(torch.cat([real, made]))).squeeze(1)
        answers = torch.cat([torch.ones_like(told[:count]), torch.zeros_like(told[count:])])
        # The mean of the samples plus that of the mixtures, of which there are as many.
        intrusion = 2 * reduce(F.binary_cross_entropy_with_logits(told, answers, reduction="none"), "mean")
        loss = found.loss + self.mixed * of_mixed + self.intrusion * intrusion
        logs = {
            "mixed_loss": of_mixed.detach(),
            "intrusion_loss": intrusion.detach(),
            "share": reduce(share.detach(), "mean"),
        }
        return Step(loss, {**found.logs, **logs, "loss": loss.detach()})

    def _of_mixed(self, features: Tensor, targets: Tensor, order: Tensor, share: Tensor) -> Tensor:
        one_hot = F.one_hot(targets.long(), self.model.head.num_classes).to(share)
        soft = share[:, None] * one_hot + (1 - share[:, None]) * one_hot[order]
        outputs = self.model.head.outputs(features, soft)
        return torch.stack([weight * self.loss(logits, soft) for weight, logits in outputs]).sum()
