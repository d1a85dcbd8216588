"""GrowNet: shallow networks that boost each other, hand on their features, and are corrected together."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from repertoire.estimators.boosted._base import Boosted, BoostedClassifier, BoostedRegressor, require
from repertoire.estimators.boosted._objectives import Objective
from repertoire.registry import register

__all__ = ["GrowNetClassifier", "GrowNetRegressor"]

BoostRate = Literal["each", "shared", "fixed"]


class _Learner(nn.Module):
    """A weak learner: two hidden layers."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.out = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The features that it hands on `[N, h]`, and its scores `[N, K]`."""
        features = self.body(x)
        return features, self.out(features)


class _GrowNetModule(nn.Module):
    """The whole network. Its scores are those of the constant and of every learner, times their boost rates."""

    mean: Tensor
    scale: Tensor
    constant: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, constant: Tensor, rates: Tensor, propagate: bool) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.register_buffer("constant", constant)
        self.learners = nn.ModuleList()
        self.rates = nn.Parameter(rates)
        self.propagate = propagate

    def rate(self, number: int) -> Tensor:
        """The boost rate of a learner."""
        return self.rates[number if len(self.rates) > 1 else 0]

    def prepared(self, x: Tensor) -> Tensor:
        """Features at mean 0 and variance 1."""
        return (x - self.mean) / self.scale

    def entering(self, x: Tensor, features: Tensor | None) -> Tensor:
        """What a learner sees: the prepared features, and what the learner before it hands on."""
        return x if features is None or not self.propagate else torch.cat([x, features], dim=1)

    def stages(self, x: Tensor) -> Iterator[tuple[Tensor | None, Tensor]]:
        """After the constant and after each learner: what it hands on, and the scores so far. `x` is prepared."""
        features, scores = None, self.constant.expand(len(x), -1)
        yield features, scores
        for number, learner in enumerate(self.learners):
            features, own = learner(self.entering(x, features))
            scores = scores + self.rate(number) * own
            yield features, scores

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[N, K]` of raw features `[N, d]`."""
        *_, (_, scores) = self.stages(self.prepared(x))
        return scores


class _GrowNet(Boosted):
    @classmethod
    def example_options(cls) -> dict[str, Any]:
        """Options for an example of little data, where the defaults do not do."""
        return {"n_stages": 2, "epochs": 10, "corrective_epochs": 2, "learning_rate": 0.03, "random_state": 0}

    def __init__(
        self,
        n_stages: int = 20,
        hidden: int = 16,
        epochs: int = 5,
        corrective_epochs: int = 5,
        learning_rate: float = 0.005,
        weight_decay: float = 1e-4,
        batch_size: int = 64,
        boost_rate: float = 1.0,
        learn_boost_rate: BoostRate = "each",
        second_order: bool = True,
        propagate: bool = True,
        corrective: bool = True,
        standardize: bool = True,
        random_state: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.n_stages = n_stages
        self.hidden = hidden
        self.epochs = epochs
        self.corrective_epochs = corrective_epochs
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.boost_rate = boost_rate
        self.learn_boost_rate = learn_boost_rate
        self.second_order = second_order
        self.propagate = propagate
        self.corrective = corrective
        self.standardize = standardize
        self.random_state = random_state
        self.device = device

    @property
    def boost_rates_(self) -> list[float]:
        """The boost rate of each learner."""
        return [float(self.module_.rate(number).detach()) for number in range(self.n_stages_)]

    def to_module(self, stages: int | None = None) -> nn.Module:
        """The network as a module that takes raw features `[N, d]`, in float32 and eval mode.

        Args:
            stages: how many learners it has; the others are left out. All by default.

        Returns:
            A module that gives logits `[N, K]` (`[N, 1]` for two classes), or the predicted number `[N, 1]`.
        """
        used = self._count(stages)
        module = copy.deepcopy(self.module_)
        module.learners = module.learners[:used]
        spread, mean = getattr(self, "_spread", 1.0), getattr(self, "_mean", 0.0)
        with torch.no_grad():
            module.rates.mul_(spread)
            module.constant.mul_(spread).add_(mean)
        return module.float().requires_grad_(False).eval()

    def fitted_state(self) -> dict[str, Any]:
        state = super().fitted_state()
        module = state.pop("module_")
        return state | {f"module_.{name}": value for name, value in module.state_dict().items()}

    def restore(self, state: Mapping[str, Any]) -> Self:
        of_module = {n.removeprefix("module_."): v for n, v in state.items() if n.startswith("module_.")}
        super().restore({name: value for name, value in state.items() if not name.startswith("module_.")})
        mean, scale, constant, rates = (of_module[name] for name in ("mean", "scale", "constant", "rates"))
        net = _GrowNetModule(mean, scale, constant, rates, self.propagate)
        for number in range(self.n_stages_):
            inputs = len(mean) + (self.hidden if number and self.propagate else 0)
            net.learners.append(_Learner(inputs, self.hidden, len(constant)).to(mean))
        net.load_state_dict(of_module)
        self.module_ = net.requires_grad_(False).eval()
        return self

    def _check_options(self) -> None:
        for name in ("n_stages", "hidden", "epochs", "batch_size"):
            require(self, name, getattr(self, name) >= 1, "1 or more")
        require(self, "corrective_epochs", self.corrective_epochs >= 0, "0 or more")
        require(self, "weight_decay", self.weight_decay >= 0, "0 or more")
        for name in ("learning_rate", "boost_rate"):
            require(self, name, getattr(self, name) > 0, "a positive number")
        known = get_args(BoostRate)
        require(self, "learn_boost_rate", self.learn_boost_rate in known, f"one of {', '.join(known)}")

    def _grow(self, x: Tensor, targets: Tensor, objective: Objective, generator: torch.Generator) -> None:
        mean, scale = x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])
        if self.standardize:
            mean, scale = x.mean(0), x.std(0, correction=0)
            scale = torch.where(scale > 0, scale, 1.0)
        rates = x.new_full((self.n_stages if self.learn_boost_rate == "each" else 1,), self.boost_rate)
        net = _GrowNetModule(mean, scale, objective.constant(targets), rates, self.propagate).to(x.device)
        x = net.prepared(x)
        with torch.random.fork_rng(devices=[]):
            # Starting weights are drawn by PyTorch's own layers, from a stream of this estimator's.
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            for number in range(self.n_stages):
                self._add(net, x, targets, objective, generator)
                if self.corrective and number > 0:
                    self._correct(net, x, targets, objective, generator)
        self.module_ = net.cpu().requires_grad_(False).eval()
        self.n_stages_ = self.n_stages

    def _add(
        self, net: _GrowNetModule, x: Tensor, targets: Tensor, objective: Objective, generator: torch.Generator
    ) -> None:
        """Fits one more learner to the second-order expansion of the loss around the scores so far."""
        with torch.no_grad():
            *_, (features, scores) = net.stages(x)
            entering = net.entering(x, features)
            residuals = objective.residuals(targets, scores)
            curvature = objective.curvature(targets, scores) if self.second_order else torch.ones_like(residuals)
        learner = _Learner(entering.shape[1], self.hidden, targets.shape[1]).to(x)
        optimizer = self._optimizer(list(learner.parameters()), self.learning_rate)
        rate = net.rate(len(net.learners)).detach()
        for rows in self._batches(len(x), self.epochs, generator):
            step = rate * learner(entering[rows])[1]
            # h (step - r / h)^2 / 2 without the term that does not depend on the step: r / h may be beyond all bounds.
            loss = (curvature[rows] * step.square() / 2 - residuals[rows] * step).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        net.learners.append(learner)

    def _correct(
        self, net: _GrowNetModule, x: Tensor, targets: Tensor, objective: Objective, generator: torch.Generator
    ) -> None:
        """Back-propagation through all learners together, with half the learning rate."""
        parameters = list(net.learners.parameters())
        if self.learn_boost_rate != "fixed":
            parameters.append(net.rates)
        optimizer = self._optimizer(parameters, self.learning_rate / 2)
        for rows in self._batches(len(x), self.corrective_epochs, generator):
            *_, (_, scores) = net.stages(x[rows])
            loss = objective.loss(targets[rows], scores)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _optimizer(self, parameters: list[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
        # Fused: on networks of this size, the calls for one parameter after the other would be most of the time.
        weights = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim <= 1]
        groups = [{"params": weights, "weight_decay": self.weight_decay}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.Adam(groups, lr=learning_rate, fused=True)

    def _batches(self, count: int, epochs: int, generator: torch.Generator) -> Iterator[Tensor]:
        for _ in range(epochs):
            yield from torch.randperm(count, generator=generator).to(self.device).split(self.batch_size)

    def _staged(self, x: Tensor) -> Iterator[Tensor]:
        with torch.no_grad():
            net = self.module_.to(x.device)
            for _, scores in net.stages(net.prepared(x)):
                yield scores


@register("feature-estimators", "grownet", paper="grownet")
class GrowNetClassifier(BoostedClassifier, _GrowNet):
    r"""Gradient boosting whose weak learners are shallow networks that hand on their features: GrowNet, for classes.

    Badirli et al., *Gradient Boosting Neural Networks: GrowNet* (2020). Learner k has two hidden layers, and sees the
    features of a sample beside the last hidden layer of learner k - 1. With g and h the first two derivatives of the
    loss at the scores so far, it minimises

    .. math::
        \sum_i h_i \big(\tilde y_i - \alpha_k f_k(x_i)\big)^2, \qquad \tilde y_i = -g_i / h_i, \qquad
        F_k(x) = F_0 + \sum_{m \le k} \alpha_m f_m(x)

    The corrective step then trains all learners and their boost rates α together, by back-propagation of the loss
    itself. Each part can be switched off, to see what it contributes.

    The loss is cross-entropy. The paper's two classes have labels -1 and 1 and the loss
    :math:`\log(1 + e^{-2 y F})`, which is the same with scores half as large. More than two classes are not in the
    paper: here h is the diagonal of the softmax's Hessian. The released code has one boost rate for all learners
    (`learn_boost_rate=shared`), batch-normalises inside the learners, and halves the learning rate every 15 stages; the
    latter two are not offered.

    Args:
        n_stages: how many learners; 20 by default.
        hidden: width of both hidden layers of a learner; 16 by default.
        epochs: passes over the samples to fit a learner; 5 by default. The paper makes one, on far larger data.
        corrective_epochs: passes over the samples in each corrective step; 5 by default. On small data that can be
            told apart perfectly, much fewer than `epochs` let learners drift where h is nearly 0.
        learning_rate: of Adam, above 0; 0.005 by default, half of that in the corrective step.
        weight_decay: penalty on squared weights; 1e-4 by default.
        batch_size: samples a step; 64 by default.
        boost_rate: α at the start; 1 by default.
        learn_boost_rate: whether the corrective step learns a boost rate for "each" learner (default), one that is
            "shared", or leaves it "fixed".
        second_order: whether h weighs the samples (default); otherwise h is 1 everywhere.
        propagate: whether a learner sees the last hidden layer of the one before it (default).
        corrective: whether there is a corrective step (default).
        standardize: bring features to mean 0 and variance 1 first; true by default.
        random_state: seed of starting weights and batches; None takes NumPy's state.
        device: where to compute in float64, "cpu" (default) or "cuda".

    Attributes:
        classes_: the labels, sorted, `[K]`.
        n_stages_: learners that were fitted.
        boost_rates_: the boost rate of each.
        n_features_in_: d.

    Raises:
        ConfigError: when fitted, an option out of range.
        ValueError: when fitted, a single class, or values that are not finite.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from repertoire.estimators import GrowNetClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> network = GrowNetClassifier(n_stages=10, random_state=0).fit(X[::2], y[::2])
        >>> network.score(X[1::2], y[1::2]) > 0.9
        True
    """


@register("feature-estimators", "grownet-regressor", paper="grownet")
class GrowNetRegressor(BoostedRegressor, _GrowNet):
    r"""Gradient boosting whose weak learners are shallow networks that hand on their features: GrowNet, for numbers.

    Badirli et al., *Gradient Boosting Neural Networks: GrowNet* (2020), with squared error: a learner is fitted to what
    those before it left over, and h is 1 for every sample. Targets are brought to mean 0 and variance 1 while training.
    See `GrowNetClassifier` for the formulas.

    Args:
        n_stages: how many learners; 20 by default.
        hidden: width of both hidden layers of a learner; 16 by default.
        epochs: passes over the samples to fit a learner; 5 by default. The paper makes one, on far larger data.
        corrective_epochs: passes over the samples in each corrective step; 5 by default. On small data that can be
            told apart perfectly, much fewer than `epochs` let learners drift where h is nearly 0.
        learning_rate: of Adam, above 0; 0.005 by default, half of that in the corrective step.
        weight_decay: penalty on squared weights; 1e-4 by default.
        batch_size: samples a step; 64 by default.
        boost_rate: α at the start; 1 by default.
        learn_boost_rate: whether the corrective step learns a boost rate for "each" learner (default), one that is
            "shared", or leaves it "fixed".
        second_order: of no effect on squared error, whose second derivative is 1.
        propagate: whether a learner sees the last hidden layer of the one before it (default).
        corrective: whether there is a corrective step (default).
        standardize: bring features to mean 0 and variance 1 first; true by default.
        random_state: seed of starting weights and batches; None takes NumPy's state.
        device: where to compute in float64, "cpu" (default) or "cuda".

    Attributes:
        n_stages_: learners that were fitted.
        boost_rates_: the boost rate of each.
        n_features_in_: d.

    Raises:
        ConfigError: when fitted, an option out of range.
        ValueError: when fitted, values that are not finite.

    Example:
        >>> import numpy as np
        >>> from repertoire.estimators import GrowNetRegressor
        >>> X = np.linspace(-3, 3, 120)[:, None]
        >>> network = GrowNetRegressor(n_stages=8, random_state=0).fit(X, np.sin(X[:, 0]))
        >>> bool(network.score(X, np.sin(X[:, 0])) > 0.9)
        True
    """
