"""Meta auxiliary learning: finer labels that nobody gave, made so that learning them helps with the classes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from repertoire.data import Batch
from repertoire.heads import Linear
from repertoire.losses import Loss, reduce
from repertoire.methods._base import Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.methods._precision import at_least_float32
from repertoire.ops import not_counting, rewinding
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["MetaAuxiliary"]


class _Passed(NamedTuple):
    """What one pass says of a batch: the loss of the classes, the cost of each finer label, and what to log."""

    primary: Tensor
    costs: Tensor
    logs: Mapping[str, Tensor]


class _Network(nn.Module):
    """All that learns classes and finer labels, as one module whose weights can be exchanged for a pass."""

    def __init__(self, method: MetaAuxiliary) -> None:
        super().__init__()
        self.model = method.model
        self.auxiliary = method.auxiliary
        self.passed = method.passed

    def forward(self, batch: Batch) -> _Passed:
        return self.passed(batch)


@register("methods", "meta-auxiliary", paper="maxl")
class MetaAuxiliary(Classifying):
    r"""Supervised training with a second task whose labels another network makes up, so that they help with the first.

    Liu, Davison and Johns, *Self-Supervised Generalisation with Meta Auxiliary Learning* (2019; MAXL). Every class is
    divided into :math:`\psi` finer ones. A generator g looks at a sample and its class, and gives soft labels of the
    finer ones of that class alone (a masked softmax); a second head of the network learns them, by the focal loss of
    all K :math:`\psi`:

    .. math:: L(\theta, \phi) = \ell(\theta) + \frac{\omega}{N} \sum_i \sum_j
        g_\phi(x_i, y_i)_j\,c_{ij}(\theta), \qquad c_{ij} = -\bigl(1 - p_{ij}\bigr)^\gamma \log p_{ij}

    The generator learns how well the network knows the *classes* after a step on its labels, and that each finer class
    is to be used, with the mean :math:`\bar g` of its labels over the batch:

    .. math:: \theta^+ = \theta - \alpha \nabla_\theta L(\theta, \phi), \qquad
        \min_\phi\; \ell(\theta^+) + \lambda \sum_j \bar g_j \log \bar g_j

    The first term reaches the labels through the gradient inside the step, which takes a second derivative. With
    `first_order` that is a finite difference along :math:`v = \nabla \ell(\theta^+)`, of the costs at
    :math:`\theta \pm \varepsilon v`, which is close, and takes no second derivative; to leave it out altogether, as
    first-order meta-learning does elsewhere, would leave the generator nothing to learn from. Of the two released
    scripts, the one of second order cuts that gradient off, and the other one leaves the entropy out: here both terms
    count in both.

    Passes that look ahead see the dropout masks of the first, leave no trace in batch normalisation, and are in full
    precision. Generator and network learn in the same step, where the paper takes turns epoch by epoch. A step costs
    about five times that of supervised training. All that is left of it in the end is the network.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits for the classes; the focal loss, as in the released code, where none is named.
        psi: finer labels of each class, 1 or more.
        rate: alpha, the length of the step that is looked ahead; above 0, 0.01 in the released code.
        weight: omega, 0 or more.
        entropy: lambda, 0 or more; 0.2 in the paper.
        gamma: of the focal loss of the finer labels; 0 is cross-entropy.
        first_order: use a finite difference in the place of the second derivative.

    Attributes:
        auxiliary: features `[N, d]` to the logits of all finer labels, number c psi + j being the j-th of class c.
        generator: a network like `model`, which begins with its weights, and has as many outputs.

    Raises:
        ConfigError: an option out of range; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, MetaAuxiliary, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=8, width=4, depth=2)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 3))
        >>> method = MetaAuxiliary(model, losses.Focal(), psi=2)
        >>> batch = Batch((torch.rand(4, 1, 8, 8),), torch.tensor([0, 1, 2, 0]), torch.arange(4))
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'ahead_loss', 'auxiliary_loss', 'label_entropy', 'loss']
        >>> method.finer_labels(batch.images, batch.targets).sum(1).allclose(torch.ones(4))
        True
    """

    needs = Needs(
        labels="required",
        targets=frozenset({"classes"}),
        step="whole",
        per_sample=False,
        within_rank=True,
        loss="focal",
    )

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        psi: Annotated[int, AtLeast(1)] = 5,
        rate: Annotated[float, Positive] = 0.01,
        weight: Annotated[float, AtLeast(0)] = 1.0,
        entropy: Annotated[float, AtLeast(0)] = 0.2,
        gamma: Annotated[float, AtLeast(0)] = 2.0,
        first_order: bool = False,
    ) -> None:
        super().__init__(model, loss)
        width, outputs = model.backbone.out_features, model.head.num_classes * psi
        self.psi = psi
        self.rate = rate
        self.weight = weight
        self.entropy = entropy
        self.gamma = gamma
        self.first_order = first_order
        self.auxiliary = nn.Linear(width, outputs)
        self.generator = copy.deepcopy(model)
        self.generator.head = Linear(width, outputs)

    def finer_labels(self, images: Tensor, targets: Tensor) -> Tensor:
        """The shares `[N, psi]` of the finer labels of the samples' own classes."""
        return self._own(at_least_float32(self.generator(images)), targets).softmax(1)

    def _own(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Of outputs `[N, K psi]` those `[N, psi]` of each sample's class."""
        rows = torch.arange(len(outputs), device=outputs.device)
        return outputs.unflatten(1, (-1, self.psi))[rows, targets.long()]

    def passed(self, batch: Batch) -> _Passed:
        """One pass of the network through a batch; `costs` are `[N, psi]`."""
        features = self.model.embed(batch.images)
        found = self.classify(features, batch.targets)
        log_p = self._own(at_least_float32(self.auxiliary(features)).log_softmax(1), batch.targets)
        # Not quite zero: what is sure would have no second derivative.
        unsure = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).eps)
        return _Passed(found.loss, -(unsure**self.gamma) * log_p, found.logs)

    def step(self, batch: Batch) -> Step:
        rewind = rewinding(batch.images.device)
        found = self.passed(batch)
        labels = self.finer_labels(batch.images, batch.targets)
        auxiliary = self._learned(found.costs, labels.detach())
        ahead, slope = self._looked_ahead(batch, labels.detach(), rewind)
        spread = self._spread(labels, batch.targets)
        # Its value is that of the loss ahead, and its gradient reaches the generator alone.
        steered = ahead + (slope * labels).sum() - (slope * labels.detach()).sum()
        loss = found.primary + self.weight * auxiliary + steered - self.entropy * spread
        logs = {"auxiliary_loss": auxiliary.detach(), "ahead_loss": ahead, "label_entropy": spread.detach()}
        return Step(loss, {**found.logs, **logs, "loss": loss.detach()})

    def _learned(self, costs: Tensor, labels: Tensor) -> Tensor:
        return reduce((labels * costs).sum(1), "mean")

    def _spread(self, labels: Tensor, targets: Tensor) -> Tensor:
        """The entropy of all K psi finer labels over the batch."""
        sums = labels.new_zeros(self.model.head.num_classes, self.psi).index_add(0, targets.long(), labels)
        shares = sums / max(1, len(labels))
        return -torch.special.xlogy(shares, shares).sum()

    @torch.compiler.disable  # a derivative of a derivative is not what compilers are made for
    def _looked_ahead(self, batch: Batch, labels: Tensor, rewind: Callable[[], None]) -> tuple[Tensor, Tensor]:
        """`_ahead`, in full precision, and without a trace in the network."""
        kind = batch.images.device.type
        # Of attention only the plain form has second derivatives.
        with torch.autocast(kind, enabled=False), not_counting(self), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            return self._ahead(batch, labels, rewind)

    def _ahead(self, batch: Batch, labels: Tensor, rewind: Callable[[], None]) -> tuple[Tensor, Tensor]:
        """The loss of the classes after a step on these labels, and its derivative by the labels `[N, psi]`; both
        without a gradient."""
        network = _Network(self)
        own = {name: value for name, value in network.named_parameters() if value.requires_grad}
        weights = {name: value.detach().requires_grad_() for name, value in own.items()}
        labels = labels.clone().requires_grad_()

        def passed(given: Mapping[str, Tensor]) -> _Passed:
            rewind()
            found: _Passed = functional_call(network, dict(given), (batch,))
            return found

        def moved(along: Mapping[str, Tensor], length: float) -> dict[str, Tensor]:
            return {name: value.detach() + length * along[name] for name, value in weights.items()}

        first = passed(weights)
        total = first.primary + self.weight * self._learned(first.costs, labels)
        slopes = torch.autograd.grad(
            total, list(weights.values()), create_graph=not self.first_order, allow_unused=True, materialize_grads=True
        )
        after = moved(dict(zip(weights, slopes, strict=True)), -self.rate)
        if not self.first_order:
            primary = passed(after).primary
            (slope,) = torch.autograd.grad(primary, labels)
            return primary.detach(), slope
        after = {name: value.requires_grad_() for name, value in after.items()}
        primary = passed(after).primary
        found = torch.autograd.grad(primary, list(after.values()), allow_unused=True, materialize_grads=True)
        along = dict(zip(weights, found, strict=True))
        norm = torch.stack([value.double().square().sum() for value in found]).sum().sqrt()
        # The released code's, a step of a hundredth.
        length = float(0.01 / norm) if norm > 0 else 1.0
        with torch.no_grad():
            above, below = (passed(moved(along, sign * length)).costs for sign in (1, -1))
        # The costs are what labels are multiplied by, so their change along v is all that is asked for.
        change = (above - below) / (2 * length)
        return primary.detach(), -self.rate * self.weight * change / max(1, len(labels))
