"""Classifiers of unseen classes from those of their neighbours in a graph of classes."""

from __future__ import annotations

from typing import Annotated, Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.registry import register
from repertoire.zeroshot._base import ZeroShotClassifier, unit_length
from repertoire.zeroshot._embedding_regression import ridge_map

__all__ = ["GraphPropagation", "graph_layer"]


def graph_layer(graph: Any, nodes: Any) -> np.ndarray:
    r"""Averages of nodes and their neighbours, as a layer of a graph convolution takes them.

    Kipf and Welling, *Semi-Supervised Classification with Graph Convolutional Networks* (2017):
    :math:`D^{-1/2} (A + I) D^{-1/2} H`, where D has the sums of the rows of A + I.

    Args:
        graph: A, float or bool `[C, C]`, symmetric, not negative; its diagonal is not looked at.
        nodes: H, float `[C, k]`.

    Raises:
        ShapeError: shapes that do not fit, a graph that is not symmetric or has negative weights.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import graph_layer
        >>> graph_layer([[0, 1, 0], [1, 0, 0], [0, 0, 0]], np.array([[1.0], [3.0], [5.0]])).ravel()
        array([2., 2., 5.])
    """
    return _normalised(_graph(graph, len(np.asarray(nodes)))) @ np.asarray(nodes, dtype=np.float64)


@register("zero-shot-classifiers", "graph-propagation", paper="kg-zsl-survey")
class GraphPropagation(ZeroShotClassifier):
    r"""Predicts the weights of a classifier for each class from its description and those of its neighbours in a graph.

    The propagation-based way of Chen et al., *Zero-shot and Few-shot Learning with Knowledge Graphs: A Comprehensive
    Survey* (2021), as in Wang, Ye and Gupta, *Zero-shot Recognition via Semantic Embeddings and Knowledge Graphs*
    (2018): a graph convolution of two layers over all classes,

    .. math:: \hat W = \hat A\, \mathrm{LeakyReLU}(\hat A S \Theta_1)\, \Theta_2, \qquad
        \hat A = D^{-1/2} (A + I) D^{-1/2}

    trained so that :math:`\hat W` of seen classes has the direction of their classifiers, which are one-against-all
    ridge regressions on the features; the score is :math:`\hat w_c^\top x`, with unit :math:`\hat w_c`. Descriptions S
    are brought to unit length. Without a graph, classes are joined with the `neighbours` most alike by the cosine of
    their descriptions. Wang, Ye and Gupta take six layers.

    Args:
        hidden: width of the layer between, 1 or more; 256 by default.
        steps: of Adam, on all seen classes at once; 300 by default.
        lr: its learning rate, positive; 0.01 by default.
        weight_decay: penalty on its weights, 0 or more; 0.0005 as in the paper.
        ridge: penalty of the classifiers of seen classes, positive; 0.001 by default.
        neighbours: of each class where no graph is given, 1 or more.
        random_state: seed of the first weights.

    Attributes:
        first_, second_: the weights of both layers, `[a, hidden]` and `[hidden, d]`.
        graph_: A, `[C, C]`.

    Raises:
        ConfigError: an option out of range. ShapeError: a graph that does not fit the classes.

    Example:
        >>> import numpy as np
        >>> from repertoire.zeroshot import GraphPropagation
        >>> generator = np.random.default_rng(0)
        >>> descriptions = np.concatenate([np.eye(4)[np.arange(16) // 4], np.eye(4)[np.arange(16) % 4]], 1)
        >>> y = np.repeat(np.arange(16), 10)
        >>> x = descriptions[y] @ generator.normal(size=(8, 12))
        >>> seen = y % 5 > 0
        >>> model = GraphPropagation(steps=100, hidden=32).fit(x[seen], y[seen], descriptions)
        >>> scores = model.decision_function(x[~seen])
        >>> scores.shape
        (40, 16)
    """

    first_: np.ndarray
    second_: np.ndarray
    graph_: np.ndarray

    @classmethod
    def example_options(cls) -> dict[str, Any]:
        """Options of a small example."""
        return {"hidden": 32, "steps": 150, "neighbours": 3}

    @checked
    def __init__(
        self,
        hidden: Annotated[int, AtLeast(1)] = 256,
        steps: Annotated[int, AtLeast(1)] = 300,
        lr: Annotated[float, Positive] = 0.01,
        weight_decay: Annotated[float, AtLeast(0)] = 5e-4,
        ridge: Annotated[float, Positive] = 1e-3,
        neighbours: Annotated[int, AtLeast(1)] = 4,
        random_state: int = 0,
    ) -> None:
        self.hidden = hidden
        self.steps = steps
        self.lr = lr
        self.weight_decay = weight_decay
        self.ridge = ridge
        self.neighbours = neighbours
        self.random_state = random_state

    def fit(self, X: Any, y: Any, descriptions: Any, graph: Any = None) -> Self:
        """Learns from the rows of the seen classes, and from a graph of all classes.

        Args:
            X: features, float `[N, d]`.
            y: int `[N]`, the class of each row: a row of the descriptions.
            descriptions: float `[C, a]`, of all classes.
            graph: float or bool `[C, C]`, symmetric, not negative; made of the descriptions if None. What was seen of
                the images of unseen classes must have no part in it.

        Raises:
            ShapeError: what `ZeroShotClassifier` refuses, and a graph that does not fit.
        """
        count = len(np.asarray(descriptions)) if np.ndim(descriptions) == 2 else 0
        self.graph_ = np.zeros((0, 0)) if graph is None else _graph(graph, count)
        return super().fit(X, y, descriptions)

    def _fit(self, Z: np.ndarray, y: np.ndarray) -> None:
        if not self.graph_.size:
            self.graph_ = self._joined(self.descriptions_)
        weights, _ = ridge_map(Z, np.eye(len(self.seen_))[y], self.ridge)
        wanted = torch.from_numpy(unit_length(weights)).float()
        passed = torch.from_numpy(_normalised(self.graph_)).float()
        nodes = passed @ torch.from_numpy(unit_length(self.descriptions_)).float()
        seen = torch.from_numpy(self.seen_)
        generator = torch.Generator().manual_seed(self.random_state)
        sizes = ((nodes.shape[1], self.hidden), (self.hidden, Z.shape[1]))
        layers = [(torch.randn(size, generator=generator) * (2 / sum(size)) ** 0.5).requires_grad_() for size in sizes]
        optimizer = torch.optim.Adam(layers, lr=self.lr, weight_decay=self.weight_decay)
        with torch.enable_grad():
            for _ in range(self.steps):
                optimizer.zero_grad()
                found = F.normalize(_two_layers(passed, nodes, *layers)[seen])
                (found - wanted).square().sum(1).mean().backward()
                optimizer.step()
        self.first_, self.second_ = (layer.detach().numpy().astype(np.float64) for layer in layers)

    def _scores(self, Z: np.ndarray, descriptions: np.ndarray, known: np.ndarray) -> np.ndarray:
        every, places, joined = self._extended(descriptions)
        graph = _normalised(joined)
        nodes = graph @ unit_length(every)
        inner = nodes @ self.first_
        weights = graph @ np.where(inner > 0, inner, 0.2 * inner) @ self.second_
        scores: np.ndarray = Z @ unit_length(weights)[places].T
        return scores

    def _extended(self, descriptions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All classes that there are by now, where the described ones are among them, and the graph of all."""
        if np.array_equal(descriptions, self.descriptions_):
            return self.descriptions_, np.arange(len(descriptions)), self.graph_
        known = {(row + 0.0).tobytes(): place for place, row in reversed([*enumerate(self.descriptions_)])}
        places = np.array([known.get((row + 0.0).tobytes(), -1) for row in descriptions])
        new = np.flatnonzero(places < 0)
        if not len(new):
            return self.descriptions_, places, self.graph_
        count = len(self.descriptions_)
        places[new] = count + np.arange(len(new))
        every = np.concatenate([self.descriptions_, descriptions[new]])
        # The edges of new classes are made of descriptions; those between the others stay.
        graph = self._joined(every)
        graph[:count, :count] = self.graph_
        return every, places, graph

    def _joined(self, descriptions: np.ndarray) -> np.ndarray:
        """The graph of classes that are alike; of equally alike ones all are joined, so that order does not matter."""
        alike = unit_length(descriptions) @ unit_length(descriptions).T
        np.fill_diagonal(alike, -np.inf)
        count = min(self.neighbours, len(alike) - 1)
        if count < 1:
            return np.zeros_like(alike)
        least = -np.sort(-alike, 1)[:, count - 1 : count]
        near = alike >= least - 1e-12
        return (near | near.T).astype(np.float64)


def _two_layers(passed: Tensor, nodes: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return passed @ F.leaky_relu(nodes @ first, 0.2) @ second


def _normalised(graph: np.ndarray) -> np.ndarray:
    joined = graph.copy()
    np.fill_diagonal(joined, 1.0)
    scale = 1 / np.sqrt(joined.sum(1))
    result: np.ndarray = joined * scale * scale[:, None]
    return result


def _graph(graph: Any, count: int) -> np.ndarray:
    found = np.asarray(graph)
    if found.shape != (count, count) or found.dtype.kind not in "fiub":
        raise ShapeError(f"graph must be numbers [{count}, {count}], found {found.dtype} {[*found.shape]}")
    found = found.astype(np.float64)
    if not np.isfinite(found).all() or (found < 0).any() or not (found == found.T).all():
        raise ShapeError("graph must be symmetric, with finite weights of 0 or more")
    return found
