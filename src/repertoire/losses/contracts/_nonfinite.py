"""Finding the rows behind a loss that is infinite or not a number."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["explain_nonfinite"]

_NAMED = 10


def explain_nonfinite(embeddings: Tensor) -> str:
    """Says in one sentence which rows of a tensor are infinite or not a number.

    The losses never look at values, because that would wait for the device in every step. Call this
    in a loop of your own once it has seen a loss that is not finite.

    Args:
        embeddings: float `[N, ...]`: embeddings, logits or images.

    Returns:
        A sentence that names the first ten such rows, or else the row with the largest magnitude.

    Example:
        >>> import torch
        >>> from repertoire.losses import explain_nonfinite
        >>> explain_nonfinite(torch.tensor([[1.0], [float("nan")], [float("inf")]]))
        '2 of 3 rows are not finite: 1 (not a number), 2 (infinite)'
        >>> explain_nonfinite(torch.tensor([[1.0], [-3.0]]))
        'all 2 rows are finite; the largest magnitude is 3, in row 1'
    """
    if not embeddings.numel():
        return "there are no values"
    rows = embeddings.detach().reshape(len(embeddings), -1)
    nan = rows.isnan().any(1)
    bad = ~rows.isfinite().all(1)
    numbers = bad.nonzero().flatten().tolist()
    if not numbers:
        largest = torch.linalg.vector_norm(rows.float(), ord=torch.inf, dim=1)
        row = int(largest.argmax())
        return f"all {len(rows)} rows are finite; the largest magnitude is {float(largest[row]):.4g}, in row {row}"
    named = ", ".join(f"{n} ({'not a number' if bool(nan[n]) else 'infinite'})" for n in numbers[:_NAMED])
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return f"{len(numbers)} of {len(rows)} rows are not finite: {named}{more}"
