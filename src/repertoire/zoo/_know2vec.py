"""Vectors of networks and of data in one space, where a network lies near the data that it suits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.ranges import AtLeast, Positive, checked

__all__ = ["Alignment", "class_nodes", "model_nodes"]


def model_nodes(probabilities: Tensor, probes: Tensor) -> Tensor:
    r"""What a network takes its classes for: the mean of the probes, each as much as it is taken for the class.

    Of a network that answers and shows nothing else. With the probabilities :math:`p_k(x_j)` that it gives to class k
    for probes whose embeddings are :math:`e_j`, in a reference network that is the same for all,

    .. math:: m_k = \frac{\sum_j p_k(x_j)\, e_j}{\sum_j p_k(x_j)}

    Args:
        probabilities: float `[P, K]`.
        probes: float `[P, d]`, the embeddings.

    Returns:
        `[K, d]`; a class that no probe is taken for has the mean of all.

    Raises:
        ShapeError: other numbers of probes.

    Example:
        >>> import torch
        >>> from repertoire.zoo import model_nodes
        >>> model_nodes(torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]), torch.tensor([[0.0], [3.0], [6.0]]))
        tensor([[1.],
                [5.]])
    """
    if probabilities.ndim != 2 or probes.ndim != 2 or len(probabilities) != len(probes):
        raise ShapeError(
            f"probabilities must be [P, K] and probes [P, d], found {list(probabilities.shape)} and "
            f"{list(probes.shape)}"
        )
    weights = probabilities.to(probes.dtype)
    total = weights.sum(0)
    flat = torch.full_like(weights, 1 / max(1, len(weights)))
    shares = torch.where(total > 0, weights / total.clamp_min(torch.finfo(weights.dtype).tiny), flat)
    return shares.T @ probes


def class_nodes(features: Tensor, labels: Tensor) -> Tensor:
    """The means of the classes of a data set, in the reference embedding.

    Args:
        features: float `[N, d]`.
        labels: int `[N]`; negative for none, which counts for nothing.

    Returns:
        `[C, d]`, for the classes that are there, in the order of their numbers.

    Raises:
        ShapeError: other numbers of rows, or no label at all.

    Example:
        >>> import torch
        >>> from repertoire.zoo import class_nodes
        >>> class_nodes(torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([4, 4, 9]))
        tensor([[2.],
                [8.]])
    """
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ShapeError(f"features must be [N, d] and labels [N], found {list(features.shape)}, {list(labels.shape)}")
    known = labels >= 0
    if not known.any():
        raise ShapeError("there is no label to take the means of classes by")
    classes, y = labels[known].unique(return_inverse=True)
    sums = features.new_zeros(len(classes), features.shape[1]).index_add_(0, y, features[known])
    return sums / y.bincount()[:, None].to(sums)


class _Graph(nn.Module):
    """Classes and how they are related to one vector: the mean of what each says, having seen those that resemble it.

    What a class says are cosines of random frequencies, which stay as they are drawn. The inner product of two such
    means is that of a kernel over all pairs of classes: how many of the one lie near classes of the other, before
    anything is learned. Learned are the maps by which data and networks enter, and how much a class hears of others.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, inputs: int, width: int, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness
        self.enter = nn.ModuleList(nn.Linear(inputs, inputs, bias=False) for _ in range(2))
        self.edges = nn.Parameter(torch.zeros(2))
        self.register_buffer("frequencies", torch.zeros(width, inputs))
        self.register_buffer("phases", torch.zeros(width))
        self.begin()

    def begin(self) -> None:
        """Draws frequencies anew, and forgets what was learned."""
        for layer in self.enter:
            nn.init.eye_(layer.weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.edges)
        nn.init.normal_(self.frequencies, 0, self.sharpness * self.frequencies.shape[1] ** -0.5)
        nn.init.uniform_(self.phases, -math.pi, math.pi)

    def learned(self) -> Tensor:
        """How much the maps differ from what they began as: the sum of the squares."""
        weights = list(self.enter.parameters())
        each = [(weight - torch.eye(len(weight)).to(weight)).square().sum() for weight in weights]
        return torch.stack(each).sum()

    def forward(self, nodes: Tensor, there: Tensor, side: int) -> Tensor:
        """Nodes `[B, C, d]`, of which some are there, to vectors `[B, width]`."""
        unit = F.normalize(self.enter[side](nodes), dim=2)
        relation = (unit @ unit.transpose(1, 2)).masked_fill(~there[:, None], -torch.inf).softmax(2)
        x = F.normalize(unit + self.edges[side] * (relation @ unit), dim=2) * nodes.shape[2] ** 0.5
        each = (x @ self.frequencies.T + self.phases).cos()
        mean: Tensor = (each * there[..., None]).sum(1) / there.sum(1)[:, None]
        return mean


class Alignment(nn.Module):
    r"""A space in which networks and data sets have vectors, and a network is near the data that it suits.

    Shang et al., *Know2Vec: A Black-Box Proxy for Neural Network Retrieval* (2024). A network is known by its answers
    to probes (:func:`model_nodes`), a data set by its classes and how they are related (:func:`class_nodes`). Each of
    the two is a graph, whose nodes are classes and whose edges are the cosines between them, and is brought to one unit
    vector by an encoder that does not know the order of the classes. It learns from data sets for which it is known how
    well each network does, by the sum of

    .. math:: -\sum_i w_{ij} \log \frac{\exp(m_i \cdot q_j / \tau)}{\sum_k \exp(m_k \cdot q_j / \tau)}
        \quad\text{and}\quad \max\bigl(0,\, \mu - m_a \cdot q_j + m_b \cdot q_j\bigr)

    where :math:`w_j` is the softmax of the scores of data set j in units of 0.01, :math:`\tau` is learned, and of
    networks a and b, drawn at random, a does better on j. As in the paper, what is learned serves searches among the
    networks that it was learned with, for other data of the kinds that it was learned from; of classes that none of
    these data had it knows little. With many networks and data sets of a few classes each, a map that is learned freely
    remembers them one by one. What is learned here is therefore a linear map for data and one for networks, into random
    frequencies that are the same for both, less the mean vector of either.

    The paper finds probes at the borders between the classes of a network, and encodes their sequences by a recurrent
    network; here the probes are the same for all, and what a network says of them is what its nodes are made of.

    Args:
        inputs: width of the reference embedding.
        width: of the vectors.
        sharpness: how near in direction two classes must lie to count as alike: the spread of the frequencies; of
            classes at right angles, the cosine of their vectors is about exp(-sharpness^2) before anything is learned.

    Raises:
        ConfigError: a width below 1, or a sharpness of 0 or less.

    Example:
        >>> import torch
        >>> from repertoire.zoo import Alignment
        >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
        <torch._C.Generator object at ...>
        >>> align = Alignment(inputs=4)
        >>> data, models = [torch.randn(3, 4), torch.randn(2, 4)], [torch.randn(5, 4) for _ in range(6)]
        >>> align.similarity(data, models).shape
        torch.Size([2, 6])
    """

    mean: Tensor
    scale: Tensor
    middle: Tensor

    @checked
    def __init__(
        self,
        inputs: Annotated[int, AtLeast(1)],
        width: Annotated[int, AtLeast(1)] = 1024,
        sharpness: Annotated[float, Positive] = 2.0,
    ) -> None:
        super().__init__()
        self.inputs, self.width, self.sharpness = inputs, width, sharpness
        self.graph = _Graph(inputs, width, sharpness)
        self.heat = nn.Parameter(torch.tensor(math.log(10.0)))
        # Nodes of networks are means over all probes, and lie closer together than those of data.
        self.register_buffer("mean", torch.zeros(2, inputs))
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("middle", torch.zeros(2, width))

    def encode_data(self, nodes: Sequence[Tensor]) -> Tensor:
        """Unit vectors `[B, width]` of data sets, each known by the nodes `[C, d]` of its classes."""
        return self._encoded(self._batch(nodes, 0), 0)

    def encode_models(self, nodes: Sequence[Tensor]) -> Tensor:
        """Unit vectors `[B, width]` of networks, each known by the nodes `[K, d]` of its classes."""
        return self._encoded(self._batch(nodes, 1), 1)

    def similarity(self, data: Sequence[Tensor], models: Sequence[Tensor]) -> Tensor:
        """Cosines `[data, models]`."""
        return self.encode_data(data) @ self.encode_models(models).T

    def _encoded(self, batch: tuple[Tensor, Tensor], side: int) -> Tensor:
        return F.normalize(self.graph(*batch, side) - self.middle[side], dim=1)

    def _batch(self, nodes: Sequence[Tensor], side: int) -> tuple[Tensor, Tensor]:
        for one in nodes:
            if one.ndim != 2 or one.shape[1] != self.inputs or not len(one):
                raise ShapeError(f"nodes must be [C, {self.inputs}] with C of 1 or more, found {list(one.shape)}")
        moved = [(one.to(self.mean) - self.mean[side]) / self.scale[side] for one in nodes]
        there = [one.new_ones(len(one), dtype=torch.bool) for one in moved]
        return (
            nn.utils.rnn.pad_sequence(moved, batch_first=True),
            nn.utils.rnn.pad_sequence(there, batch_first=True),
        )

    @checked
    def fit(
        self,
        data: Sequence[Tensor],
        models: Sequence[Tensor],
        scores: Tensor,
        *,
        steps: Annotated[int, AtLeast(1)] = 200,
        rate: Annotated[float, Positive] = 3e-3,
        margin: Annotated[float, AtLeast(0)] = 0.1,
        decay: Annotated[float, AtLeast(0)] = 0.01,
        batch: Annotated[int, AtLeast(2)] = 64,
        seed: int = 0,
    ) -> Alignment:
        """Learns from data sets for which it is known how well each network does; the same for the same seed.

        Args:
            data: nodes of the data sets, `[C, d]` each.
            models: nodes of the networks, `[K, d]` each.
            scores: float `[data, models]`: how well each network does, an accuracy, say.
            steps: of Adam.
            rate: its learning rate, which falls to zero along a cosine.
            margin: mu.
            decay: weight of the squares of what the maps learn, which keeps them near leaving everything as it is.
            batch: data sets at a time.
            seed: of frequencies, batches and pairs.

        Returns:
            Itself, in evaluation mode.

        Raises:
            ConfigError: an option out of range. ShapeError: scores of another shape.
        """
        if scores.shape != (len(data), len(models)) or not len(data) or len(models) < 2:
            raise ShapeError(
                f"scores must be [{len(data)}, {len(models)}], one row or more and two columns or more, found "
                f"{list(scores.shape)}"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.graph.begin()
            nn.init.constant_(self.heat, math.log(10.0))
            for side, nodes in enumerate((data, models)):
                rows = torch.cat([one.to(self.mean) for one in nodes])
                self.mean[side] = rows.mean(0)
                self.scale[side] = rows.std(0, correction=0).square().mean().sqrt().clamp_min(1e-12)
            scores = scores.to(self.mean)
            wanted = (scores / 0.01).softmax(1)
            optimizer = torch.optim.Adam(self.parameters(), lr=rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            self.train()
            known, everything = self._batch(data, 0), self._batch(models, 1)
            for step in range(steps):
                if step % 25 == 0:
                    self._centre(known, everything)
                chosen = torch.randperm(len(data))[:batch].to(scores.device)
                part = known[0][chosen], known[1][chosen]
                cosines = self._encoded(part, 0) @ self._encoded(everything, 1).T
                first, second = torch.randint(len(models), (2, len(chosen), 16)).to(scores.device)
                better = (scores[chosen].gather(1, first) - scores[chosen].gather(1, second)).sign()
                apart = better * (cosines.gather(1, first) - cosines.gather(1, second))
                ranked = ((margin - apart).relu() * better.abs()).mean()
                named = -(wanted[chosen] * (cosines * self.heat.exp()).log_softmax(1)).sum(1).mean()
                optimizer.zero_grad()
                (named + ranked + decay * self.graph.learned()).backward()
                optimizer.step()
                schedule.step()
            self._centre(known, everything)
        return self.eval()

    @torch.no_grad()
    def _centre(self, *sides: tuple[Tensor, Tensor]) -> None:
        """Takes the mean vector of data, and that of networks, for the middle, which says nothing of any of them."""
        for side, (nodes, there) in enumerate(sides):
            parts = zip(nodes.split(256), there.split(256), strict=True)
            self.middle[side] = torch.cat([self.graph(*part, side) for part in parts]).mean(0)


def check_width(width: int, expected: int, what: str) -> None:
    """Raises `ConfigError` unless two embeddings are of one width."""
    if width != expected:
        raise ConfigError(
            f"{what} have {width} numbers each, and the probes of this index {expected}: embed them alike"
        )
