"""A hidden layer trained by gradient boosting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import torch
from torch import Tensor, nn

from repertoire.estimators.boosted._base import Boosted, BoostedClassifier, BoostedRegressor, require
from repertoire.estimators.boosted._neurons import Activation, Neurons, Solver, activate, fit_neurons
from repertoire.estimators.boosted._objectives import Objective, Squared
from repertoire.registry import register

__all__ = ["BoostedNetworkClassifier", "BoostedNetworkRegressor"]

NOTHING = 1e-12
"""Residuals below this, in units of the targets, are rounding: there is nothing left to fit."""


class _BoostedNetwork(Boosted):
    @classmethod
    def example_options(cls) -> dict[str, Any]:
        """Options for an example of little data, where the defaults do not do."""
        return {"n_stages": 4, "max_iter": 20}

    def __init__(
        self,
        n_stages: int = 50,
        n_neurons: int = 4,
        learning_rate: float = 0.25,
        subsample: float = 1.0,
        activation: Activation = "logistic",
        solver: Solver = "lbfgs",
        max_iter: int = 100,
        alpha: float = 1e-4,
        standardize: bool = True,
        random_state: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.n_stages = n_stages
        self.n_neurons = n_neurons
        self.learning_rate = learning_rate
        self.subsample = subsample
        self.activation = activation
        self.solver = solver
        self.max_iter = max_iter
        self.alpha = alpha
        self.standardize = standardize
        self.random_state = random_state
        self.device = device

    def to_module(self, stages: int | None = None) -> nn.Module:
        """The network: one hidden layer, as an `nn.Sequential` that takes raw features `[N, d]`, in float32.

        Args:
            stages: how many stages it has; the neurons of the others are left out. All by default.

        Returns:
            A module that gives logits `[N, K]` (`[N, 1]` for two classes), or the predicted number `[N, 1]`.
        """
        used = self._count(stages)
        width = used * self.n_neurons
        spread, mean = getattr(self, "_spread", 1.0), getattr(self, "_mean", 0.0)
        act = {"logistic": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}[self.activation]()
        hidden = _linear(self._weight[:width], self._bias[:width])
        out = _linear(self._out_weight[:, :width] * spread, self._out_bias[used] * spread + mean)
        return nn.Sequential(hidden, act, out).eval()

    def _check_options(self) -> None:
        require(self, "n_stages", self.n_stages >= 1, "1 or more")
        require(self, "n_neurons", self.n_neurons >= 1, "1 or more")
        require(self, "max_iter", self.max_iter >= 1, "1 or more")
        require(self, "learning_rate", self.learning_rate > 0, "a positive number")
        require(self, "subsample", 0 < self.subsample <= 1, "a share, above 0 and up to 1")
        require(self, "alpha", self.alpha >= 0, "0 or more")
        for name, known in (("activation", get_args(Activation)), ("solver", get_args(Solver))):
            require(self, name, getattr(self, name) in known, f"one of {', '.join(known)}")

    def _grow(self, x: Tensor, targets: Tensor, objective: Objective, generator: torch.Generator) -> None:
        mean, scale = x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])
        if self.standardize:
            mean, scale = x.mean(0), x.std(0, correction=0)
            scale = torch.where(scale > 0, scale, 1.0)
        x = (x - mean) / scale
        constant = objective.constant(targets)
        scores = constant.expand(targets.shape)
        stages: list[Neurons] = []
        biases = [constant]
        most = 0
        for _ in range(self.n_stages):
            residuals = objective.residuals(targets, scores)
            size = residuals.square().mean().sqrt()
            if size < NOTHING:
                break
            rows = torch.randperm(len(x), generator=generator)[: max(1, int(self.subsample * len(x)))].to(x.device)
            # Fitted at the size of one, so that a penalty does not win over residuals only because they are small.
            stage, iterations = fit_neurons(
                x[rows],
                residuals[rows] / size,
                self.n_neurons,
                activation=self.activation,
                solver=self.solver,
                max_iter=self.max_iter,
                alpha=self.alpha,
                generator=generator,
            )
            most = max(most, iterations)
            fitted = stage(x, self.activation) * size
            step = size * self.learning_rate * _newton(objective, targets, scores, residuals, fitted)
            scores = scores + step / size * fitted
            stages.append(Neurons(stage.weight, stage.bias, stage.out_weight * step, stage.out_bias * step))
            biases.append(biases[-1] + stages[-1].out_bias)
        empty = x.new_zeros(0, x.shape[1])
        weight = torch.cat([stage.weight for stage in stages]) if stages else empty
        bias = torch.cat([stage.bias for stage in stages]) if stages else x.new_zeros(0)
        # The features' own units go into the weights: the network takes them as they come.
        self._weight = (weight / scale).cpu()
        self._bias = (bias - weight @ (mean / scale)).cpu()
        self._out_weight = torch.cat([x.new_zeros(len(constant), 0), *(stage.out_weight for stage in stages)], 1).cpu()
        self._out_bias = torch.stack(biases).cpu()
        self.n_stages_, self.n_iter_ = len(stages), most

    def _staged(self, x: Tensor) -> Iterator[Tensor]:
        weight, bias, out_weight, out_bias = (
            part.to(x.device) for part in (self._weight, self._bias, self._out_weight, self._out_bias)
        )
        scores = out_bias[0].expand(len(x), -1)
        yield scores
        for number in range(self.n_stages_):
            own = slice(number * self.n_neurons, (number + 1) * self.n_neurons)
            h = activate(x @ weight[own].T + bias[own], self.activation)
            scores = scores + h @ out_weight[:, own].T + (out_bias[number + 1] - out_bias[number])
            yield scores


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A layer in float32 with these weights, made without drawing others first."""
    layer = nn.utils.skip_init(nn.Linear, 1, 1)
    layer.out_features, layer.in_features = weight.shape
    layer.weight = nn.Parameter(weight.float(), requires_grad=False)
    layer.bias = nn.Parameter(bias.float(), requires_grad=False)
    return layer


def _newton(objective: Objective, targets: Tensor, scores: Tensor, residuals: Tensor, fitted: Tensor) -> Tensor:
    """The step along a stage's output: one of Newton's method on the loss, or 1 for squared error."""
    if isinstance(objective, Squared):
        return fitted.new_ones(())
    bend = (fitted.square() * objective.curvature(targets, scores)).sum()
    return (fitted * residuals).sum() / bend.clamp_min(torch.finfo(bend.dtype).tiny)


@register("feature-estimators", "gb-nn", paper="gb-nn")
class BoostedNetworkClassifier(BoostedClassifier, _BoostedNetwork):
    r"""A network with one hidden layer, trained a few neurons at a time by gradient boosting.

    Emami and Martínez-Muñoz, *Sequential Training of Neural Networks with Gradient Boosting* (2019). The scores
    start as the constant that is best for all samples. Each of T stages computes the residuals, fits J neurons and
    their output weights to them by least squares, and adds these with a step of Newton's method, after which they
    never change:

    .. math::
        r_i = -\frac{\partial \ell(y_i, F)}{\partial F}\Big|_{F_{t-1}(x_i)}, \qquad
        h_t \approx r, \qquad
        \rho_t = \frac{\sum_i \langle h_t(x_i), r_i \rangle}{\sum_i \langle h_t(x_i)^2, H_i \rangle}, \qquad
        F_t = F_{t-1} + \eta\,\rho_t\,h_t

    with H the diagonal of the Hessian: :math:`p(1 - p)` in each class. All stages together are one hidden layer of T
    times J neurons (`to_module`). Those that were added last can be switched off afterwards, to save time: see `stages`
    of `predict`, and `staged_predict`.

    The loss is cross-entropy, with a sigmoid for two classes. Two things differ from the released
    code: several classes start at the logarithm of their shares rather than at zero; and the penalty `alpha`, which in
    that code comes from scikit-learn's perceptron, acts on residuals scaled to size 1.

    Args:
        n_stages: T, how many stages; 50 by default. Fewer are made if nothing is left to fit.
        n_neurons: J, neurons of a stage; 4 by default. The paper's own code makes 200 neurons one by one.
        learning_rate: η, above 0; 0.25 by default.
        subsample: share of the samples that a stage is fitted to, drawn anew for each; 1 by default.
        activation: "logistic" (default), "tanh" or "relu".
        solver: "lbfgs" (default), or "adam" for many samples.
        max_iter: iterations of L-BFGS a stage, or passes of Adam over the samples; 100 by default.
        alpha: weight of the penalty on squared weights; 1e-4 by default.
        standardize: bring features to mean 0 and variance 1 first, which becomes part of the weights; true by default.
        random_state: seed of starting weights and samples; None takes NumPy's state.
        device: where to compute in float64, "cpu" (default) or "cuda".

    Attributes:
        classes_: the labels, sorted, `[K]`.
        n_stages_: stages that were fitted.
        n_iter_: the most iterations that one of them took.
        n_features_in_: d.

    Raises:
        ConfigError: when fitted, an option out of range.
        ValueError: when fitted, a single class, or values that are not finite.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from repertoire.estimators import BoostedNetworkClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> network = BoostedNetworkClassifier(n_stages=10, random_state=0).fit(X[::2], y[::2])
        >>> network.score(X[1::2], y[1::2]) > 0.9
        True
        >>> network.to_module(stages=5)[0]
        Linear(in_features=4, out_features=20, bias=True)
    """


@register("feature-estimators", "gb-nn-regressor", paper="gb-nn")
class BoostedNetworkRegressor(BoostedRegressor, _BoostedNetwork):
    r"""A network with one hidden layer for numbers, trained a few neurons at a time by gradient boosting.

    Emami and Martínez-Muñoz, *Sequential Training of Neural Networks with Gradient Boosting* (2019). The loss
    is squared error, so the residuals are what the stages before left over, and a stage is added with
    :math:`\rho_t = 1`. Targets are brought to mean 0 and variance 1 while training. See `BoostedNetworkClassifier` for
    the formulas.

    Args:
        n_stages: T, how many stages; 50 by default. Fewer are made if nothing is left to fit.
        n_neurons: J, neurons of a stage; 4 by default.
        learning_rate: η, above 0; 0.25 by default.
        subsample: share of the samples that a stage is fitted to, drawn anew for each; 1 by default.
        activation: "logistic" (default), "tanh" or "relu".
        solver: "lbfgs" (default), or "adam" for many samples.
        max_iter: iterations of L-BFGS a stage, or passes of Adam over the samples; 100 by default.
        alpha: weight of the penalty on squared weights; 1e-4 by default.
        standardize: bring features to mean 0 and variance 1 first, which becomes part of the weights; true by default.
        random_state: seed of starting weights and samples; None takes NumPy's state.
        device: where to compute in float64, "cpu" (default) or "cuda".

    Attributes:
        n_stages_: stages that were fitted.
        n_iter_: the most iterations that one of them took.
        n_features_in_: d.

    Raises:
        ConfigError: when fitted, an option out of range.
        ValueError: when fitted, values that are not finite.

    Example:
        >>> import numpy as np
        >>> from repertoire.estimators import BoostedNetworkRegressor
        >>> X = np.linspace(-3, 3, 60)[:, None]
        >>> network = BoostedNetworkRegressor(n_stages=10, random_state=0).fit(X, np.sin(X[:, 0]))
        >>> bool(network.score(X, np.sin(X[:, 0])) > 0.95)
        True
    """
