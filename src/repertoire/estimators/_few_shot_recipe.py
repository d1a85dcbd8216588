"""A recipe for classes of a few samples that come after classes of many: eight switches over the nearest class mean."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.preprocessing import normalize
from torch import Tensor
from torch.nn import functional as F

from repertoire.estimators._incremental import Incremental, grown
from repertoire.registry import register

__all__ = ["FewShotRecipe"]

_SWITCHES = (
    "contrastive",
    "preassigned",
    "pseudo_classes",
    "fine_tuning",
    "subnetwork",
    "larger",
    "pretraining",
    "auxiliary",
)
_SCALE, _TEMPERATURE, _TURNS = 16.0, 0.1, 4


class _Layer:
    """A residual network with one hidden layer, which begins as the identity: z + W2 relu(W1 z + b1) + b2."""

    names = ("w1", "b1", "w2", "b2")

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors

    @classmethod
    def drawn(cls, width: int, hidden: int, generator: torch.Generator) -> _Layer:
        w1 = torch.randn(hidden, width, generator=generator) * (2 / width) ** 0.5
        return cls([w1, torch.zeros(hidden), torch.zeros(width, hidden), torch.zeros(width)])

    def __call__(self, x: Tensor) -> Tensor:
        """Unit rows."""
        w1, b1, w2, b2 = self.tensors
        return F.normalize(x + F.linear(F.linear(x, w1, b1).relu(), w2, b2))


def _simplex(count: int, width: int, generator: torch.Generator) -> Tensor:
    """Unit vectors `[count, width]` at equal angles, in directions drawn at random; drawn one by one where the
    features have no room for a simplex."""
    if count > width:
        return F.normalize(torch.randn(count, width, generator=generator))
    basis = torch.linalg.qr(torch.randn(width, count, generator=generator)).Q.T
    return F.normalize(basis - basis.mean(0)) if count > 1 else basis


def _alike(z: Tensor, group: Tensor) -> Tensor:
    """Supervised contrastive loss of unit rows `[N, d]` that belong together where their groups `[N]` are the same."""
    logits = z @ z.T / _TEMPERATURE
    logits.fill_diagonal_(-torch.inf)
    same = (group[:, None] == group).fill_diagonal_(False)
    each = -(logits.log_softmax(1).masked_fill(~same, 0.0)).sum(1) / same.sum(1).clamp_min(1)
    return each[same.any(1)].mean() if bool(same.any()) else z.new_zeros(())


@register("feature-estimators", "few-shot-recipe", paper="fscil-tricks")
class FewShotRecipe(Incremental):
    r"""Nearest class mean behind a small network, with eight tricks for classes of a few samples, each a switch.

    Roy et al., *A Bag of Tricks for Few-Shot Class-Incremental Learning* (2024). The first stage has the base classes,
    with many samples; later stages bring new ones with a few. A row belongs to the class whose mean has the largest
    cosine with it. With all switches off, that is all: the nearest class mean in the features as they are. With any
    switch on, a network g with one hidden layer stands before it, which begins as the identity,

    .. math:: g(z) = z + W_2 \max(0, W_1 z + b_1) + b_2

    and is trained in the first stage by the cross-entropy of cosines to class vectors. The switches, of stability:

    - `contrastive`: the supervised contrastive loss is added;
    - `preassigned`: class vectors are corners of a simplex from the start, and are not learned;
    - `pseudo_classes`: mixtures of each base class and another one are further classes;

    of adaptability:

    - `fine_tuning`: g learns the samples of each later stage, with the means of earlier classes replayed;
    - `subnetwork`: of g, the biases learn in later stages, and nothing else;

    and of training:

    - `larger`: four times as many hidden units;
    - `pretraining`: the contrastive loss without labels comes first;
    - `auxiliary`: g also has to tell by how far the features were turned.

    The paper trains a network on images. Here it is a layer behind a frozen one: two views of a row have other features
    left out; what is turned is the vector, by a quarter of its length, in the place of the image; and the corners of
    new classes are not used. The paper's parts of the network to tune are found by search.

    Args:
        contrastive, preassigned, pseudo_classes: of stability.
        fine_tuning, subnetwork: of adaptability; each makes later stages train.
        larger, pretraining, auxiliary: of training.
        hidden: units of the hidden layer, 1 or more; `larger` has four times as many.
        epochs: passes over the first stage, 1 or more; as many again of `pretraining`.
        rate: learning rate of Adam in the first stage, positive.
        tuning: steps in each later stage, 0 or more.
        tuning_rate: learning rate there, positive.
        dropped: share of the features that a view lacks, from 0 to below 1.
        batch_size: 2 or more.
        random_state: seed of weights, views and order.

    Attributes:
        classes_: the labels, sorted, `[K]`.
        sums_: of the unit outputs of each class's samples, `[K, d]`: its mean, but for the length.
        counts_: how many samples these are of, `[K]`.
        inputs_: sum of the inputs of each class, `[K, d]`, which is what is replayed; empty where nothing is tuned.
        w1_, b1_, w2_, b2_: of g, float32; empty where all switches are off.
        parameters_: how many numbers g has.
        stages_: how many stages there have been.
        n_features_in_: d.

    Raises:
        ValueError: when fitted: values that are not finite, labels that are no classes. ConfigError: an option out of
            range.

    Example:
        >>> import numpy as np
        >>> from repertoire.estimators import FewShotRecipe
        >>> y = np.arange(90) % 3
        >>> x = np.random.default_rng(0).normal(size=(90, 8)) + 5 * np.eye(3, 8)[y]
        >>> model = FewShotRecipe(hidden=16).partial_fit(x[y < 2], y[y < 2])
        >>> bool((model.partial_fit(x[y == 2][:5], y[y == 2][:5]).predict(x) == y).mean() > 0.9)
        True
        >>> FewShotRecipe.plain().fit(x, y).parameters_
        0
    """

    sums_: np.ndarray
    counts_: np.ndarray
    inputs_: np.ndarray
    w1_: np.ndarray
    b1_: np.ndarray
    w2_: np.ndarray
    b2_: np.ndarray
    parameters_: int

    def __init__(
        self,
        contrastive: bool = True,
        preassigned: bool = True,
        pseudo_classes: bool = True,
        fine_tuning: bool = True,
        subnetwork: bool = True,
        larger: bool = True,
        pretraining: bool = True,
        auxiliary: bool = True,
        hidden: int = 128,
        epochs: int = 10,
        rate: float = 0.001,
        tuning: int = 20,
        tuning_rate: float = 0.001,
        dropped: float = 0.2,
        batch_size: int = 128,
        random_state: int = 0,
    ) -> None:
        self.contrastive = contrastive
        self.preassigned = preassigned
        self.pseudo_classes = pseudo_classes
        self.fine_tuning = fine_tuning
        self.subnetwork = subnetwork
        self.larger = larger
        self.pretraining = pretraining
        self.auxiliary = auxiliary
        self.hidden = hidden
        self.epochs = epochs
        self.rate = rate
        self.tuning = tuning
        self.tuning_rate = tuning_rate
        self.dropped = dropped
        self.batch_size = batch_size
        self.random_state = random_state

    @classmethod
    def plain(cls, *switches: str, **options: object) -> FewShotRecipe:
        """One with all switches off but those that are named."""
        return cls(**dict.fromkeys(_SWITCHES, False) | dict.fromkeys(switches, True) | options)  # type: ignore[arg-type]

    @classmethod
    def example_options(cls) -> dict[str, int]:
        """A small network, for few rows."""
        return {"hidden": 8}

    def _check_options(self) -> None:
        for name in ("hidden", "epochs"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in ("rate", "tuning_rate"):
            self._require(name, 0 < getattr(self, name) < np.inf, "a positive number")
        self._require("tuning", self.tuning >= 0, "0 or more")
        self._require("dropped", 0 <= self.dropped < 1, "from 0 to below 1")
        self._require("batch_size", self.batch_size >= 2, "2 or more")

    @property
    def _tunes(self) -> bool:
        return self.fine_tuning or self.subnetwork

    def _begin(self, width: int) -> None:
        self.sums_, self.counts_ = np.zeros((0, width)), np.zeros(0, dtype=np.int64)
        self.inputs_ = np.zeros((0, width if self._tunes else 0))
        for name in _Layer.names:
            setattr(self, f"{name}_", np.zeros(0, dtype=np.float32))
        self.parameters_ = 0

    def _make_room(self, place: np.ndarray, count: int) -> None:
        for name in ("sums_", "counts_", "inputs_"):
            setattr(self, name, grown(getattr(self, name), place, count))

    def _learn(self, X: np.ndarray, index: np.ndarray) -> None:
        x, y = _scaled(X), torch.from_numpy(index)
        seed = np.random.SeedSequence([self.random_state, self.stages_]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        if any(getattr(self, name) for name in _SWITCHES):
            if self.stages_ == 0:
                layer = _Layer.drawn(x.shape[1], self.hidden * (4 if self.larger else 1), generator)
                self._train(layer, x, y, generator)
            else:
                layer = self._layer()
                self._tune(layer, x, y, generator)
            for name, tensor in zip(_Layer.names, layer.tensors, strict=True):
                setattr(self, f"{name}_", tensor.detach().numpy())
            self.parameters_ = sum(tensor.numel() for tensor in layer.tensors)
        np.add.at(self.sums_, index, self._outputs(x))
        if self._tunes:
            np.add.at(self.inputs_, index, x.double().numpy())
        self.counts_ = self.counts_ + np.bincount(index, minlength=len(self.counts_))

    def _layer(self) -> _Layer:
        return _Layer([torch.from_numpy(getattr(self, f"{name}_").copy()) for name in _Layer.names])

    def _outputs(self, x: Tensor) -> np.ndarray:
        """Unit rows, float64 `[N, d]`."""
        if not self.parameters_:
            return normalize(x.double().numpy())
        with torch.no_grad():
            layer = self._layer()
            parts = [layer(part).double() for part in x.split(4096)]
        return torch.cat([x[:0].double(), *parts]).numpy()

    def _train(self, layer: _Layer, x: Tensor, y: Tensor, generator: torch.Generator) -> None:
        """The first stage."""
        count, width = int(y.max()) + 1, x.shape[1]
        number = count * (2 if self.pseudo_classes and count > 1 else 1)
        vectors = _simplex(number, width, generator)
        turned = torch.zeros(_TURNS, width)
        learned = [*layer.tensors, *([] if self.preassigned else [vectors]), *([turned] if self.auxiliary else [])]
        for tensor in learned:
            tensor.requires_grad_()
        optimizer = torch.optim.Adam(learned, lr=self.rate)
        for epoch in range(self.epochs * (2 if self.pretraining else 1)):
            first = self.pretraining and epoch < self.epochs
            for rows in self._batches(len(x), generator):
                views = [self._view(x[rows], generator) for _ in range(2 if first or self.contrastive else 1)]
                z = layer(torch.cat(views))
                if first:
                    loss = _alike(z, torch.arange(len(rows)).repeat(2))
                else:
                    loss = F.cross_entropy(_SCALE * z @ F.normalize(vectors).T, y[rows].repeat(len(views)))
                    if self.contrastive:
                        loss = loss + _alike(z, y[rows].repeat(2))
                    if number > count:
                        mixed, label = self._mixed(x, y, rows, count, generator)
                        loss = loss + F.cross_entropy(_SCALE * layer(mixed) @ F.normalize(vectors).T, count + label)
                    if self.auxiliary:
                        by = torch.randint(_TURNS, (len(rows),), generator=generator)
                        place = (torch.arange(width) + by[:, None] * (width // _TURNS)) % width
                        loss = loss + F.cross_entropy(_SCALE * layer(x[rows].gather(1, place)) @ turned.T, by)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def _mixed(
        self, x: Tensor, y: Tensor, rows: Tensor, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Each row and one of the next class, half and half; the pair is named by the first of its classes."""
        order = y.argsort(stable=True)
        sizes = torch.bincount(y, minlength=count)
        starts = sizes.cumsum(0) - sizes
        following = (y[rows] + 1) % count
        drawn = (torch.rand(len(rows), generator=generator) * sizes[following]).long()
        return (x[rows] + x[order[starts[following] + drawn]]) / 2, y[rows]

    def _tune(self, layer: _Layer, x: Tensor, y: Tensor, generator: torch.Generator) -> None:
        """A later stage: its samples, and a replayed mean of each class that came before."""
        if not self._tunes or not self.tuning:
            return
        with torch.no_grad():
            sums = torch.from_numpy(self.sums_).float().index_add(0, y, layer(x))
        targets = F.normalize(sums)
        old = torch.from_numpy(np.flatnonzero(self.counts_))
        means = torch.from_numpy(self.inputs_[old.numpy()] / self.counts_[old.numpy(), None]).float()
        learned = [layer.tensors[1], layer.tensors[3]] if self.subnetwork else layer.tensors
        for tensor in learned:
            tensor.requires_grad_()
        optimizer = torch.optim.Adam(learned, lr=self.tuning_rate)
        for _ in range(self.tuning):
            rows = torch.randperm(len(x), generator=generator)[: self.batch_size]
            replayed = torch.randperm(len(old), generator=generator)[: self.batch_size]
            z = layer(torch.cat([x[rows], means[replayed]]))
            loss = F.cross_entropy(_SCALE * z @ targets.T, torch.cat([y[rows], old[replayed]]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _batches(self, count: int, generator: torch.Generator) -> Iterator[Tensor]:
        yield from torch.randperm(count, generator=generator).split(self.batch_size)

    def _view(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x * (torch.rand(x.shape, generator=generator) >= self.dropped) / (1 - self.dropped)

    def _logits(self, X: np.ndarray) -> np.ndarray:
        return _SCALE * self._outputs(_scaled(X)) @ normalize(self.sums_).T


def _scaled(X: np.ndarray) -> Tensor:
    """Rows with a mean square of 1, float32."""
    return torch.from_numpy((normalize(X) * X.shape[1] ** 0.5).astype(np.float32))
