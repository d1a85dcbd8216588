"""Norm and direction: a student's features point to the teacher's mean of their class, and are at least as long."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._classes import at_least_float32, check_classes
from repertoire.ranges import checked

__all__ = ["norm_direction"]


@checked
def norm_direction(
    student: Tensor, teacher: Tensor, class_means: Tensor, targets: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""How far a student's features are from pointing to the teacher's mean of their class, and from being as long.

    Wang et al., *Improving Knowledge Distillation via Regularizing Feature Norm and Direction* (2023). With features
    :math:`s_i` of the student and :math:`t_i` of the teacher, and the mean :math:`c_y` of the teacher's features of
    class y over the training set:

    .. math:: \ell_i = 1 - \frac{\langle s_i,\, e_{y_i} \rangle}{\max(\lVert s_i \rVert, \lVert t_i \rVert)},
        \qquad e_y = \frac{c_y}{\lVert c_y \rVert}

    A student whose features are shorter than the teacher's loses by both; one whose features are longer, by their
    direction alone. It is added to any loss of distillation; method `distil` does so with `norm_direction=`.

    Args:
        student: float `[N, d]`, of the width of the teacher's, projected where it is not.
        teacher: float `[N, d]`.
        class_means: float `[K, d]`: the means of the teacher's features in evaluation mode. A class whose mean is zero
            has no direction, and its samples a loss of 1.
        targets: int64 `[N]` in 0..K-1.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss, each sample's in [0, 2], and 0 exactly where the student's feature is a multiple of the class mean and
        no shorter than the teacher's; float32 for half-precision features, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) a target that is no class.

    Example:
        >>> import torch
        >>> from repertoire.losses import norm_direction
        >>> means = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
        >>> student = torch.tensor([[3.0, 0.0], [0.0, 1.0], [4.0, 0.0]])
        >>> norm_direction(student, torch.tensor([[0.0, 2.0]] * 3), means, torch.tensor([0, 1, 1]), reduction="none")
        tensor([0.0000, 0.5000, 1.0000])
    """
    if student.ndim != 2 or not student.is_floating_point():
        raise ShapeError(f"student must be floating point [N, d], found {student.dtype} {list(student.shape)}")
    if teacher.shape != student.shape:
        raise ShapeError(
            f"teacher must be {list(student.shape)}, as the student is, found {list(teacher.shape)}: project the "
            "student's features to the teacher's width"
        )
    if class_means.ndim != 2 or class_means.shape[1] != student.shape[1]:
        raise ShapeError(f"class_means must be [K, {student.shape[1]}], found {list(class_means.shape)}")
    if targets.shape != student.shape[:1] or targets.is_floating_point():
        raise ShapeError(f"targets must be integers [{len(student)}], found {targets.dtype} {list(targets.shape)}")
    check_classes(targets, len(class_means))
    ours, theirs = at_least_float32(student), at_least_float32(teacher)
    directions = F.normalize(at_least_float32(class_means), dim=1).to(ours.dtype)[targets.long()]
    longer = torch.maximum(ours.norm(dim=1), theirs.norm(dim=1).to(ours.dtype))
    # A feature of length zero has no direction, and divides by nothing.
    losses = 1 - (ours * directions).sum(1) / longer.clamp_min(torch.finfo(ours.dtype).tiny)
    return reduce(losses, reduction)
