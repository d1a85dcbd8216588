"""The bridge to timm: what is cut computes what timm computes, and what cannot be cut is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from repertoire import registry
from repertoire.backbones import Timm, load_weights
from repertoire.backbones._cut import Uncuttable, cut
from repertoire.errors import ConfigError, MissingExtra, UnknownName

try:
    Timm("test_resnet")
except MissingExtra:
    pytest.skip("timm is not installed", allow_module_level=True)

import timm

# name, blocks, width of the features
NETWORKS = [
    ("resnet18", 9, 512),
    ("resnet50", 17, 2048),
    ("vit_small_patch16_224", 13, 384),
    ("convnext_atto", 16, 320),
    ("efficientnet_b0", 18, 1280),
    ("mobilenetv3_small_050", 13, 1024),
    ("regnetx_002", 14, 368),
    ("densenet121", 8, 1024),
    ("deit_tiny_patch16_224", 13, 192),
    ("swin_tiny_patch4_window7_224", 16, 768),
    pytest.param("vgg11", 8, 4096, marks=pytest.mark.slow),
]


@pytest.fixture(autouse=True)
def _quick_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """To draw the weights of the largest networks takes longer than all that is done with them: a block of random
    numbers is repeated in what is larger."""
    size = 2**16 + 1  # not a multiple of a width, so that rows differ

    def quickly(draw: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def drawn(tensor: torch.Tensor, *args: float, **how: object) -> torch.Tensor:
            if tensor.numel() <= size or not tensor.is_contiguous():
                return draw(tensor, *args, **how)
            some, flat = draw(tensor.new_empty(size), *args, **how), tensor.detach().view(-1)
            blocks = len(flat) // size
            flat[: blocks * size].view(blocks, size).copy_(some)
            flat[blocks * size :] = some[: len(flat) - blocks * size]
            return tensor

        return drawn

    for name in ("normal_", "uniform_"):
        monkeypatch.setattr(torch.Tensor, name, quickly(getattr(torch.Tensor, name)))


@pytest.mark.parametrize(("name", "blocks", "width"), NETWORKS)
def test_it_is_timms_network(name: str, blocks: int, width: int, tmp_path: Path) -> None:
    """Timm's own model, built apart and given the same weights, has the same features."""
    from safetensors.torch import save_file

    net = registry.build("backbones", f"timm:{name}", in_channels=3, image_size=64).eval()
    assert (len(net.blocks), net.out_features) == (blocks, width)
    try:
        model = timm.create_model(name, img_size=64, num_classes=7).eval()
    except TypeError:
        model = timm.create_model(name, num_classes=7).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    report = load_weights(net, tmp_path / "w.safetensors")
    assert {tensor.shape[0] for tensor in report.left_over.values()} == {7}, "only the classifier is left over"
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(x), pre_logits=True)
        torch.testing.assert_close(net(x), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "ends", "shapes"),
    [
        ("resnet18", [2, 4, 6, 8], [(64, 16), (128, 8), (256, 4), (512, 2)]),
        ("swin_tiny_patch4_window7_224", [2, 5, 12, 15], [(96, 16), (192, 8), (384, 4), (768, 2)]),
        ("deit_tiny_patch16_224", list(range(1, 13)), [(192, 4)] * 12),
    ],
)
def test_stages_are_timms(name: str, ends: list[int], shapes: list[tuple[int, int]]) -> None:
    net = Timm(name, image_size=64).eval()
    assert net.stage_ends == ends
    x, found = torch.randn(1, 3, 64, 64), []
    with torch.no_grad():
        for index, block in enumerate(net.blocks):
            x = block(x)
            if index in ends:
                found.append((net.grid(x).shape[1], net.grid(x).shape[2]))
    assert found == shapes


def test_out_indices_cut_the_network_short() -> None:
    whole = registry.build("backbones", "timm:resnet18", in_channels=3, image_size=64)
    net = registry.build("backbones", "timm:resnet18,out_indices=(0,2)", in_channels=3, image_size=64)
    assert net.stage_ends == [2, 6]
    assert len(net.blocks) == 7
    assert net.out_features == 256
    assert net(torch.randn(2, 3, 64, 64)).shape == (2, 256)
    with pytest.raises(ConfigError, match=r"out_indices has 4.*stages 0 to 3"):
        Timm("resnet18", image_size=64, out_indices=[4])
    assert len(whole.blocks) == 9


def test_nothing_works_in_place() -> None:
    assert not any(getattr(module, "inplace", False) for module in Timm("resnet18").modules())


def test_other_sizes_pass_where_the_network_allows() -> None:
    net = Timm("resnet18", image_size=32).eval()
    assert net(torch.randn(2, 3, 48, 80)).shape == (2, 512)


def test_unknown_model_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="resnet50"):
        registry.build("backbones", "timm:resnet_50", in_channels=3, image_size=32)


def test_a_network_that_cannot_be_cut_is_named() -> None:
    with pytest.raises(ConfigError, match="'crossvit_tiny_240' cannot be cut"):
        Timm("crossvit_tiny_240", image_size=240)


def test_images_that_are_too_small() -> None:
    with pytest.raises(ConfigError, match="8x8"):
        Timm("vit_small_patch16_224", image_size=8)


class _Toy(nn.Module):
    """Two layers joined by what the test says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        if self.kind == "skip":
            return self.second(y) + x
        if self.kind == "value" and y.sum() > 0:
            return self.second(y)
        if self.kind == "shape":
            return self.second(y.reshape(x.shape[0], y.shape[1])) * x.shape[1]
        return self.second(y.relu())


def test_cutting() -> None:
    x = torch.randn(2, 4)
    for kind in ("plain", "shape"):
        toy = _Toy(kind)
        first, second = cut(toy, x)
        other = torch.randn(5, 4)  # another batch size than was traced
        torch.testing.assert_close(second(first(other)), toy.forward_features(other))
    with pytest.raises(Uncuttable, match="single tensor"):
        cut(_Toy("skip"), x)
    with pytest.raises(Uncuttable, match="traced"):
        cut(_Toy("value"), x)


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "deit_tiny_distilled_patch16_224",
        pytest.param("beit_base_patch16_224", marks=pytest.mark.slow),
        "swin_tiny_patch4_window7_224",
        "eva02_tiny_patch14_224",
        "deit3_small_patch16_224",
        "pvt_v2_b0",
        "resnet18",
    ],
)
def test_weights_for_another_size_are_made_to_fit_as_timm_does_it(name: str, tmp_path: Path) -> None:
    """What timm itself makes of a file for its natural size, at another one."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    natural = timm.create_model(name, num_classes=7)
    with torch.no_grad():
        for key, parameter in natural.named_parameters():
            if "pos_embed" in key or "relative_position" in key:
                # Smooth, as what was learnt is: of noise, every interpolation makes something else.
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter).sin())
    path = tmp_path / "w.safetensors"
    save_file(natural.state_dict(), path)
    side = 96 if "14" not in name else 98
    options = {} if name.startswith(("pvt", "resnet")) else {"img_size": side}
    own = {"file": str(path), "num_classes": 7}
    expected = timm.create_model(name, num_classes=7, pretrained=True, pretrained_cfg_overlay=own, **options).eval()
    ours = Timm(name, image_size=side)
    report = load_weights(ours.eval(), path)
    assert not report.missing
    assert not report.differing
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        wanted = expected.forward_head(expected.forward_features(x), pre_logits=True)
        torch.testing.assert_close(ours(x), wanted, rtol=1e-3, atol=1e-4)


def test_a_preset_comes_with_the_weights(tmp_path: Path) -> None:
    net = Timm("resnet18.a1_in1k", image_size=64)
    assert net.preset is None
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "w.pth")
    load_weights(net, tmp_path / "w.pth")
    settings = timm.get_pretrained_cfg("resnet18.a1_in1k")
    preset = net.preset
    assert preset is not None
    assert (preset.mean, preset.std) == (settings.mean, settings.std)
    assert (preset.size, preset.interpolation, preset.crop) == (224, settings.interpolation, settings.crop_pct)
    assert "resnet18.a1_in1k" in preset.source


def test_pretrained_takes_what_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from safetensors.torch import save_file

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be fetched"):
        Timm("test_resnet.r160_in1k", image_size=64, pretrained=True)
    model = timm.create_model("test_resnet")
    folder = tmp_path / "models--timm--test_resnet.r160_in1k"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    save_file(model.state_dict(), folder / "snapshots" / "abc" / "model.safetensors")
    net = Timm("test_resnet.r160_in1k", image_size=64, pretrained=True).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval().forward_head(model.forward_features(x), pre_logits=True)
        torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
    assert net.preset is not None
    assert net.preset.size == 160


def test_weights_of_a_network_that_was_cut_short(tmp_path: Path) -> None:
    """What the file has beyond the cut is left over, and no other network's."""
    torch.save(timm.create_model("vit_tiny_patch16_224", img_size=32).state_dict(), tmp_path / "w.pth")
    report = load_weights(Timm("vit_tiny_patch16_224", out_indices=[0, 5]), tmp_path / "w.pth")
    assert not report.missing
    assert "blocks.11.norm1.weight" in report.left_over
