from __future__ import annotations

import copy
import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import Queue


@given(st.integers(1, 9), st.lists(st.integers(0, 12), max_size=8))
@settings(max_examples=40, deadline=None)
def test_holds_the_rows_pushed_last(size, batches):
    queue, everything, start = Queue(size, 2), [], 0
    for count in batches:
        labels = torch.arange(start, start + count)
        queue.push(torch.stack([labels, -labels], dim=1).float(), labels)
        everything += labels.tolist()
        start += count
        kept = everything[-size:]
        assert len(queue) == len(kept)
        assert sorted(queue.labels.tolist()) == kept
        assert queue.rows.tolist() == [[label, -label] for label in queue.labels.tolist()]


def filled() -> Queue:
    queue = Queue(4, 3)
    queue.push(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6))
    return queue


@pytest.mark.parametrize("how", ["state", "assign", "copy", "buffers", "data", "apply"])
def test_a_copy_goes_on_exactly(how):
    queue = filled()
    if how == "state":
        other = Queue(4, 3)
        len(other)  # has looked at its own state before
        other.load_state_dict(queue.state_dict())
    elif how in ("assign", "buffers", "data"):
        other = Queue(4, 3)
        other.push(torch.ones(2, 3), torch.tensor([9, 9]))  # and counted its own rows
        for _ in range(2):
            queue.push(torch.ones(1, 3), torch.tensor([9]))
        if how == "assign":
            other.load_state_dict(copy.deepcopy(queue.state_dict()), assign=True)
        for mine, theirs in zip(other.buffers(), queue.buffers(), strict=True):
            (mine.data if how == "data" else mine).copy_(theirs)  # writes through .data count no version
    else:
        other = copy.deepcopy(queue)
        if how == "apply":
            other = other.double().float()
    assert len(queue) == len(other)
    for both in (queue, other):
        both.push(torch.full((2, 3), 7.0), torch.tensor([7, 8]))
    assert torch.equal(queue.memory, other.memory)
    assert torch.equal(queue.memory_labels, other.memory_labels)
    assert torch.equal(queue.pushed, other.pushed)


def test_keeps_no_graph_and_takes_half_precision():
    queue = Queue(4, 2)
    queue.push(torch.ones(2, 2, dtype=torch.bfloat16, requires_grad=True))
    assert queue.rows.dtype == torch.float32
    assert not queue.rows.requires_grad
    assert queue.labels.tolist() == [-1, -1]


def test_a_push_before_the_backward_pass_is_refused():
    queue = filled()
    x = torch.ones(1, 3, requires_grad=True)
    loss = (x @ queue.rows.T).sum()
    queue.push(torch.ones(1, 3))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (torch.zeros(2), None),
        (torch.zeros(2, 4), None),
        (torch.zeros(2, 3, dtype=torch.int64), None),
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 3), torch.zeros(2)),
    ],
)
def test_what_does_not_fit(rows, labels):
    with pytest.raises(ShapeError):
        Queue(4, 3).push(rows, labels)


@pytest.mark.parametrize("sizes", [(0, 3), (4, 0), (-1, 3)])
def test_sizes_out_of_range(sizes):
    with pytest.raises(ConfigError, match="must be positive"):
        Queue(*sizes)


@pytest.mark.slow
def test_all_ranks_hold_the_rows_of_all(ranks, tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(
        textwrap.dedent(
            """
            import torch
            from repertoire.ops import Queue

            torch.distributed.init_process_group("gloo")
            rank = torch.distributed.get_rank()
            queue = Queue(8, 2)
            count = 2 + rank  # ranks may have different numbers of rows
            queue.see(torch.full((count, 2), float(rank)), torch.full((count,), rank))
            assert len(queue) == 0
            queue.after_update()
            assert queue.labels.tolist() == [0, 0, 1, 1, 1], queue.labels
            assert queue.rows[:, 0].tolist() == [0, 0, 1, 1, 1]
            torch.distributed.destroy_process_group()
            """
        )
    )
    said = [(rank.communicate(timeout=120)[0], rank.returncode) for rank in ranks(2, str(script))]
    assert [status for _, status in said] == [0, 0], said
