"""ComPEFT for a whole network: what fine-tuning has changed, in signs and one size; the rest as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from torch import Tensor, nn

from repertoire.errors import CheckpointError, ConfigError
from repertoire.ranges import Between, Positive, checked
from repertoire.registry import register
from repertoire.weights import State, Stored, TaskVector, form
from repertoire.weights import ternary as ternary_vector

__all__ = ["SIZES", "change_form", "ternary"]

SIZES = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
"""What the authors try for the size of the entries that are kept."""

_CODES = "ternary:"
"""What the names of the codes begin with; other tensors have their own names."""


@register("compressors", "ternary", paper="compeft")
@checked
def ternary(
    model: nn.Module,
    base: State,
    score: Callable[[nn.Module], float],
    density: Annotated[float, Between(0, 1, "(]")] = 0.1,
    *,
    alpha: Annotated[float, Positive] | None = None,
    by_tensor: bool = False,
) -> Stored:
    r"""ComPEFT: of what fine-tuning has changed, the signs of the largest entries are kept, and one size for all.

    Yadav et al., *ComPEFT: Compression for Communicating Parameter Efficient Updates via Sparsification and
    Quantization* (2023), by the formula of :func:`repertoire.weights.ternary`. That is for matrices and kernels that
    the base has; what else differs (biases, normalisation, a head that began anew) is stored as it is, and what does
    not differ is not stored. The network comes out of the file together with the weights that it started from, and out
    of nothing else.

    Args:
        model: the fine-tuned network; it stays as it is.
        base: the weights that it started from. What it has under another name or shape, such as another head, does not
            count.
        score: how good a network is on validation samples, higher being better.
        density: share of the entries that is kept, 0.1 by default. The authors try 0.05, 0.1, 0.2, 0.3 and 0.5.
        alpha: size of the entries that are kept, in standard deviations of all changes. None (default) tries 0.5, 1, 2,
            3, 4, 5, 6, 8 and 10 as the authors do, and keeps the one with the best score.
        by_tensor: whether each tensor has a density and a standard deviation of its own.

    Returns:
        The stored network, of form "ternary-change". Its settings have the `alpha`, and a digest of the base.

    Raises:
        ConfigError: no matrix of the network is in the base with that shape, or an option lies outside its range.

    Example:
        >>> import torch
        >>> from repertoire.compress import ternary
        >>> base = torch.nn.Linear(100, 10)
        >>> model = torch.nn.Linear(100, 10)
        >>> model.load_state_dict({n: v + 0.01 * torch.randn_like(v) for n, v in base.state_dict().items()})
        <All keys matched successfully>
        >>> stored = ternary(model, base.state_dict(), lambda network: 0.0)
        >>> stored.build(base)(torch.ones(1, 100)).shape, stored.settings["alpha"]
        (torch.Size([1, 10]), 0.5)
    """
    state = {name: value.detach() for name, value in model.state_dict().items()}
    shared = {name for name, value in state.items() if name in base and base[name].shape == value.shape}
    # A copy of the base, in the dtypes and on the device of the network.
    start = {name: base[name].to(state[name]) for name in state if name in shared}
    coded = {name: value for name, value in state.items() if name in shared and value.is_floating_point()}
    coded = {name: value for name, value in coded.items() if value.ndim >= 2}
    if not coded:
        raise ConfigError(f"no matrix of {type(model).__name__} is in the base, so nothing says what has changed")
    whole = {n: v.clone() for n, v in state.items() if n not in coded and (n not in start or not v.equal(start[n]))}
    vector = TaskVector(coded, start)

    def made(alpha: float) -> Stored:
        small = ternary_vector(vector, density=density, alpha=alpha, by_tensor=by_tensor, base=start).stored
        codes = {f"{_CODES}{name}": value for name, value in small.tensors.items()}
        return Stored("ternary-change", {**codes, **whole}, {**small.settings, "alpha": alpha})

    return made(alpha) if alpha is not None else _best([made(size) for size in SIZES], model, start, score)


def _best(tried: Sequence[Stored], model: nn.Module, start: State, score: Callable[[nn.Module], float]) -> Stored:
    """The one whose network has the best score; of equals, the first."""
    begun = copy.deepcopy(model)
    begun.load_state_dict({**model.state_dict(), **start})
    return max(tried, key=lambda stored: score(stored.build(copy.deepcopy(begun)).eval()))


@form("ternary-change")
def change_form(model: nn.Module, tensors: Mapping[str, Tensor], alpha: float = 1.0, **settings: Any) -> nn.Module:
    """A network that holds the weights that were fine-tuned, changed as a ternary vector says; other tensors as stored.

    Args:
        model: with the weights that were fine-tuned; changed in place.
        tensors: codes of the vector, and other tensors under their names.
        alpha: size of the entries, in standard deviations, which the codes know by themselves.
        settings: of the vector.
    """
    codes = {n.removeprefix(_CODES): value for n, value in tensors.items() if n.startswith(_CODES)}
    whole = {name: value for name, value in tensors.items() if not name.startswith(_CODES)}
    own = model.state_dict()
    if unknown := sorted(whole.keys() - own.keys()):
        raise CheckpointError(f"the tensors do not fit the network, which has no {unknown[0]}")
    model = Stored("ternary", codes, settings).build(model)
    return Stored("dense", {**model.state_dict(), **whole}).build(model)
