"""Samples that teach or hurt each other: the labelled pseudo neural tangent kernel."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from repertoire.errors import ShapeError
from repertoire.ops import evaluating, handing_copies

__all__ = ["last_layer_lpntk", "lpntk"]


def _signs(labels: Tensor, classes: int) -> Tensor:
    """-1 for the label and 1 for all other classes, float `[N, K]`."""
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise ShapeError(f"labels must lie in 0..{classes - 1}, found {int(labels.min())} to {int(labels.max())}")
    return 1 - 2 * torch.nn.functional.one_hot(labels.long(), classes).double()


def lpntk(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    other_inputs: Tensor | None = None,
    other_labels: Tensor | None = None,
    *,
    batch_size: int = 32,
) -> Tensor:
    r"""Effect of learning one sample on the loss of another: positive where it helps, negative where it hurts.

    Guo et al., *Sample Relationship from Learning Dynamics Matters for Generalisation* (2024), the labelled pseudo
    neural tangent kernel, with the signs s(y), -1 for the label and 1 for all other classes:

    .. math:: K(i, j) = \sum_{k, l} s_k(y_i)\, s_l(y_j)\, \langle \nabla_\theta z_k(x_i), \nabla_\theta z_l(x_j) \rangle
        = \big\langle \nabla_\theta\, s(y_i)^\top z(x_i),\ \nabla_\theta\, s(y_j)^\top z(x_j) \big\rangle

    In the right-hand form one backward pass a sample is enough, whatever the number of classes: a step on sample j
    moves the logits of i as its label wants them where K(i, j) > 0. Time O((N + M) P) for the gradients and O(NMP) for
    their products, P being the number of parameters; of the second set no more than a batch of gradients is ever held.

    Args:
        model: inputs `[n, ...]` to logits `[n, K]`, in the mode that is to be looked at; batch statistics must not be
            in use, since a sample's gradient would depend on the others.
        inputs: `[N, ...]`. All N gradients are held: N·P numbers.
        labels: int64 `[N]` in 0..K-1.
        other_inputs, other_labels: a second set, `[M, ...]` and `[M]`; the first one if None.
        batch_size: samples whose gradients are computed at a time.

    Returns:
        float `[N, M]`.

    Raises:
        ShapeError: labels that do not fit, or one of the two of the second set without the other.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.diagnostics import lpntk
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> kernel = lpntk(nn.Linear(2, 2, bias=False), x, torch.tensor([0, 1, 0]))
        >>> kernel[0].tolist()
        [2.0, -2.0, 0.0]
    """
    if (other_inputs is None) != (other_labels is None):
        raise ShapeError("give both other_inputs and other_labels, or neither")
    for values, given in ((inputs, labels), (other_inputs, other_labels)):
        if values is not None and given is not None and len(values) != len(given):
            raise ShapeError(f"inputs and labels must be of one length, found {len(values)} and {len(given)}")
    left = torch.cat(list(_gradients(model, inputs, labels, batch_size)))
    if other_inputs is None or other_labels is None:
        return left @ left.T
    return torch.cat([left @ part.T for part in _gradients(model, other_inputs, other_labels, batch_size)], 1)


def _gradients(model: nn.Module, inputs: Tensor, labels: Tensor, batch_size: int) -> Iterator[Tensor]:
    """The gradient of the signed sum of the logits of each sample, `[n, P]` a batch."""
    weights = {name: value.detach() for name, value in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def signed(parameters: dict[str, Tensor], x: Tensor, signs: Tensor) -> Tensor:
        logits = functional_call(model, {**parameters, **buffers}, (x[None],)).squeeze(0)
        return (logits * signs).sum()

    each = vmap(grad(signed), (None, 0, 0))
    with evaluating(model), handing_copies(model):
        classes = None
        for start in range(0, len(inputs), batch_size):
            part = inputs[start : start + batch_size]
            if classes is None:
                with torch.no_grad():
                    classes = model(part[:1]).shape[1]
            signs = _signs(labels[start : start + batch_size], classes).to(part)
            found = each(weights, part, signs)
            yield torch.cat([value.detach().reshape(len(value), -1) for value in found.values()], 1)


@torch.no_grad()
def last_layer_lpntk(
    features: Tensor,
    labels: Tensor,
    classes: int,
    other_features: Tensor | None = None,
    other_labels: Tensor | None = None,
) -> Tensor:
    r"""`lpntk` over the parameters of a linear classifier alone, in closed form: for networks too large for the whole.

    .. math:: K(i, j) = \big( s(y_i)^\top s(y_j) \big) \big( h_i^\top h_j + 1 \big)

    which is all that learning with a frozen backbone does.

    Args:
        features: h, float `[N, d]`.
        labels: int64 `[N]` in 0..K-1.
        classes: K.
        other_features, other_labels: a second set; the first one if None.

    Returns:
        float64 `[N, M]`.

    Raises:
        ShapeError: shapes or labels that do not fit.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import last_layer_lpntk
        >>> last_layer_lpntk(torch.eye(2), torch.tensor([0, 1]), 3).tolist()
        [[6.0, -1.0], [-1.0, 6.0]]
    """
    if (other_features is None) != (other_labels is None):
        raise ShapeError("give both other_features and other_labels, or neither")
    right, given = (
        (features, labels) if other_features is None or other_labels is None else (other_features, other_labels)
    )
    for values, own in ((features, labels), (right, given)):
        if values.ndim != 2 or len(values) != len(own):
            raise ShapeError(
                f"features must be [N, d] and labels [N], found {list(values.shape)} and {list(own.shape)}"
            )
    agree = _signs(labels, classes) @ _signs(given, classes).T
    return agree.to(features.device) * (features.double() @ right.double().T + 1)
