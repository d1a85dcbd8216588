"""Number of comparisons that it takes to learn an embedding."""

from __future__ import annotations

from repertoire.errors import ConfigError

__all__ = ["comparisons_needed"]


def comparisons_needed(items: int, dimensions: int, error: float = 0.1) -> float:
    r"""The order of magnitude of the number of labelled triplets that an embedding of some items takes.

    Alon, Avdiukhin, Elboim, Fischer and Yaroslavtsev, *Optimal Sample Complexity of Contrastive Learning* (2023): to
    answer "which of the two is closer to this one" wrongly for a share :math:`\varepsilon` of new triplets at most, an
    embedding of n items in d dimensions needs, up to logarithms and a constant,

    .. math:: \frac{\min(n d, n^2)}{\varepsilon}

    labelled triplets drawn at random, and no method does with fewer. The constant depends on the data and the
    optimiser: measure it on a small case, and scale up by the ratio. Above n dimensions, more of them cost nothing.

    Args:
        items: number of items n, at least 3.
        dimensions: of the embedding, d, at least 1.
        error: the share of new triplets that may be answered wrongly, between 0 and 1.

    Returns:
        The bound without its constant.

    Raises:
        ConfigError: a number out of range.

    Example:
        >>> from repertoire.diagnostics import comparisons_needed
        >>> comparisons_needed(2000, 64) / comparisons_needed(1000, 64)  # twice the items, twice the comparisons
        2.0
    """
    if items < 3 or dimensions < 1:
        raise ConfigError(f"items must be at least 3 and dimensions at least 1, found {items} and {dimensions}")
    if not 0 < error < 1:
        raise ConfigError(f"error must lie between 0 and 1, found {error}")
    return min(items * dimensions, items * items) / error
