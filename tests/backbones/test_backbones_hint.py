"""What people type for a backbone is answered with a spec that works here."""

from __future__ import annotations

import pytest

from repertoire.backbones import _timm, hint
from repertoire.errors import MissingExtra


@pytest.fixture(params=[True, False])
def without_timm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    def missing(name: str) -> None:
        raise MissingExtra("timm", name)

    if request.param:
        monkeypatch.setattr(_timm, "import_timm", missing)
    else:
        try:
            _timm.import_timm("")
        except MissingExtra:
            pytest.skip("timm is not installed")
    return request.param


@pytest.mark.parametrize(
    ("typed", "spec"),
    [
        ("resnet18", "timm:resnet18"),
        ("ResNet50", "timm:resnet50"),
        ("resnet50.a1_in1k", "timm:resnet50.a1_in1k"),
        ("efficientnet-b0", "timm:efficientnet_b0"),
        ("vit_small_patch16_224", "timm:vit_small_patch16_224"),
        ("convnext_tiny", "timm:convnext_tiny"),
        ("EfficientNet-Lite0", "lite0"),
        ("tf_efficientnet_lite2", "lite2"),
        ("tf_efficientnet_lite2.in1k", "lite2"),
        ("convnett", None),
        ("", None),
        ("my network", None),
    ],
)
def test_hints(typed: str, spec: str | None, without_timm: bool) -> None:
    assert hint(typed) == spec
