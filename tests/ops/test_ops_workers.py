"""Workers: one thread of arithmetic each, the settings of the process as they were, and the same sums every time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from repertoire.ops import (
    alone,
    at_once,
    by_rows,
    linear_cross_entropy,
    pair_count,
    pair_hardest,
    pair_logsumexp,
    pair_max,
    pair_sum,
    pair_topk,
    pair_values,
    unit_rows,
    worker_count,
)


@pytest.fixture
def two() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_workers_have_one_thread_of_arithmetic_each_and_change_nothing_elsewhere(two: None):
    meeting = threading.Barrier(2, timeout=30)

    def look() -> tuple[int, str]:
        meeting.wait()  # both at once, so that they are two
        return torch.get_num_threads(), threading.current_thread().name

    found = at_once([look, look])
    assert [threads for threads, _ in found] == [1, 1]
    assert len({name for _, name in found}) == 2
    assert torch.get_num_threads() == 2
    # A thread that is made afterwards takes the number of the process, not that of the workers.
    seen: list[int] = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [2]


def test_there_are_as_many_workers_as_were_ever_asked_for_at_once(two: None):
    def running() -> int:
        return sum(thread.name.startswith("repertoire-worker") for thread in threading.enumerate())

    def together(count: int) -> list[int]:
        meeting = threading.Barrier(count, timeout=30)

        def look() -> int:
            meeting.wait()
            return torch.get_num_threads()

        return at_once([look] * count)

    together(2)
    most = max(running(), 4)
    for count in (3, 4, 2, 4):
        assert together(count) == [1] * count
    assert running() == most, "a larger number adds to the workers, and takes the place of none"
    assert torch.get_num_threads() == 2


def test_workers_see_the_modes_of_the_caller(two: None):
    def modes() -> tuple[bool, bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")

    with torch.no_grad():
        assert at_once([modes, modes]) == [(False, False, False)] * 2
    with torch.inference_mode():
        assert at_once([modes, modes]) == [(False, True, False)] * 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert at_once([modes, modes]) == [(True, False, False)] * 2


def test_the_first_error_is_raised_when_all_have_ended(two: None):
    ended: list[int] = []

    def fails() -> None:
        raise ValueError("this one")

    with pytest.raises(ValueError, match="this one"):
        at_once([fails, lambda: ended.append(1)])
    assert ended == [1]
    assert at_once([lambda: 1, lambda: 2]) == [1, 2]


def test_who_works_alone_has_one_thread_of_arithmetic_and_the_modes_of_the_caller(two: None):
    def look() -> tuple[int, bool, bool]:
        return torch.get_num_threads(), torch.is_grad_enabled(), threading.current_thread() is threading.main_thread()

    assert alone(look) == (1, True, False)
    with torch.no_grad():
        assert alone(look) == (1, False, False)
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError):
        alone(lambda: 1 // 0)
    # In a worker already, it stays there.
    names = alone(lambda: [threading.current_thread().name, alone(lambda: threading.current_thread().name)])
    assert names[0] == names[1]


def test_a_worker_has_no_workers_of_its_own(two: None):
    assert at_once([lambda: worker_count(torch.zeros(2))] * 2) == [1, 1]
    assert at_once([lambda: at_once([lambda: 3, lambda: 4])] * 2) == [[3, 4], [3, 4]]


def test_what_belongs_to_the_calling_thread_keeps_the_work_there(two: None):
    x = torch.zeros(3)
    assert worker_count(x) == 2
    with FlopCounterMode(display=False):
        assert worker_count(x) == 1
    assert worker_count(x.as_subclass(type("Mine", (Tensor,), {}))) == 1
    assert worker_count(torch.zeros(3, device="meta")) == 1
    seen: list[int] = []
    torch.func.vmap(lambda row: seen.append(worker_count(x)) or row)(torch.zeros(2, 2))
    assert seen == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_process_has_workers_of_its_own(two: None):
    at_once([lambda: 1, lambda: 2])
    child = os.fork()
    if child == 0:
        os._exit(0 if at_once([lambda: 1, lambda: 2]) == [1, 2] else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("count", [0, 1, 5, 40_001])
def test_the_rows_of_all_shares_are_all_rows(count: int, two: None):
    seen = by_rows(lambda rows: list(range(rows.start, rows.stop)), torch.zeros(count, 2))
    assert [row for share in seen for row in share] == list(range(count))
    assert len(seen) == (2 if count == 40_001 else 1)


N, M = 2_301, 2_411
GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(N, 16, generator=GENERATOR), torch.randn(M, 16, generator=GENERATOR)
BIAS = torch.randn(N, generator=GENERATOR)
GROUPS = torch.randint(0, 5, (N,), generator=GENERATOR)
PLACES = torch.randint(-1, M, (N, 20), generator=GENERATOR)

#: What reduces pairs, over sets that make more than four strips of tiles; differentiated where it can be.
WALKS: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "one set, bounded": (lambda x: pair_logsumexp(x, scale=0.1, bound=60.0, exclude_self=True), (X,)),
    "one set, other groups": (
        lambda x: pair_logsumexp(x, scale=0.1, exclude_self=True, pairs="different", groups=GROUPS),
        (X,),
    ),
    "two sets, distances": (lambda x, y: pair_logsumexp(x, y, similarity="euclidean", scale=-0.1), (X, Y)),
    "one set, not symmetric": (lambda x, b: pair_logsumexp(x, bias=b, scale=0.1), (X, BIAS)),
    "one set, distances": (lambda x: pair_logsumexp(x, similarity="sqeuclidean", scale=-0.1), (X,)),
    "sum with weights": (lambda x, w: pair_sum(x, None, "sigmoid", y_weight=w), (X, BIAS)),
    "sum of hinges": (
        lambda x: pair_sum(x, None, "hinge", similarity="euclidean", scale=-1.0, bias=BIAS, exclude_self=True),
        (X,),
    ),
    "sum with a bias of columns": (lambda x, y, b: pair_sum(x, y, "softplus", y_bias=b), (Y, X, BIAS)),
    "function of one's own": (lambda x, y: pair_sum(x, y, lambda tile, rows, columns: tile**2), (X, Y)),
    "largest three": (lambda x: pair_topk(x, k=3).values, (X,)),
    "farthest": (lambda x: pair_max(x, similarity="euclidean").values, (X,)),
    "places of the largest": (lambda x: pair_topk(x, k=3).indices, (X,)),
    "place of the farthest": (lambda x: pair_max(x, similarity="euclidean").indices, (X,)),
    "places of the hardest": (lambda x: torch.stack([f.indices for f in pair_hardest(x, groups=GROUPS)]), (X,)),
    "count": (lambda x: pair_count(x, threshold=1.0), (X,)),
    "chosen": (lambda x, y: pair_values(x, y, PLACES, similarity="euclidean"), (X, Y)),
    "chosen of one set": (lambda x: pair_values(x, None, PLACES.clamp_max(N - 1)), (X,)),
    "unit rows": (unit_rows, (X,)),
    "many classes": (
        lambda x, w: linear_cross_entropy(x[:300], w, GROUPS[:300], label_smoothing=0.1, reduction="none"),
        (X, Y),
    ),
    "many classes with a margin": (
        lambda x, w: linear_cross_entropy(
            x[:300], w, GROUPS[:300], similarity="cosine", scale=8.0, margin=lambda c: c - 0.3, reduction="none"
        ),
        (X, Y),
    ),
}


def _run(name: str, threads: int) -> list[Tensor]:
    torch.set_num_threads(threads)
    function, given = WALKS[name]
    given = tuple(tensor.clone().requires_grad_() for tensor in given)
    found = function(*given)
    if not found.is_floating_point():
        return [found]
    (found * torch.linspace(-1, 1, found.numel()).view(found.shape)).sum().backward()
    return [found.detach(), *(tensor.grad for tensor in given if tensor.grad is not None)]


@pytest.mark.parametrize("name", WALKS)
def test_a_walk_that_is_shared_out_gives_what_one_thread_gives(name: str, two: None):
    alone, shared, again = _run(name, 1), _run(name, 2), _run(name, 2)
    for one, other, more in zip(alone, shared, again, strict=True):
        assert torch.equal(other, more)  # the order of sums does not depend on who is faster
        if one.is_floating_point():
            assert (one - other).norm() <= 2e-6 * one.norm()
        else:
            assert torch.equal(one, other)


def test_five_workers_make_the_same_sums_as_one():
    """Shares whose numbers of strips differ."""
    before = torch.get_num_threads()
    try:
        x = torch.randn(5_200, 4, generator=torch.Generator().manual_seed(1))
        torch.set_num_threads(1)
        alone = pair_logsumexp(x, scale=0.1, exclude_self=True)
        torch.set_num_threads(5)
        shared = pair_logsumexp(x, scale=0.1, exclude_self=True)
    finally:
        torch.set_num_threads(before)
    assert (alone - shared).norm() <= 1e-6 * alone.norm()
