"""What tests of explainers share."""

from __future__ import annotations

from types import ModuleType

import pytest

from repertoire.backbones import import_torchvision


@pytest.fixture
def peers() -> ModuleType:
    """pytorch-grad-cam, to compare with; the test is skipped where it cannot be imported."""
    try:
        import_torchvision()  # mends one that does not fit torch
        import pytorch_grad_cam
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"pytorch-grad-cam cannot be imported: {error}")
    return pytorch_grad_cam
