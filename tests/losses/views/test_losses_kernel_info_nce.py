from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import KernelInfoNCE, kernel_info_nce_loss, nt_xent_loss


def kernels(x, y, kernel, gaussian, laplacian, share):
    half = len(x) // 2
    first, second = ((x[:half], y[:half]), (x[half:], y[half:])) if kernel == "concatenation" else ((x, y), (x, y))
    g = torch.exp(-((first[0] - first[1]) ** 2).sum() / gaussian)
    la = torch.exp(-((second[0] - second[1]) ** 2).sum().sqrt() / laplacian)
    return {"gaussian": g, "laplacian": la}.get(kernel, (1 - share) * g + share * la), (g, la)


def reference(views, kernel, gaussian, laplacian, share, mixing):
    z = [row / row.norm() for view in views for row in view]
    samples = len(views[0])
    losses = [[], [], []]
    for i, x in enumerate(z):
        others = [kernels(x, y, kernel, gaussian, laplacian, share) for j, y in enumerate(z) if j != i]
        places = [j - (j > i) for j in range(len(z)) if j != i and j % samples == i % samples]
        for p in places:
            losses[0].append(-torch.log(others[p][0] / sum(o[0] for o in others)))
            for which in (0, 1):
                losses[1 + which].append(-torch.log(others[p][1][which] / sum(o[1][which] for o in others)))
    mixed, first, second = (sum(values) / len(values) for values in losses)
    return (1 - share) * first + share * second if mixing == "losses" else mixed


@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(1, 4),
    count=st.integers(2, 3),
    kernel=st.sampled_from(["gaussian", "laplacian", "sum", "concatenation"]),
    mixing=st.sampled_from(["kernels", "losses"]),
    seed=st.integers(0, 1000),
)
def test_is_the_paper(samples, count, kernel, mixing, seed):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(samples, 4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)]
    if kernel in ("gaussian", "laplacian"):
        mixing = "kernels"
    expected = reference(views, kernel, 0.4, 0.7, 0.3, mixing)
    loss = KernelInfoNCE(kernel, temperature=0.4, laplacian_temperature=0.7, share=0.3, mixing=mixing)(*views)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, views), torch.autograd.grad(expected, views), rtol=1e-6, atol=1e-8
    )


def test_with_the_gaussian_kernel_it_is_nt_xent_at_half_the_temperature():
    views = torch.randn(2, 7, 5, dtype=torch.float64)
    torch.testing.assert_close(
        kernel_info_nce_loss(*views, kernel="gaussian", temperature=0.4), nt_xent_loss(*views, temperature=0.2)
    )


def test_wrong_arguments():
    with pytest.raises(
        ConfigError, match="kernel must be 'gaussian', 'laplacian', 'sum' or 'concatenation', found 'rbf'"
    ):
        KernelInfoNCE("rbf")
    with pytest.raises(ConfigError, match="mixing must be 'kernels' or 'losses'"):
        KernelInfoNCE(mixing="both")
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"share must lie in \(0, 1\)"):
            KernelInfoNCE(share=share)
    with pytest.raises(ShapeError, match="needs views of an even width, found 3"):
        kernel_info_nce_loss(torch.eye(3), torch.eye(3), kernel="concatenation")
