"""Discovery in tables: an encoder that knows the known classes, and hyper-parameters chosen without new ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.discover._base import Discoverer, Found, rows_and_labels
from repertoire.discover._kmeans import far_from_centres
from repertoire.discover._network import descend
from repertoire.discover._number import By, Counting
from repertoire.errors import ConfigError
from repertoire.metrics import clustering_accuracy
from repertoire.ops import pinned_kmeans
from repertoire.ranges import AtLeast, Between, Positive, Share, checked
from repertoire.registry import register

__all__ = ["HiddenClassSearch", "TabularNCD", "hidden_class_cv"]


@register("discoverers", "tabular-ncd", paper="tabular-ncd")
class TabularNCD(Counting):
    r"""k-means in the latent space of a small encoder, which learns the known classes and to rebuild every row.

    Troisemaine et al., *A Practical Approach to Novel Class Discovery in Tabular Data* (2023), their method PBN:

    .. math:: \ell = w\, \ell_{\text{ce}} + (1 - w)\, \lVert x - \hat x \rVert^2 / d

    with cross-entropy on the rows of known classes and the reconstruction of all. Columns are standardised by all rows.
    In the latent space the rows are clustered by :func:`repertoire.ops.pinned_kmeans`, and the number of classes is
    that with the best silhouette there. Hyper-parameters are chosen by :func:`hidden_class_cv`.

    Args:
        classes: the number of classes, known and new, or "auto" (default) to estimate it in the latent space.
        by: what says how many there are; "silhouette" by default, one of the indices that the paper compares.
        known_weight: w, in [0, 1]; 0.5 by default.
        latent: dimensions of the latent space; 16 by default.
        hidden: units of the hidden layer of encoder and decoder.
        dropout: in the encoder, from 0 to below 1.
        epochs: passes over the rows.
        rate: learning rate of Adam, which falls to zero along a cosine.
        batch_size: rows of a step.

    Attributes:
        labels_, n_classes_, n_classes_interval_, outlier_scores_, probabilities_: see
            :class:`repertoire.discover.Discoverer`. The outlier score is the distance to the nearest centre in the
            latent space, and there are no probabilities.
        latent_: float32 `[N, latent]`, the rows in the latent space.

    Example:
        >>> import torch
        >>> from repertoire.discover import TabularNCD
        >>> truth = torch.arange(5).repeat_interleave(20)
        >>> x = 5 * torch.eye(5)[truth] + torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
        >>> found = TabularNCD(classes=5, epochs=20).fit_predict(x, torch.where(truth < 3, truth, -1))
        >>> sorted(set(found[60:].tolist()))
        [3, 4]
    """

    by: By = "silhouette"
    known_weight: Annotated[float, Share] = 0.5
    latent: Annotated[int, AtLeast(1)] = 16
    hidden: Annotated[int, AtLeast(1)] = 128
    dropout: Annotated[float, Between(0, 1, "[)")] = 0.0
    epochs: Annotated[int, AtLeast(1)] = 50
    rate: Annotated[float, Positive] = 1e-3
    batch_size: Annotated[int, AtLeast(2)] = 128
    starts: Annotated[int, AtLeast(1)] = 10

    @staticmethod
    def example_options() -> dict[str, Any]:
        """Large steps for a small example."""
        return {"rate": 0.01, "hidden": 32, "epochs": 40}

    def _discover(self, x: Tensor, labels: Tensor, known: int, generator: torch.Generator) -> Found:
        spread = x.std(0, correction=0)
        rows = (x - x.mean(0)) / torch.where(spread > 0, spread, 1.0)
        encoder = self._encoder(rows, labels, known, generator)
        with torch.no_grad():
            z = encoder(rows)
        self.latent_ = z.numpy()
        classes, interval = self._counted(z, labels, generator, unit=False)
        found = pinned_kmeans(z, classes, labels, starts=self.starts, generator=generator)
        return Found(found.assignment, far_from_centres(z, found), classes, interval)

    def _encoder(self, x: Tensor, labels: Tensor, known: int, generator: torch.Generator) -> nn.Module:
        width = x.shape[1]
        encoder = nn.Sequential(_linear(width, self.hidden), nn.ReLU(), _linear(self.hidden, self.latent))
        decoder = nn.Sequential(_linear(self.latent, self.hidden), nn.ReLU(), _linear(self.hidden, width))
        head = _linear(self.latent, known)
        layers = nn.ModuleList([encoder, decoder, head])
        for parameter in layers.parameters():
            with torch.no_grad():
                scale = 1 / math.sqrt(parameter.shape[1]) if parameter.ndim == 2 else 0.0
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
        batches = math.ceil(len(x) / self.batch_size)
        order = torch.empty(0)

        def objective(step: int) -> Tensor:
            nonlocal order
            if step % batches == 0:
                order = torch.randperm(len(x), generator=generator)
            index = order[(step % batches) :: batches]
            rows, batch = x[index], labels[index]
            kept = torch.rand(rows.shape, generator=generator) >= self.dropout
            z = encoder(rows * kept / (1 - self.dropout))
            loss = (1 - self.known_weight) * F.mse_loss(decoder(z), rows)
            seen = batch >= 0
            if bool(seen.any()):
                loss = loss + self.known_weight * F.cross_entropy(head(z[seen]), batch[seen])
            return loss

        descend(layers, self.rate, self.epochs * batches, objective)
        return encoder.eval()


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer whose weights nobody has drawn yet: torch's random state stays as it is."""
    layer: nn.Linear = torch.nn.utils.skip_init(nn.Linear, inputs, outputs)
    return layer


@dataclass(frozen=True)
class HiddenClassSearch:
    """What hidden known classes say of hyper-parameters.

    Attributes:
        best: the options with the best mean score.
        score: that of the best.
        scores: options and mean score of every trial, in the order of the grid.
    """

    best: dict[str, Any]
    score: float
    scores: list[tuple[dict[str, Any], float]]


@checked
def hidden_class_cv(
    discoverer: Discoverer,
    X: Any,
    y: Any,
    grid: Mapping[str, Sequence[Any]],
    *,
    folds: Annotated[int, AtLeast(2)] = 3,
    random_state: Annotated[int, AtLeast(0)] = 0,
) -> HiddenClassSearch:
    """Chooses hyper-parameters by how well known classes are discovered when they play the new ones.

    Troisemaine et al., *A Practical Approach to Novel Class Discovery in Tabular Data* (2023). The known classes are
    divided into folds. In each, the labels of its classes are hidden, the discoverer is told how many classes there
    are, and its score is the clustering accuracy on the rows of the hidden ones. Rows without a label are left out:
    what is truly new decides nothing.

    Args:
        discoverer: whose options are tried; it stays as it is.
        X: float `[N, d]`.
        y: whole numbers `[N]`: a known class from 0 on, or -1.
        grid: values to try by the name of an option; all combinations are.
        folds: 2 or more, and at most the number of known classes; each must leave two classes.
        random_state: seed of the folds.

    Raises:
        ConfigError: no option to try, too few known classes for the folds, or an option that the discoverer lacks.
        ShapeError: shapes or dtypes that do not fit.

    Example:
        >>> import torch
        >>> from repertoire.discover import SemiSupervisedKMeans, hidden_class_cv
        >>> truth = torch.arange(6).repeat_interleave(20)
        >>> x = 5 * torch.eye(6)[truth] + torch.randn(120, 6, generator=torch.Generator().manual_seed(0))
        >>> y = torch.where(truth < 4, truth, -1)
        >>> hidden_class_cv(SemiSupervisedKMeans(), x, y, {"components": [1, 6]}, folds=2).best
        {'components': 6}
    """
    rows, labels = rows_and_labels(X, y, discoverer.classes, patches=discoverer.patches)
    known = int(labels.max()) + 1
    if not grid or any(not len(values) for values in grid.values()):
        raise ConfigError("grid must name an option and values to try")
    unknown = sorted(set(grid) - set(discoverer.get_params(deep=False)))
    if unknown:
        raise ConfigError(f"{type(discoverer).__name__} has no option {unknown[0]!r}")
    if folds > known or known - math.ceil(known / folds) < 2:
        raise ConfigError(f"{folds} folds of {known} known classes leave fewer than two of them; use fewer folds")
    seen = labels >= 0
    rows, labels = rows[seen], labels[seen]
    parts = list(_folds(known, folds, random_state))
    scores = []
    for values in itertools.product(*grid.values()):
        options = dict(zip(grid, values, strict=True))
        trial = clone(discoverer).set_params(**options, classes=known)
        found = [_played(trial, rows, labels, hidden) for hidden in parts]
        scores.append((options, float(np.mean(found))))
    best = max(scores, key=lambda each: each[1])
    return HiddenClassSearch(best[0], best[1], scores)


def _folds(known: int, folds: int, seed: int) -> Iterator[Tensor]:
    order = torch.randperm(known, generator=torch.Generator().manual_seed(seed))
    yield from (order[start::folds] for start in range(folds))


def _played(discoverer: Discoverer, rows: Tensor, labels: Tensor, hidden: Tensor) -> float:
    """Clustering accuracy on rows whose classes are hidden."""
    known = int(labels.max()) + 1
    renamed = torch.full((known,), -1)
    left = torch.ones(known, dtype=torch.bool)
    left[hidden] = False
    renamed[left] = torch.arange(int(left.sum()))
    given = renamed[labels]
    found = discoverer.fit_predict(rows, given)
    free = (given < 0).numpy()
    return clustering_accuracy(found[free], labels.numpy()[free]).all
