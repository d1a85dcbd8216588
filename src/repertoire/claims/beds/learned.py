"""Whether a network has learned anything, for claims whose metric does not say so."""

from __future__ import annotations

from repertoire.claims import Budget, ClaimError

__all__ = ["must_have_learned"]


def must_have_learned(
    budget: Budget,
    accuracy: float,
    floor: float,
    what: str = "the network",
    than: str = "raw inputs without any training",
) -> None:
    """Ends the measurement where a network is no better than what needs no training.

    A rank correlation, or a share of active units, can be measured on a network that has learned nothing, and then says
    nothing of networks that have. The metric of such a claim has a trivial answer of its own, or none; this one is of
    the network that it looks at.

    Args:
        budget: nothing is asked of a smoke run, which is too short to learn anything.
        accuracy: of the network, on test samples.
        floor: what the inputs give without a network, `raw_accuracy` say, on the same samples.
        what: the network, in a few words.
        than: what the floor is of.

    Raises:
        ClaimError: the network does not beat the floor.
    """
    if budget.name != "smoke" and not accuracy > floor:
        raise ClaimError(
            f"{what} scores {accuracy:.3f}, which does not beat the {floor:.3f} of {than}: it has learned nothing that "
            "counts here"
        )
