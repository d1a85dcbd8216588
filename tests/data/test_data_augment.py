"""Batch augmentation against slow references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.data import (
    CropFlip,
    NoAugmentation,
    PhotoAugmentation,
    RandAugment,
    RandomErasing,
    ResizedCrop,
    Shift,
    SimCLRAugmentation,
    StrongAugmentation,
    TrivialAugment,
    build_augmentation,
    plain,
)
from repertoire.data._augment import move_masks
from repertoire.data._enhance import (
    LUMA,
    WIDE,
    autocontrast,
    brightness,
    colour,
    contrast,
    equalise,
    grey,
    posterise,
    sharpness,
    solarise,
)
from repertoire.data._jitter import _turned, colours, recoloured
from repertoire.data._policies import affine, resample
from repertoire.errors import ConfigError, ShapeError

ALL = [
    *(NoAugmentation, Shift, CropFlip, ResizedCrop, PhotoAugmentation, SimCLRAugmentation, StrongAugmentation),
    *(TrivialAugment, RandAugment, RandomErasing),
]
SQUARE = torch.Size((16, 16))
SLOWER = settings(max_examples=25, deadline=None)


def noise(count: int = 6, height: int = 16, width: int = 16, channels: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("shape", [(5, 8, 8, 1), (5, 32, 32, 3), (3, 20, 28, 3), (1, 32, 32, 1)])
def test_contract(kind: type, shape: tuple[int, ...]) -> None:
    count, height, width, channels = shape
    images = noise(*shape)
    before = images.clone()
    augment = kind()
    torch.manual_seed(3)
    out = augment(images)
    assert out.shape == (count, channels, height, width)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert bool(((out >= 0) & (out <= 1)).all())
    assert torch.equal(images, before)
    torch.manual_seed(3)
    assert torch.equal(out, augment(images)), "the same random state gives the same batch"
    if kind is not NoAugmentation and count > 1:
        assert not torch.equal(out, augment(images)), "and another state another one"


@pytest.mark.parametrize("kind", [k for k in ALL if k is not NoAugmentation])
def test_each_image_is_changed_by_itself(kind: type) -> None:
    torch.manual_seed(0)
    out = kind()(noise(1, 32, 32).expand(16, -1, -1, -1))
    assert len(out.flatten(1).unique(dim=0)) > 4


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("images", [torch.zeros(2, 8, 8, 3), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)])
def test_wrong_images_are_refused(kind: type, images: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"images must be uint8 \[N, H, W, C\]"):
        kind()(images)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Shift, {"pixels": -1}, "pixels"),
        (CropFlip, {"pixels": -2}, "pixels"),
        (CropFlip, {"flip": 1.5}, "flip"),
        (ResizedCrop, {"scale": (0.0, 1.0)}, "scale"),
        (ResizedCrop, {"scale": (0.5, 0.2)}, "scale"),
        (ResizedCrop, {"ratio": (2.0, 1.0)}, "ratio"),
        (ResizedCrop, {"flip": -0.1}, "flip"),
        (SimCLRAugmentation, {"strength": 3.0}, "strength"),
        (SimCLRAugmentation, {"jitter": 2.0}, "jitter"),
        (SimCLRAugmentation, {"grey": 2.0}, "grey"),
        (SimCLRAugmentation, {"blur": float("nan")}, "blur"),
        (StrongAugmentation, {"operations": 0}, "operations"),
        (StrongAugmentation, {"strength": 0.0}, "strength"),
        (RandAugment, {"operations": 0}, "operations"),
        (RandAugment, {"magnitude": 0.0}, "magnitude"),
        (RandAugment, {"magnitude": 11.0}, "magnitude"),
        (TrivialAugment, {"flip": 2.0}, "flip"),
        (PhotoAugmentation, {"scale": (0.0, 1.0)}, "scale"),
        (RandomErasing, {"probability": 1.1}, "probability"),
        (RandomErasing, {"share": (0.3, 0.1)}, "share"),
        (RandomErasing, {"share": (0.3, 1.0)}, "share"),
        (RandomErasing, {"ratio": (0.0, 1.0)}, "ratio"),
        (RandomErasing, {"fill": "white"}, "fill"),
    ],
)
def test_options_out_of_range(kind: type, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**options)


def test_a_shift_as_large_as_the_image_is_refused() -> None:
    with pytest.raises(ShapeError, match="pixels is 8"):
        CropFlip(pixels=8)(noise(2, 8, 8))


def test_plain_is_exact() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    assert torch.equal(plain(images).flatten(), torch.arange(256) / 255)


def candidates(image: np.ndarray, pixels: int, flip: bool, mode: str) -> list[np.ndarray]:
    """Every result that padding, cropping and flipping one image can have."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)), mode=mode)
    crops = [
        padded[top : top + height, left : left + width]
        for top in range(2 * pixels + 1)
        for left in range(2 * pixels + 1)
    ]
    return crops + [crop[:, ::-1] for crop in crops] if flip else crops


@SLOWER
@given(
    side=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    pixels=st.integers(0, 3),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["crop-flip", "shift"]),
)
def test_translation_is_pad_crop_and_flip(
    side: tuple[int, int], pixels: int, channels: int, seed: int, kind: str
) -> None:
    images = noise(3, *side, channels, seed=seed)
    torch.manual_seed(seed)
    augment = CropFlip(pixels) if kind == "crop-flip" else Shift(pixels)
    out = (augment(images) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for image, changed in zip(images.numpy(), out, strict=True):
        possible = candidates(image, pixels, kind == "crop-flip", "reflect" if kind == "crop-flip" else "constant")
        assert any(np.array_equal(changed, candidate) for candidate in possible)


def test_every_translation_and_flip_is_drawn_equally_often() -> None:
    torch.manual_seed(0)
    image = noise(1, 8, 8)
    out = (CropFlip(pixels=1)(image.expand(9000, -1, -1, -1)) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    counts = [
        int((out == torch.from_numpy(candidate.copy())).flatten(1).all(1).sum())
        for candidate in candidates(image[0].numpy(), 1, True, "reflect")
    ]
    assert sum(counts) == 9000
    assert len(counts) == 18
    assert min(counts) > 400  # 500 expected, standard deviation 22
    assert max(counts) < 600


def bilinear(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """One sample of `[C, H, W]` at pixel coordinates, clamped at the border."""
    _, height, width = image.shape
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    a, b = x - left, y - top
    upper = (1 - a) * image[:, top, left] + a * image[:, top, right]
    lower = (1 - a) * image[:, bottom, left] + a * image[:, bottom, right]
    return (1 - b) * upper + b * lower


@SLOWER
@given(
    side=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    box=st.tuples(*[st.floats(0.1, 1.0)] * 2, *[st.floats(0.0, 1.0)] * 2),
)
def test_a_box_is_scaled_bilinearly(side: tuple[int, int], box: tuple[float, float, float, float]) -> None:
    height, width = side
    across, down, at_x, at_y = box
    image = plain(noise(1, height, width)).double()
    affine = torch.tensor([[[across, 0, (1 - across) * (2 * at_x - 1)], [0, down, (1 - down) * (2 * at_y - 1)]]])
    out = resample(image, affine.double())[0].numpy()
    left, top = (1 - across) * at_x * width, (1 - down) * at_y * height
    for row in range(height):
        for column in range(width):
            x = left + (column + 0.5) * across - 0.5
            y = top + (row + 0.5) * down - 0.5
            np.testing.assert_allclose(out[:, row, column], bilinear(image[0].numpy(), x, y), atol=1e-6)


def test_boxes_have_the_area_and_ratio_asked_for() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).expand(64, 64)
    images = torch.stack([ramp, ramp.T, torch.zeros_like(ramp)], dim=-1).expand(500, -1, -1, -1).contiguous()
    torch.manual_seed(0)
    out = ResizedCrop(scale=(0.25, 0.25), ratio=(0.5, 2.0), flip=0.5)(images) * 255
    across = (out[:, 0, 0, 40] - out[:, 0, 0, 24]) / 16  # the slope of the ramp is the box's width over the image's
    down = (out[:, 1, 40, 0] - out[:, 1, 24, 0]) / 16
    torch.testing.assert_close(across.abs() * down, torch.full((500,), 0.25), rtol=1e-3, atol=1e-4)
    ratio = across.abs() / down
    assert 0.49 < float(ratio.min()) < 0.55
    assert 1.8 < float(ratio.max()) < 2.01
    assert 200 < int((across < 0).sum()) < 300
    assert bool((down > 0).all())


def test_resized_crop_of_everything_is_the_image() -> None:
    images = noise(4, 12, 12)
    whole = ResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)(images)
    torch.testing.assert_close(whole, plain(images), atol=1e-5, rtol=0)


def test_simclr_leaves_grey_images_grey_and_small_ones_sharp() -> None:
    torch.manual_seed(0)
    crop_only = SimCLRAugmentation(scale=(1.0, 1.0), jitter=0.0, grey=0.0, blur=1.0, flip=0.0)
    images = noise(8, 16, 16)
    crop_only.crop.ratio = (1.0, 1.0)
    torch.testing.assert_close(crop_only(images), plain(images), atol=1e-5, rtol=0)
    large = noise(8, 64, 64)
    blurred = crop_only(large)
    assert bool((blurred.std((1, 2, 3)) < plain(large).std((1, 2, 3))).all())
    all_grey = SimCLRAugmentation(grey=1.0)(images)
    torch.testing.assert_close(all_grey[:, 0], all_grey[:, 2])


def test_simclr_changes_colour() -> None:
    torch.manual_seed(0)
    images = torch.full((64, 16, 16, 3), 100, dtype=torch.uint8)
    out = SimCLRAugmentation(jitter=1.0, grey=0.0)(images)
    assert float(out.mean((1, 2, 3)).std()) > 0.05


@pytest.mark.parametrize("channels_last", [False, True])
def test_jitter_is_its_steps_one_after_the_other(channels_last: bool) -> None:
    """Every image by itself, every step over its pixels, from the same draws."""
    x = plain(noise(40, 6, 5)).double()
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x.contiguous()
    torch.manual_seed(0)
    drawn = colours(40, 0.8, 0.2, jitter=0.7, grey=0.3, device=x.device)
    found = recoloured(x, *(each.double() if each.is_floating_point() else each for each in drawn))
    torch.manual_seed(0)
    chosen = torch.empty(40, 1).uniform_() < 0.7
    factors = torch.empty(40, 3).uniform_(1 - 0.8, 1 + 0.8).double()
    turns = torch.empty(40, 1).uniform_(-0.2, 0.2).double()
    order = torch.empty(40, 4).uniform_().argsort(1)
    lost = torch.empty(40).uniform_() < 0.3
    assert 0 < int(chosen.sum()) < 40
    assert 0 < int(lost.sum()) < 40
    for i, image in enumerate(x):
        for step in order[i].tolist() if chosen[i] else []:
            r, g, b = image
            luma = 0.299 * r + 0.587 * g + 0.114 * b
            if step == 0:
                image = image * factors[i, 0]
            elif step == 1:
                image = luma.mean() + factors[i, 1] * (image - luma.mean())
            elif step == 2:
                image = luma + factors[i, 2] * (image - luma)
            else:
                to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263],
                                       [0.211456, -0.522591, 0.311135]], dtype=torch.float64)  # fmt: skip
                y, u, v = torch.einsum("ij,jhw->ihw", to_yiq, image)
                angle = -2 * torch.pi * turns[i]
                turned = torch.stack([y, angle.cos() * u - angle.sin() * v, angle.sin() * u + angle.cos() * v])
                image = torch.einsum("ij,jhw->ihw", to_yiq.inverse(), turned)
        if lost[i]:
            image = (0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]).expand(3, 6, 5)
        torch.testing.assert_close(found[i], image)


def test_hue_turns_the_way_of_the_colour_wheel() -> None:
    red = torch.tensor([0.6, 0.3, 0.3]).view(1, 3, 1, 1)
    green = (_turned(torch.tensor([2 * torch.pi / 3])) @ red.flatten(2)).flatten()
    assert int(green.argmax()) == 1
    torch.testing.assert_close(green @ torch.tensor(LUMA), red.flatten() @ torch.tensor(LUMA))


def test_geometry_moves_as_it_says() -> None:
    image = plain(noise(1, 9, 9))
    quarter = torch.tensor([torch.pi / 2])
    turned = resample(image, affine(torch.tensor([4]), quarter, SQUARE))
    torch.testing.assert_close(turned, image.rot90(1, (2, 3)), atol=1e-4, rtol=0)
    third = resample(image, affine(torch.tensor([2]), torch.tensor([1 / 3]), SQUARE))
    torch.testing.assert_close(third[..., :6], image[..., 3:], atol=1e-4, rtol=0)
    third = resample(image, affine(torch.tensor([3]), torch.tensor([-1 / 3]), SQUARE))
    torch.testing.assert_close(third[..., 3:, :], image[..., :6, :], atol=1e-4, rtol=0)
    sheared = resample(image, affine(torch.tensor([0]), torch.tensor([0.3]), SQUARE))
    torch.testing.assert_close(sheared[..., 4, :], image[..., 4, :], atol=1e-4, rtol=0)
    assert not torch.allclose(sheared[..., 0, :], image[..., 0, :], atol=0.05)
    still = resample(image, affine(torch.arange(5), torch.zeros(5), SQUARE)[:1])
    torch.testing.assert_close(still, image, atol=1e-5, rtol=0)


def test_rotation_of_a_wide_image_keeps_right_angles() -> None:
    matrix = affine(torch.tensor([4]), torch.tensor([0.7]), torch.Size((10, 20)))[0, :, :2]
    scale = torch.diag(torch.tensor([20.0, 10.0]))  # normalised coordinates to pixels
    pixels = scale @ matrix @ scale.inverse()
    torch.testing.assert_close(pixels @ pixels.T, torch.eye(2), atol=1e-6, rtol=0)


@SLOWER
@given(channels=st.sampled_from([1, 3]), seed=st.integers(0, 999), amount=st.floats(-1, 1))
def test_enhancements_follow_their_formulas(channels: int, seed: int, amount: float) -> None:
    image = plain(noise(2, 5, 6, channels, seed=seed)).double()
    strength = torch.full((2, 1, 1, 1), amount, dtype=torch.float64)
    factor = 1 + 0.9 * amount
    x = image.numpy()
    luma = x if channels == 1 else (0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:])
    np.testing.assert_allclose(grey(image).numpy(), luma, atol=1e-6)
    np.testing.assert_allclose(brightness(image, strength).numpy(), x * factor, atol=1e-6)
    np.testing.assert_allclose(colour(image, strength).numpy(), luma + (x - luma) * factor, atol=1e-6)
    mean = luma.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(contrast(image, strength).numpy(), mean + (x - mean) * factor, atol=1e-6)
    bits = 8 - round(4 * abs(amount))
    kept = (np.rint(x * 255).astype(int) >> (8 - bits)) << (8 - bits)
    np.testing.assert_allclose(posterise(image, strength).numpy(), kept / 255, atol=1e-9)
    inverted = np.where(x >= 1 - abs(amount), 1 - x, x)
    np.testing.assert_allclose(solarise(image, strength).numpy(), inverted, atol=1e-9)
    smooth = x.copy()
    for row in range(1, 4):
        for column in range(1, 5):
            window = x[:, :, row - 1 : row + 2, column - 1 : column + 2].sum((2, 3))
            smooth[:, :, row, column] = (window + 4 * x[:, :, row, column]) / 13
    np.testing.assert_allclose(sharpness(image, strength).numpy(), smooth + (x - smooth) * factor, atol=1e-6)


@SLOWER
@given(channels=st.sampled_from([1, 3]), seed=st.integers(0, 999), levels=st.integers(1, 256))
def test_histogram_operations_follow_their_formulas(channels: int, seed: int, levels: int) -> None:
    images = (noise(2, 6, 6, channels, seed=seed).int() % levels).to(torch.uint8)
    x = plain(images).double()
    none = torch.zeros(2, 1, 1, 1, dtype=torch.float64)
    flat, stretched = equalise(x, none).numpy(), autocontrast(x, none).numpy()
    for sample in range(2):
        for channel in range(channels):
            values = images[sample, :, :, channel].numpy().astype(int)
            low, high = values.min(), values.max()
            if low == high:
                np.testing.assert_allclose(flat[sample, channel], values / 255)
                np.testing.assert_allclose(stretched[sample, channel], values / 255)
                continue
            np.testing.assert_allclose(stretched[sample, channel], (values - low) / (high - low), atol=1e-6)
            darkest = (values == low).sum()
            rank = np.vectorize(lambda v, values=values: (values <= v).sum())(values)
            np.testing.assert_allclose(flat[sample, channel], (rank - darkest) / (36 - darkest), atol=1e-6)


def test_strong_draws_every_operation_and_leaves_some_images() -> None:
    torch.manual_seed(0)
    images = noise(1, 16, 16).expand(560, -1, -1, -1)
    augment = StrongAugmentation(pixels=0, flip=0.0)
    out = augment(images)
    unchanged = int(((out - plain(images)).abs().flatten(1).amax(1) < 1e-3).sum())
    assert 15 < unchanged < 170  # a fourteenth is 40; weak posterising, solarising and autocontrast may change nothing
    assert len(out.flatten(1).unique(dim=0)) > 250


def test_photo_keeps_a_third_of_the_image_or_more() -> None:
    """In a ramp the range of what is left says how wide the crop was."""
    ramp = (torch.arange(96) * 2).to(torch.uint8).view(1, 1, 96, 1).expand(400, 96, 96, 3)
    torch.manual_seed(0)
    out = PhotoAugmentation()(ramp)
    width = (out[:, 0, 0].amax(-1) - out[:, 0, 0].amin(-1)) * 255 / 2 / 95
    assert width.min() > (0.35 * 3 / 4) ** 0.5 - 0.02
    assert width.min() < 0.6
    assert width.max() > 0.95


def test_randaugment_has_one_strength_and_trivialaugment_all() -> None:
    """Brightness of a grey image says the strength with which it was changed."""
    grey_images = torch.full((4000, 8, 8, 3), 128, dtype=torch.uint8)
    torch.manual_seed(0)
    one = RandAugment(operations=1, magnitude=5, pixels=0)(grey_images)[:, 0, 0, 0] * 255
    levels = set(one.round().int().tolist())
    assert {round(128 * (1 + 0.9 * 0.5)), round(128 * (1 - 0.9 * 0.5))} <= levels
    assert len(levels) <= 4, "as it was, brighter, darker, and one level of posterising"
    several = TrivialAugment(pixels=0)(grey_images)[:, 0, 0, 0] * 255
    assert len(several.round().int().unique()) > 60
    assert several.min() < 128 * 0.05, "the wide range goes down to a hundredth"
    narrow = TrivialAugment(wide=False, pixels=0)(grey_images)[:, 0, 0, 0] * 255
    assert 128 * 0.1 - 1 <= narrow.min() < 128 * 0.13


def test_wide_ranges_are_those_of_the_paper() -> None:
    x = torch.full((1, 3, 4, 4), 0.5)
    most = [torch.full((1, 1, 1, 1), factor) for factor in WIDE]
    torch.testing.assert_close(brightness(x, most[0]), 1.99 * x)
    torch.testing.assert_close(brightness(x, -most[0]), 0.01 * x)
    every = torch.arange(256).view(1, 1, 16, 16) / 255
    assert len(posterise(every, most[4]).unique()) == 4, "two bits"


def rectangle(changed: torch.Tensor) -> tuple[int, int, int]:
    """Height, width and number of the pixels that changed, `[H, W]`."""
    rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1, int(changed.sum())


@pytest.mark.parametrize("fill", ["noise", "mean", "black"])
def test_erasing_fills_a_rectangle_of_the_right_size(fill: str) -> None:
    torch.manual_seed(0)
    images = noise(400, 40, 60).clamp(min=1)
    out = RandomErasing(probability=0.5, share=(0.1, 0.3), ratio=(0.5, 2.0), fill=fill)(images)
    changed = (out - plain(images)).abs().amax(1) > 0
    erased = changed.flatten(1).any(1)
    assert 150 < int(erased.sum()) < 250
    shares, ratios = [], []
    for image in changed[erased]:
        height, width, count = rectangle(image)
        assert count >= 0.99 * height * width
        shares.append(height * width / 2400)
        ratios.append(height / width)
    assert 0.09 < min(shares) < 0.12
    assert 0.27 < max(shares) < 0.32
    assert 0.45 < min(ratios) < 0.6
    assert 1.7 < max(ratios) < 2.3
    inside = out.permute(0, 2, 3, 1)[changed]
    if fill == "black":
        assert bool((inside == 0).all())
    if fill == "noise":
        assert abs(float(inside.mean()) - 0.5) < 0.01
        assert abs(float(inside.std()) - 12**-0.5) < 0.01
    if fill == "mean":
        means = plain(images).mean((1, 2, 3))[:, None, None, None].expand_as(out).permute(0, 2, 3, 1)[changed]
        torch.testing.assert_close(inside, means)


def test_erasing_is_everywhere_and_not_always() -> None:
    torch.manual_seed(0)
    images = torch.full((3000, 12, 12, 1), 9, dtype=torch.uint8)
    hit = ((RandomErasing(1.0, fill="black")(images) == 0)[:, 0]).float().mean(0)
    assert hit.min() > 0.004  # the corners; a pixel in the middle is hit in 8 % of images
    assert bool((RandomErasing(0.0)(images) == plain(images)).all())


@pytest.mark.parametrize(
    "spec",
    ["crop-flip+erasing", "none+erasing:fill=black", "photo+randaugment:magnitude=3+erasing", "simclr+trivialaugment"],
)
def test_several_one_after_the_other(spec: str) -> None:
    augment, images = build_augmentation(spec), noise(8, 32, 32)
    torch.manual_seed(5)
    out = augment(images)
    assert out.shape == (8, 3, 32, 32)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert bool(((out >= 0) & (out <= 1)).all())
    torch.manual_seed(5)
    assert torch.equal(out, augment(images))
    assert not torch.equal(out, augment(images))


def test_what_follows_does_not_crop_again() -> None:
    torch.manual_seed(0)
    images = noise(60, 16, 16)
    out = build_augmentation("none+strong:strength=0.001")(images)
    assert float((out - plain(images)).abs().median()) < 0.01


@pytest.mark.parametrize("spec", ["erasing+crop-flip", "none+photo", "crop-flip+simclr"])
def test_what_can_only_come_first(spec: str) -> None:
    with pytest.raises(ConfigError, match="can only come first"):
        build_augmentation(spec)


def test_the_grammar_of_several() -> None:
    assert isinstance(build_augmentation("erasing:share=(1e-2,2e-1)"), RandomErasing)
    assert isinstance(build_augmentation("crop-flip"), CropFlip)
    with pytest.raises(ConfigError, match="erasin"):
        build_augmentation("crop-flip+erasin")
    with pytest.raises(ConfigError):
        build_augmentation("crop-flip+")


@pytest.mark.parametrize(
    "spec",
    [
        *("photo", "strong", "strong:operations=3", "randaugment", "trivialaugment", "erasing"),
        *("crop-flip+erasing", "photo+randaugment", "simclr+trivialaugment+erasing"),
    ],
)
def test_masks_are_replayed(spec: str) -> None:
    """The image is its own mask, and what does not move pixels leaves its outline where it is: it correlates."""
    generator = torch.Generator().manual_seed(1)
    masks = torch.nn.functional.interpolate(torch.rand(64, 1, 4, 4, generator=generator), size=32)[:, 0] > 0.5
    images = (masks[..., None] * 200 + 25).to(torch.uint8).expand(-1, -1, -1, 3).contiguous()
    augment = build_augmentation(spec)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    moved = move_masks(augment, masks)
    assert torch.equal(torch.get_rng_state(), before)
    out = augment(images).mean(1)
    assert moved.shape == out.shape
    assert bool(((moved >= 0) & (moved <= 1)).all())
    pairs = torch.stack(
        [torch.corrcoef(torch.stack([m.flatten(), o.flatten()]))[0, 1].abs() for m, o in zip(moved, out, strict=True)]
    )
    clear = pairs[pairs.isfinite()]
    assert float(clear.median()) > (0.6 if "erasing" in spec else 0.9)
    still = torch.stack(
        [
            torch.corrcoef(torch.stack([m.flatten().float(), o.flatten()]))[0, 1].abs()
            for m, o in zip(masks, out, strict=True)
        ]
    )
    if spec != "erasing":
        assert float(still[still.isfinite()].median()) < float(clear.median())
