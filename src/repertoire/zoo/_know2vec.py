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

    At first, what a class says are cosines of random frequencies, whose mean tells how much two sets have in common
    before anything is learned. Data and networks enter by a map of their own, and share all the rest.
    """

    def __init__(self, inputs: int, hidden: int, width: int) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Linear(inputs, inputs) for _ in range(2))
        self.own = nn.Linear(inputs, hidden)
        self.others = nn.Linear(inputs, hidden, bias=False)
        self.out = nn.Linear(hidden, width)
        self.begin()

    def begin(self) -> None:
        """Draws weights anew."""
        for layer in self.enter:
            nn.init.eye_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.own.weight, 0, self.own.in_features**-0.5)
        nn.init.uniform_(self.own.bias, -math.pi, math.pi)
        nn.init.normal_(self.others.weight, 0, 0.1 * self.own.in_features**-0.5)
        self.out.reset_parameters()

    def forward(self, nodes: Tensor, there: Tensor, side: int) -> Tensor:
        """Nodes `[B, C, d]`, of which some are there, to unit vectors `[B, width]`."""
        x = self.enter[side](nodes)
        unit = F.normalize(x, dim=2)
        relation = (unit @ unit.transpose(1, 2)).masked_fill(~there[:, None], -torch.inf).softmax(2)
        each = (self.own(x) + self.others(relation @ x)).cos()
        mean = (each * there[..., None]).sum(1) / there.sum(1)[:, None]
        return F.normalize(self.out(mean), dim=1)


class Alignment(nn.Module):
    r"""A space in which networks and data sets have vectors, and a network is near the data that it suits.

    Shang et al., *Know2Vec: A Black-Box Proxy for Neural Network Retrieval* (2024). A network is known by its answers
    to probes (:func:`model_nodes`), a data set by its classes and how they are related (:func:`class_nodes`). Each of
    the two is a graph, whose nodes are classes and whose edges are the cosines between them, and is brought to one unit
    vector by an encoder that does not know the order of the classes. It learns from data sets for which it is known how
    well each network does, by the sum of

    .. math:: -\sum_i w_{ij} \log \frac{\exp(m_i \cdot q_j / \tau)}{\sum_k \exp(m_k \cdot q_j / \tau)}
        \quad\text{and}\quad \max\bigl(0,\, \mu - m_a \cdot q_j + m_b \cdot q_j\bigr)

    where :math:`w_j` is the softmax of the scores of data set j in units of 0.01, and of networks a and b, drawn at
    random, a does better on j. The paper finds probes at the borders between the classes of a network, and encodes
    their sequences by a recurrent network; here the probes are the same for all, and what a network says of them is
    what its nodes are made of.

    Args:
        inputs: width of the reference embedding.
        hidden: width of the encoder's layer.
        width: of the vectors.

    Raises:
        ConfigError: a width below 1.

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

    @checked
    def __init__(
        self,
        inputs: Annotated[int, AtLeast(1)],
        hidden: Annotated[int, AtLeast(1)] = 512,
        width: Annotated[int, AtLeast(1)] = 128,
    ) -> None:
        super().__init__()
        self.inputs, self.hidden, self.width = inputs, hidden, width
        self.graph = _Graph(inputs, hidden, width)
        # Nodes of networks are means over all probes, and lie closer together than those of data.
        self.register_buffer("mean", torch.zeros(2, inputs))
        self.register_buffer("scale", torch.ones(2))

    def encode_data(self, nodes: Sequence[Tensor]) -> Tensor:
        """Unit vectors `[B, width]` of data sets, each known by the nodes `[C, d]` of its classes."""
        vectors: Tensor = self.graph(*self._batch(nodes, 0), 0)
        return vectors

    def encode_models(self, nodes: Sequence[Tensor]) -> Tensor:
        """Unit vectors `[B, width]` of networks, each known by the nodes `[K, d]` of its classes."""
        vectors: Tensor = self.graph(*self._batch(nodes, 1), 1)
        return vectors

    def similarity(self, data: Sequence[Tensor], models: Sequence[Tensor]) -> Tensor:
        """Cosines `[data, models]`."""
        return self.encode_data(data) @ self.encode_models(models).T

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
        steps: Annotated[int, AtLeast(1)] = 150,
        rate: Annotated[float, Positive] = 1e-3,
        temperature: Annotated[float, Positive] = 0.1,
        margin: Annotated[float, AtLeast(0)] = 0.1,
        decay: Annotated[float, AtLeast(0)] = 1e-2,
        batch: Annotated[int, AtLeast(2)] = 64,
        seed: int = 0,
    ) -> Alignment:
        """Learns from data sets for which it is known how well each network does; the same for the same seed.

        Args:
            data: nodes of the data sets, `[C, d]` each.
            models: nodes of the networks, `[K, d]` each.
            scores: float `[data, models]`: how well each network does, an accuracy, say.
            steps: of Adam with a weight decay.
            rate: its learning rate, which falls to zero along a cosine.
            temperature: tau.
            margin: mu.
            decay: of the weights.
            batch: data sets at a time.
            seed: of weights, batches and pairs.

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
        device = self.mean.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.graph.begin()
            for side, nodes in enumerate((data, models)):
                rows = torch.cat([one.to(self.mean) for one in nodes])
                self.mean[side] = rows.mean(0)
                self.scale[side] = rows.std(0, correction=0).square().mean().sqrt().clamp_min(1e-12)
            scores = scores.to(self.mean)
            wanted = (scores / 0.01).softmax(1)
            optimizer = torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=decay)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            self.train()
            everything = self._batch(models, 1)
            for _ in range(steps):
                chosen = torch.randperm(len(data))[:batch]
                cosines = self.encode_data([data[i] for i in chosen.tolist()]) @ self.graph(*everything, 1).T
                drawn = torch.randint(len(models), (2, len(chosen), 16)).to(device)
                known = scores[chosen.to(device)]
                first, second = (known.gather(1, index) for index in drawn)
                sign = (first - second).sign()
                apart = sign * (cosines.gather(1, drawn[0]) - cosines.gather(1, drawn[1]))
                ranked = ((margin - apart).relu() * sign.abs()).mean()
                named = -(wanted[chosen.to(device)] * (cosines / temperature).log_softmax(1)).sum(1).mean()
                optimizer.zero_grad()
                (named + ranked).backward()
                optimizer.step()
                schedule.step()
        return self.eval()


def check_width(width: int, expected: int, what: str) -> None:
    """Raises `ConfigError` unless two embeddings are of one width."""
    if width != expected:
        raise ConfigError(
            f"{what} have {width} numbers each, and the probes of this index {expected}: embed them alike"
        )
