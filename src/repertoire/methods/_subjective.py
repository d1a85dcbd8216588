"""Several networks for data that contradicts itself: each batch is learned by the one that knows it best."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import Loss
from repertoire.methods._base import Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.ops import not_counting, ranks_of, rewinding
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["Subjective"]


@register("methods", "subjective", paper="osl")
class Subjective(Classifying):
    r"""OSL: several networks, and each small batch from one domain is learned by the one whose loss on it is least.

    Zhang et al., *Subjective Learning for Open-Ended Data* (2021). Data that was gathered without a task may hold
    contradictions: one annotator answers with the shape and another with the colour, and no single function fits both.
    With K networks, the subjective function allocates a batch of one domain, whose number nobody gives, and only the
    network that gets it is trained:

    .. math:: k(B) = \arg\min_k \frac{1}{|B|} \sum_{(x, y) \in B} \ell\bigl(f_k(x), y\bigr), \qquad
        \theta_{k(B)} \leftarrow \theta_{k(B)} - \eta\,\nabla \frac{1}{|B|} \sum_{(x, y) \in B}
        \ell\bigl(f_{k(B)}(x), y\bigr)

    It is an EM algorithm whose E step is hard. With as many networks as there are contradicting functions, or more, the
    conflict can vanish. Of a single network this is supervised training.

    **What answers.** The subjective function needs targets, in training and afterwards: inputs whose targets contradict
    each other look alike. So a few samples with targets say which network is right for a domain (`choose`), and that
    one of `networks` answers for the rest of it. A run predicts, and is validated, with the first network alone,
    `model`, which knows the functions that came to it and no others. Without targets there is nothing better than all
    K answers side by side.

    **Batches.** That a batch is of one domain is what keeps the networks apart. With `group`, the batches are drawn so
    by a variable of the samples (who answered, which site), whose values the method does not see. Smaller batches are
    allocated less surely.

    At first all networks know nothing, and one that is ahead by chance may get everything: over the first `warmup`
    updates, batches are allocated at random. All the same, two domains may be taken by one network, which then fits
    both halfway, and that is better than networks that know nothing of either, however many there are: look at
    `losses_of` for a few batches of each, and begin anew with another seed. The networks begin with the same layers
    before the head, and heads drawn anew. A step looks at the batch with all of them, without gradients, and trains
    one.

    Args:
        model: normalisation, backbone and head: the first network, of which the others are copies.
        loss: a loss on logits; for classes, labels or numbers.
        models: K, 1 or more.
        group: the variable by whose value batches are drawn; "" (default) for batches as they come, which is right
            where each is of one domain already.
        warmup: updates in which batches are allocated at random, 0 or more.

    Raises:
        ConfigError: an option out of range, or several processes, which would each train another network; see also
            `Supervised`.
        DataError: the samples have no such variable; raised by the loader.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, Subjective
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = Subjective(model, losses.CrossEntropy(), models=2, warmup=0)
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> step = method.step(batch)
        >>> int(method.losses_of(batch).argmin()) == method.choose(batch)
        True
    """

    needs = Needs(
        labels="required",
        targets=frozenset({"classes", "labels", "number"}),
        step="whole",
        # A batch is allocated as a whole.
        per_sample=False,
    )
    takes_turns = True

    updates: Tensor

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        models: Annotated[int, AtLeast(1)] = 2,
        group: str = "",
        warmup: Annotated[int, AtLeast(0)] = 100,
    ) -> None:
        super().__init__(model, loss)
        self.needs = replace(self.needs, grouped=group)
        self.warmup = warmup
        others = [copy.deepcopy(model) for _ in range(models - 1)]
        for other in others:
            for module in other.head.modules():
                if callable(redraw := getattr(module, "reset_parameters", None)):
                    redraw()
        self.others = nn.ModuleList(others)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @property
    def networks(self) -> tuple[Classifier, ...]:
        """All K networks, the first of which is `model`."""
        return (self.model, *self.others)

    @torch.no_grad()
    def losses_of(self, batch: Batch) -> Tensor:
        """The loss of each network on a batch with targets, `[K]`: the subjective function takes the least. It leaves
        nothing behind."""
        rewind = rewinding(batch.images.device)
        found = []
        for network in self.networks:
            rewind()
            with not_counting(network):
                found.append(self._of(network, batch).loss)
        rewind()
        return torch.stack(found)

    def choose(self, batch: Batch) -> int:
        """The number of the network that a batch with targets is allocated to."""
        return int(self.losses_of(batch).argmin())

    def _of(self, network: Classifier, batch: Batch) -> Step:
        return self.classify(network.features(batch.images), batch.targets, network.head)

    def step(self, batch: Batch) -> Step:
        if ranks_of() > 1:
            raise ConfigError(
                "method 'subjective' trains one of its networks in a step, and several processes would each take "
                "another: use one device"
            )
        batch = self.transform(batch)
        count = len(self.others) + 1
        if count == 1:
            return self._of(self.model, batch)
        warming = self.training and int(self.updates) < self.warmup
        chosen = int(torch.randint(count, ())) if warming else self.choose(batch)
        found = self._of(self.networks[chosen], batch)
        shares = {f"to_{k}": found.loss.new_tensor(float(k == chosen)) for k in range(count)}
        return Step(found.loss, {**found.logs, **shares})

    def after_update(self) -> None:
        super().after_update()
        self.updates += 1
