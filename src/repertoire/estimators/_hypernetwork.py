"""A network that writes the weights of a small one for each stage, and remembers stages by their codes."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from scipy.special import log_softmax
from sklearn.preprocessing import normalize
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from repertoire.errors import DataError
from repertoire.estimators._incremental import Incremental, grown
from repertoire.registry import register

__all__ = ["Hypernetwork"]


class _Generator(nn.Module):
    """Codes of tasks `[T, E]` to the weights of their networks `[T, size]`, a chunk at a time.

    Args:
        kind: "rnn": a recurrent network is shown the code once for each chunk; "chunked": a perceptron is shown the
            code and a learned vector that is the chunk's.
        code: E.
        hidden: units of the recurrent network or the perceptron.
        chunk: weights that are written at a time.
        scale: by what each weight is multiplied, `[size]`.
    """

    scale: Tensor

    def __init__(self, kind: str, code: int, hidden: int, chunk: int, scale: Tensor) -> None:
        super().__init__()
        self.steps = math.ceil(len(scale) / chunk)
        self.register_buffer("scale", scale, persistent=False)
        self.recurrent = nn.LSTM(code, hidden, batch_first=True) if kind == "rnn" else None
        if kind == "chunked":
            self.places = nn.Parameter(torch.randn(self.steps, code))
            self.inner = nn.Sequential(nn.Linear(2 * code, hidden), nn.ReLU())
        self.write = nn.Linear(hidden, chunk)
        # What is written has unit variance before it is scaled: the network begins as one that was drawn directly.
        with torch.no_grad():
            size = self._states(torch.randn(16, code)).square().sum(2).mean().clamp_min(1e-6)
            self.write.weight.normal_(0, float(size) ** -0.5)
            self.write.bias.zero_()

    def _states(self, codes: Tensor) -> Tensor:
        again = codes[:, None].expand(-1, self.steps, -1)
        if self.recurrent is not None:
            states: Tensor = self.recurrent(again)[0]
            return states
        made: Tensor = self.inner(torch.cat([again, self.places.expand(len(codes), -1, -1)], 2))
        return made

    def forward(self, codes: Tensor) -> Tensor:
        return self.write(self._states(codes)).flatten(1)[:, : len(self.scale)] * self.scale


def _flat(module: nn.Module) -> np.ndarray:
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach().numpy().copy()


@register("feature-estimators", "hypernetwork", paper="rnn-hypernetwork-cl")
class Hypernetwork(Incremental):
    r"""A network that writes the weights of a small one for each stage, and is held to what it wrote for earlier ones.

    Hemati, Lomonaco, Bacciu and Borth, *Continual Learning with Dependency Preserving Hypernetworks* (2022). Each stage
    t has a learned code :math:`e_t`, from which a hypernetwork h with weights :math:`\Theta` writes all weights of a
    small classifier, in chunks. A recurrent one, whose states lead from chunk to chunk, lets the weights of a layer
    depend on those before. In stage t its code and the hypernetwork are trained by the cross-entropy of the classifier
    and a term that holds what is written for earlier codes, which are frozen:

    .. math:: \mathrm{CE}\bigl(f(x;\, h(e_t; \Theta)), y\bigr) + \frac{\beta}{t-1} \sum_{t' < t}
        \bigl\lVert h(e_{t'}; \Theta) - h(e_{t'}; \Theta^*) \bigr\rVert_2^2

    where :math:`\Theta^*` are the weights that the stage began with, and the weights that are written are compared
    before they are scaled to the width of their layer. The term looks at :math:`\Theta` itself, not at where the next
    step would lead it. `kind="chunked"` is the hypernetwork of von Oswald et al., *Continual Learning with
    Hypernetworks* (2020), whose chunks know nothing of each other but have a learned vector each. The paper's further
    penalty on the weights of the recurrent network and its growth are not part of this.

    The paper is told which stage a sample is from. Here the nearest class mean says how likely each stage is, and the
    probabilities of the stages' classifiers are averaged with that weight; among the classes of one stage, the answers
    are those of its classifier alone.

    Args:
        kind: "rnn" (default) or "chunked".
        code: length of the codes, 1 or more.
        hidden: units of the hypernetwork, 1 or more.
        chunk: weights that are written at a time, 1 or more.
        units: of the hidden layer of the classifier, 1 or more.
        slots: classes of a stage at most, 1 or more.
        strength: beta, 0 or more.
        epochs: how often each stage is gone through, 1 or more.
        rate: learning rate of Adam, positive.
        batch_size: 1 or more.
        normalize: scale each feature vector to a mean square of 1 first; a zero vector stays zero.
        random_state: seed of the weights, the codes and the order.

    Attributes:
        classes_: the labels, sorted, `[K]`.
        codes_: float32 `[T, code]`.
        weights_: of the hypernetwork, float32, one after another; their number is what it costs.
        members_: int64 `[T, slots]`, which classes each stage has, as positions in `classes_`; -1 where there is none.
        means_: of the features of each class, float64 `[K, d]`.
        spread_: mean squared distance of features from the mean of their class, over all stages.
        stages_: how many stages there have been.
        n_features_in_: d.

    Raises:
        ValueError: when fitted: values that are not finite, labels that are no classes. ConfigError: an option out of
            range. DataError: a stage with more classes than there are slots.

    Example:
        >>> import numpy as np
        >>> from repertoire.estimators import Hypernetwork
        >>> x = np.random.default_rng(0).normal(size=(80, 6)) + 6 * np.eye(4, 6)[np.arange(80) % 4]
        >>> y, model = np.arange(80) % 4, Hypernetwork(slots=2)
        >>> for stage in ((0, 1), (2, 3)):
        ...     _ = model.partial_fit(x[np.isin(y, stage)], y[np.isin(y, stage)])
        >>> bool((model.predict(x) == y).mean() > 0.9)
        True
    """

    codes_: np.ndarray
    weights_: np.ndarray
    members_: np.ndarray
    means_: np.ndarray
    spread_: float

    def __init__(
        self,
        kind: Literal["rnn", "chunked"] = "rnn",
        code: int = 16,
        hidden: int = 32,
        chunk: int = 128,
        units: int = 32,
        slots: int = 10,
        strength: float = 0.1,
        epochs: int = 20,
        rate: float = 0.003,
        batch_size: int = 32,
        normalize: bool = True,
        random_state: int = 0,
    ) -> None:
        self.kind = kind
        self.code = code
        self.hidden = hidden
        self.chunk = chunk
        self.units = units
        self.slots = slots
        self.strength = strength
        self.epochs = epochs
        self.rate = rate
        self.batch_size = batch_size
        self.normalize = normalize
        self.random_state = random_state

    def _check_options(self) -> None:
        self._require("kind", self.kind in ("rnn", "chunked"), "'rnn' or 'chunked'")
        for name in ("code", "hidden", "chunk", "units", "slots", "epochs", "batch_size"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        self._require("strength", 0 <= self.strength < np.inf, "a number that is 0 or more")
        self._require("rate", 0 < self.rate < np.inf, "a positive number")

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(normalize(X) * X.shape[1] ** 0.5 if self.normalize else X, dtype=np.float64)

    def _target(self) -> nn.Sequential:
        """The classifier, whose own weights nobody reads."""
        first = nn.Linear(self.n_features_in_, self.units, device="meta")
        return nn.Sequential(first, nn.ReLU(), nn.Linear(self.units, self.slots, device="meta"))

    def _scale(self) -> Tensor:
        """How large each weight of the classifier begins, `[size]`: by the width of its layer, biases small."""
        parts = []
        for parameter in self._target().parameters():
            parts.append(torch.full((parameter.numel(),), parameter.shape[1] ** -0.5 if parameter.dim() == 2 else 0.1))
        return torch.cat(parts)

    def _generator(self) -> _Generator:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            made = _Generator(self.kind, self.code, self.hidden, self.chunk, self._scale())
        if hasattr(self, "weights_") and len(self.weights_):
            torch.nn.utils.vector_to_parameters(torch.from_numpy(self.weights_.copy()), made.parameters())
        return made

    def _answers(self, weights: Tensor, x: Tensor) -> Tensor:
        """Logits `[N, slots]` of the classifier with these weights `[size]`."""
        target, given, start = self._target(), {}, 0
        for name, parameter in target.named_parameters():
            given[name] = weights[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()
        answers: Tensor = functional_call(target, given, (x,))
        return answers

    def _begin(self, width: int) -> None:
        self.codes_ = np.zeros((0, self.code), dtype=np.float32)
        self.weights_ = np.zeros(0, dtype=np.float32)
        self.members_ = np.zeros((0, self.slots), dtype=np.int64)
        self.means_ = np.zeros((0, width))
        self.spread_ = 0.0

    def _make_room(self, place: np.ndarray, count: int) -> None:
        self.means_ = grown(self.means_, place, count)
        known = self.members_ >= 0
        self.members_[known] = place[self.members_[known]]

    def _learn(self, X: np.ndarray, index: np.ndarray) -> None:
        own, local = np.unique(index, return_inverse=True)
        if len(own) > self.slots:
            raise DataError(f"a stage has {len(own)} classes, and slots is {self.slots}: give slots={len(own)} or more")
        z = self._scaled(X)
        for number, label in enumerate(own):
            self.means_[label] = z[local == number].mean(0)
        spread = float(np.square(z - self.means_[index]).sum(1).mean())
        self.spread_ += (spread - self.spread_) / (self.stages_ + 1)
        made = self._generator()
        seed = np.random.SeedSequence([self.random_state, self.stages_]).generate_state(1)[0]
        draw = torch.Generator().manual_seed(int(seed))
        code = nn.Parameter(torch.randn(1, self.code, generator=draw))
        before = torch.from_numpy(self.codes_)
        with torch.no_grad():
            held = made(before) if len(before) else None
        x, y = torch.from_numpy(z.astype(np.float32)), torch.from_numpy(local)
        optimizer = torch.optim.Adam([code, *made.parameters()], lr=self.rate)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(y), generator=draw).split(self.batch_size):
                optimizer.zero_grad()
                loss = F.cross_entropy(self._answers(made(code)[0], x[rows])[:, : len(own)], y[rows])
                if held is not None and self.strength:
                    drift = (made(before) - held) / made.scale
                    loss = loss + self.strength * drift.square().sum() / len(before)
                loss.backward()
                optimizer.step()
        self.weights_ = _flat(made)
        self.codes_ = np.concatenate([self.codes_, code.detach().numpy()])
        members = np.full((1, self.slots), -1)
        members[0, : len(own)] = own
        self.members_ = np.concatenate([self.members_, members])

    def _logits(self, X: np.ndarray) -> np.ndarray:
        z = self._scaled(X)
        # Of classes that were announced and never seen, nothing is known.
        seen = np.unique(self.members_[self.members_ >= 0])
        count = len(self.means_)
        apart = np.full((len(z), count), np.inf)
        apart[:, seen] = _squared(z, self.means_[seen])
        found = np.full((len(z), count), -np.inf)
        with torch.no_grad():
            weights = self._generator()(torch.from_numpy(self.codes_)).double()
        near = np.stack([apart[:, row[row >= 0]].min(1) for row in self.members_], 1)
        share = log_softmax(-near / max(2 * self.spread_ / z.shape[1], 1e-12), axis=1)
        for number, row in enumerate(self.members_):
            own = row[row >= 0]
            with torch.no_grad():
                said = self._answers(weights[number], torch.from_numpy(z))[:, : len(own)].log_softmax(1).numpy()
            found[:, own] = np.logaddexp(found[:, own], said + share[:, number, None])
        return np.maximum(found, -700.0)


def _squared(z: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Squared distances `[N, K]`."""
    inner = z @ means.T
    return np.maximum(np.square(z).sum(1)[:, None] - 2 * inner + np.square(means).sum(1), 0.0)
