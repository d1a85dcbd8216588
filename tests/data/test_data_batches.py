"""Batches of images, changed by one thread or by several."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from repertoire.data import _batches, build_augmentation
from repertoire.data._batches import shared_out


@pytest.fixture
def three() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def drawn(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("count", "pieces"), [(1, [1]), (20, [20]), (39, [39]), (40, [20, 20]), (61, [20, 20, 21]), (99, [24, 25, 25, 25])]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_pieces_depend_on_the_batch_alone_and_threads_have_some_of_them(
    three: None, monkeypatch: pytest.MonkeyPatch, count: int, pieces: list[int], threads: int
) -> None:
    images, lightness = drawn(count, 64, 64, 3), torch.rand(count)
    monkeypatch.setattr(_batches, "_PIECE", 20 * 64 * 64 * 3)
    torch.set_num_threads(threads)
    seen: list[tuple[int, int]] = []
    where: set[str] = set()

    def change(part: Tensor, lightness: Tensor) -> Tensor:
        seen.append((len(part), torch.get_num_threads()))
        where.add(threading.current_thread().name)
        return part.permute(0, 3, 1, 2) * lightness[:, None, None, None]

    found = shared_out(change, images, lambda: (lightness,))
    here = threads == 1 or images.numel() <= _batches._SMALL
    assert sorted(seen) == [(size, threads if here else 1) for size in pieces]
    assert (threading.main_thread().name in where) == here
    expected = images.permute(0, 3, 1, 2) * lightness[:, None, None, None]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert found.stride() == expected.stride()


@pytest.mark.parametrize("spec", ["simclr", "photo+randaugment+erasing", "shift", "rotate", "erasing:fill=mean"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_number_of_threads_gives_the_same_images(
    three: None, monkeypatch: pytest.MonkeyPatch, spec: str, channels: int
) -> None:
    images, augmentation = drawn(50, 40, 36, channels), build_augmentation(spec)
    torch.manual_seed(0)
    whole = augmentation(images)
    monkeypatch.setattr(_batches, "_PIECE", images.numel() // 5)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        found.append(augmentation(images))
    for each in found:
        torch.testing.assert_close(each, found[0], rtol=0, atol=0)
        assert each.stride() == whole.stride()
    torch.testing.assert_close(found[0], whole, rtol=0, atol=1e-6)


def test_what_a_piece_raises_is_raised(three: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batches, "_PIECE", 64 * 64)
    images = drawn(9, 64, 64, 1)

    def change(part: Tensor) -> Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        shared_out(change, images)
