"""Checks of states and labels before they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from repertoire.errors import ConfigError, ShapeError

__all__ = ["check_labels", "check_partition", "check_shapes"]


def check_partition(saved: Sequence[Sequence[str]], present: Sequence[Sequence[str]]) -> None:
    """Refuses a state that belongs to another partition.

    Raises:
        ConfigError: says how both were cut.
    """
    if [list(names) for names in saved] != [list(names) for names in present]:

        def show(cut: Sequence[Sequence[str]]) -> str:
            return f"{len(cut)} blocks ({', '.join(names[-1] for names in cut)})"

        raise ConfigError(f"the state is of a network cut into {show(saved)}, and this one has {show(present)}")


def check_shapes(saved: Mapping[str, Tensor], auxiliaries: nn.ModuleList) -> None:
    """Refuses a state of other auxiliary networks.

    Raises:
        ConfigError: names the first tensor that does not fit.
    """
    present = auxiliaries.state_dict()
    for name in sorted(saved.keys() | present.keys()):
        mine, theirs = present.get(name), saved.get(name)
        if mine is None or theirs is None or mine.shape != theirs.shape:
            found = ["absent" if tensor is None else str(list(tensor.shape)) for tensor in (theirs, mine)]
            raise ConfigError(
                f"the state has other auxiliary networks: {name} is {found[0]} in it, and {found[1]} here. Build the "
                "learner with the auxiliary networks that it was saved with"
            )


def check_labels(labels: Tensor, classes: int, lowest: int = 0) -> None:
    """Refuses labels that the network has no output for. On a GPU the kernels check it.

    Args:
        labels: int64 `[N]`.
        classes: number of classes.
        lowest: -1 where samples may be without a label.

    Raises:
        ShapeError: names the range that was found.
    """
    if labels.device.type == "cpu" and len(labels):
        low, high = int(labels.min()), int(labels.max())
        if low < lowest or high >= classes:
            raise ShapeError(
                f"labels must be {lowest} to {classes - 1}, for the network's {classes} outputs; found {low} to {high}"
            )
