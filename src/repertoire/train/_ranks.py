"""What is compared within a process, where a run has several."""

from __future__ import annotations

from repertoire.errors import option
from repertoire.local.auxiliaries import Auxiliary
from repertoire.losses import compared_losses
from repertoire.methods import Method
from repertoire.rules import called

__all__ = ["compared_apart"]


def compared_apart(method: Method, ranks: int, *, gather: bool) -> list[str]:
    """Lines on what compares the samples of each process, and not those of all, as one process would.

    Args:
        method: with what its rule has added.
        ranks: processes that share each batch.
        gather: whether losses are to compare those of all.
    """
    if ranks == 1:
        return []
    found = []
    for loss in compared_losses(method):
        if not (gather and loss.gathers):
            way = "" if gather else f", as {option('gather', False)} says,"
            found.append(f"loss {called('losses', loss)}{way}")
    if method.needs.within_rank:
        found.append(f"method {called('methods', method)}")
    apart = {called("auxiliaries", m) for m in method.modules() if isinstance(m, Auxiliary) and not m.per_sample}
    found += [f"auxiliary network {name}" for name in sorted(apart)]
    return [f"{each} compares the samples of each of the {ranks} processes, not those of all" for each in found]
