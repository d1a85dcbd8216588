"""Target projection for recurrent networks: learning without back-propagation through time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError, NonFiniteLoss, ShapeError
from repertoire.local._checks import check_labels
from repertoire.local.auxiliaries._target_projection import Distance, target_distance

__all__ = ["RecurrentTargetProjection"]

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class _Layer:
    """One recurrent layer: what one time step does, and the range of its hidden state."""

    advance: Callable[[Tensor, State], State]
    hidden: int
    states: int
    activation: str


class RecurrentTargetProjection:
    r"""Trains a recurrent network without back-propagation through time: hidden states are drawn to random targets.

    Lomnitz, Daniels, Zhang and Piacentino, *Learning with Local Gradients at the Edge* (2022), which extends target
    projection to recurrent networks. With the one-hot label y, a random matrix :math:`B_l` for each layer, which all
    time steps share and which never changes, and the activation :math:`\sigma_l` of the layer's hidden state:

    .. math:: h_l^{(t)} = f_l\big(\operatorname{sg}[h_{l-1}^{(t)}], \operatorname{sg}[h_l^{(t-1)}]\big), \qquad
              \mathcal L = \frac1T \sum_{t,\,l} d\big(h_l^{(t)},\ \sigma_l(B_l\,y)\big)
              + \ell\big(g(\operatorname{sg}[h_L]), y\big)

    with sg the stop-gradient. No gradient passes between two layers or two time steps: one step of one layer is all
    that is kept for a backward pass, so memory does not grow with the length of the sequence. The head g learns with
    the ordinary loss, from the last hidden state, or from every one where every time step has a label. Weights change
    once a batch. When the paper changes them, and where the head reads, could not be found in its text; this is the
    reading that makes its statement on memory true.

    Args:
        recurrent: an `nn.RNN`, `nn.GRU` or `nn.LSTM` in one direction, or cells (`nn.RNNCell`, `nn.GRUCell`,
            `nn.LSTMCell`), one a layer. Trained in place.
        head: turns the last layer's hidden state `[N, d]` into class scores `[N, K]`.
        optimizer: builds the optimiser of all of it, `lambda module: torch.optim.SGD(module.parameters(), lr=0.1)`.
        loss: of the head, called with logits and labels; cross-entropy if None.
        distance: between a hidden state and its target, "l2" (default), "l1" or "direct"; see
            `repertoire.local.TargetProjection`. For an LSTM it is that of h; the cell state has no target.
        scale: standard deviation of the entries of the random matrices, which are normal; 1 by default.
        clip: largest norm of the gradient; no clipping if None.

    Raises:
        ConfigError: two directions, projections or dropout between layers, cells that do not fit each other, or no
            optimizer.
        ShapeError: at a step, sequences or labels of the wrong shape.
        NonFiniteLoss: at a step, the loss became NaN or infinite; no weight has changed.

    Example:
        >>> import torch
        >>> from repertoire.local import RecurrentTargetProjection
        >>> gru, head = torch.nn.GRU(4, 16, batch_first=True), torch.nn.Linear(16, 3)
        >>> learner = RecurrentTargetProjection(gru, head, lambda module: torch.optim.Adam(module.parameters(), lr=0.1))
        >>> logs = learner.step(torch.randn(6, 10, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
        >>> sorted(logs), learner.predict(torch.randn(2, 10, 4)).shape
        (['accuracy', 'layer1_loss', 'loss'], torch.Size([2, 3]))
    """

    def __init__(
        self,
        recurrent: nn.RNNBase | nn.RNNCellBase | Sequence[nn.RNNCellBase],
        head: nn.Module,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        *,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        distance: Distance = "l2",
        scale: float = 1.0,
        clip: float | None = None,
    ) -> None:
        if not scale > 0:
            raise ConfigError(f"scale is {scale}; expected a positive number")
        modules = [recurrent] if isinstance(recurrent, nn.Module) else list(recurrent)
        self.layers = _layers(modules)
        self.trained = nn.ModuleList([*modules, head])
        self.head = head
        self.loss = F.cross_entropy if loss is None else loss
        self.distance: Distance = distance
        self.clip = clip
        like = next(modules[0].parameters())
        with torch.no_grad():
            self.classes = head(like.new_zeros(2, self.layers[-1].hidden)).shape[1]
        self.projections = [
            (scale * torch.randn(self.classes, layer.hidden)).to(device=like.device, dtype=like.dtype)
            for layer in self.layers
        ]
        self.optimizer = optimizer(self.trained)

    def step(self, inputs: Tensor, labels: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        """Changes the weights once.

        Args:
            inputs: sequences `[N, T, F]`, whatever the network's own `batch_first`.
            labels: int64 `[N]`, one for each sequence, or `[N, T]`, one for each time step.
            lengths: int64 `[N]` in 1..T, of sequences that were padded at their end; all T by default.

        Returns:
            `loss` and `accuracy` of the head, and `layer1_loss`, ... of the hidden states, detached, from before the
            change.
        """
        valid = self._check(inputs, labels, lengths)
        total = valid.sum()
        states = self._start(inputs)
        final = inputs.new_zeros(len(inputs), self.layers[-1].hidden)
        losses = [inputs.new_zeros(()) for _ in self.layers]
        found, right, seen = inputs.new_zeros(()), inputs.new_zeros(()), inputs.new_zeros(())
        for t in range(inputs.shape[1]):
            x, now = inputs[:, t], valid[:, t]
            target = labels[:, t] if labels.dim() == 2 else labels
            for index, layer in enumerate(self.layers):
                state = layer.advance(x, states[index])
                far = target_distance(
                    state[0], self.projections[index][target.clamp_min(0)], layer.activation, self.distance
                )
                local = (far * now).sum() / total
                local.backward()
                losses[index] = losses[index] + local.detach()
                states[index] = tuple(part.detach() for part in state)
                x = states[index][0]
            if labels.dim() == 2 and (lengths is None or bool(now.any())):
                rows = slice(None) if lengths is None else now
                value, hits = self._read(x[rows], target[rows], now.sum() / total)
                found, right, seen = found + value, right + hits, seen + now.sum()
            final = torch.where(now[:, None], x, final)
        if labels.dim() == 1:
            found, right = self._read(final, labels, 1.0)
            seen = seen + len(labels)
        self._change(found, losses)
        named = {f"layer{index + 1}_loss": value for index, value in enumerate(losses)}
        return {"loss": found, "accuracy": right / seen, **named}

    @torch.no_grad()
    def predict(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits `[N, K]` of sequences `[N, T, F]`, from the hidden state after the last time step of each."""
        valid = self._check(inputs, None, lengths)
        states = self._start(inputs)
        final = inputs.new_zeros(len(inputs), self.layers[-1].hidden)
        for t in range(inputs.shape[1]):
            x = inputs[:, t]
            for index, layer in enumerate(self.layers):
                states[index] = layer.advance(x, states[index])
                x = states[index][0]
            final = torch.where(valid[:, t, None], x, final)
        return self.head(final)

    def state_dict(self) -> dict[str, Any]:
        """Random matrices and optimiser; the weights are in the network and the head."""
        return {"projections": list(self.projections), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ConfigError: it is of a network of another shape.
        """
        saved, own = ([tuple(p.shape) for p in found] for found in (state["projections"], self.projections))
        if saved != own:
            raise ConfigError(f"the state has random matrices {saved}, and this network needs {own}")
        for mine, theirs in zip(self.projections, state["projections"], strict=True):
            mine.copy_(theirs)
        self.optimizer.load_state_dict(state["optimizer"])

    def _start(self, inputs: Tensor) -> list[State]:
        return [
            tuple(inputs.new_zeros(len(inputs), layer.hidden) for _ in range(layer.states)) for layer in self.layers
        ]

    def _read(self, hidden: Tensor, labels: Tensor, share: Tensor | float) -> tuple[Tensor, Tensor]:
        logits = self.head(hidden)
        value = self.loss(logits, labels) * share
        value.backward()
        return value.detach(), (logits.detach().argmax(1) == labels).sum()

    def _change(self, found: Tensor, losses: list[Tensor]) -> None:
        if not math.isfinite(float(found + sum(losses))):
            self.optimizer.zero_grad(set_to_none=True)
            raise NonFiniteLoss(
                f"the loss became {float(found)}, and those of the layers {[float(value) for value in losses]}: no "
                "weight was changed. Try a lower learning rate, or clip"
            )
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.trained.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _check(self, inputs: Tensor, labels: Tensor | None, lengths: Tensor | None) -> Tensor:
        """Mask of the time steps that exist, bool `[N, T]`."""
        if inputs.dim() != 3 or 0 in inputs.shape[:2]:
            raise ShapeError(f"inputs must be sequences [N, T, F] with N and T at least 1; found {list(inputs.shape)}")
        shapes = (inputs.shape[:1], inputs.shape[:2])
        if labels is not None and (labels.shape not in shapes or labels.is_floating_point()):
            raise ShapeError(
                f"labels must be integers {list(shapes[0])} or {list(shapes[1])}; found {labels.dtype} "
                f"{list(labels.shape)}"
            )
        steps = torch.arange(inputs.shape[1], device=inputs.device)
        if lengths is None:
            valid = torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
        else:
            if lengths.shape != shapes[0] or int(lengths.min()) < 1 or int(lengths.max()) > len(steps):
                raise ShapeError(f"lengths must be {list(shapes[0])}, each from 1 to {len(steps)}; found {lengths}")
            valid = steps < lengths.to(inputs.device)[:, None]
        if labels is not None:
            check_labels(labels[valid] if labels.dim() == 2 else labels, self.classes)
        return valid


def _layers(modules: Sequence[nn.Module]) -> list[_Layer]:
    if len(modules) == 1 and isinstance(modules[0], nn.RNNBase):
        return _unrolled(modules[0])
    layers: list[_Layer] = []
    for cell in modules:
        if not isinstance(cell, nn.RNNCell | nn.GRUCell | nn.LSTMCell):
            raise ConfigError(
                f"cannot train a {type(cell).__name__}: expected an nn.RNN, nn.GRU or nn.LSTM, or cells, one a layer"
            )
        if layers and cell.input_size != layers[-1].hidden:
            raise ConfigError(
                f"cell {len(layers) + 1} takes {cell.input_size} numbers, and the one before it gives "
                f"{layers[-1].hidden}"
            )
        layers.append(_from_cell(cell))
    if not layers:
        raise ConfigError("there are no cells to train")
    return layers


def _from_cell(cell: nn.RNNCell | nn.GRUCell | nn.LSTMCell) -> _Layer:
    if isinstance(cell, nn.LSTMCell):
        return _Layer(lambda x, state: cell(x, (state[0], state[1])), cell.hidden_size, 2, "tanh")
    activation = cell.nonlinearity if isinstance(cell, nn.RNNCell) else "tanh"
    return _Layer(lambda x, state: (cell(x, state[0]),), cell.hidden_size, 1, activation)


def _unrolled(network: nn.RNNBase) -> list[_Layer]:
    """The layers of a fused recurrent network, one time step at a time, on its own weights."""
    if network.bidirectional or network.proj_size or (network.dropout and network.num_layers > 1):
        raise ConfigError(
            "target projection trains recurrent networks in one direction, without projections and without dropout "
            f"between layers; found {network}"
        )
    return [_unrolled_layer(network, number) for number in range(network.num_layers)]


def _unrolled_layer(network: nn.RNNBase, number: int) -> _Layer:
    names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if network.bias else [])]

    def weights() -> list[Tensor]:
        return [getattr(network, f"{name}_l{number}") for name in names]

    if network.mode == "LSTM":
        return _Layer(lambda x, state: torch.lstm_cell(x, list(state), *weights()), network.hidden_size, 2, "tanh")
    if network.mode == "GRU":
        return _Layer(lambda x, state: (torch.gru_cell(x, state[0], *weights()),), network.hidden_size, 1, "tanh")
    advance = torch.rnn_relu_cell if network.mode == "RNN_RELU" else torch.rnn_tanh_cell
    activation = "relu" if network.mode == "RNN_RELU" else "tanh"
    return _Layer(lambda x, state: (advance(x, state[0], *weights()),), network.hidden_size, 1, activation)
