from __future__ import annotations

import copy
import textwrap
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from repertoire.errors import RepertoireWarning
from repertoire.ops import Memory, Queue, commit_memories, discard_memories, frozen_memories


class Running(Memory):
    """The mean of each batch, and its rows."""

    remembers: ClassVar = {"mean": "mean", "rows": "rows"}

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("rows", torch.zeros(0, 2))
        self.commits = 0

    def forward(self, x: Tensor) -> Tensor:
        self.remember(len(x), mean=x.mean(0), rows=x)
        return x.square().sum()

    def commit(self, mean: Tensor, rows: Tensor) -> None:
        self.mean.copy_(mean)
        self.rows = rows.clone()
        self.commits += 1


def test_pieces_are_put_together_by_how_many_samples_they_have():
    x = torch.randn(7, 2)
    memory = Running()
    for piece in (x[:2], x[2:3], x[3:]):
        memory(piece.requires_grad_())
    assert not memory.mean.any()
    memory.after_update()
    torch.testing.assert_close(memory.mean, x.mean(0))
    assert torch.equal(memory.rows, x)
    assert not memory.rows.requires_grad
    memory.after_update()
    assert memory.commits == 1


def test_what_is_seen_in_vain_leaves_no_trace():
    memory = Running()
    with frozen_memories(nn.ModuleList([memory])):
        memory(torch.ones(3, 2))
    memory.eval()(torch.ones(3, 2))
    memory.train()(torch.ones(3, 2))
    other = copy.deepcopy(memory)
    discard_memories(memory)
    for each in (memory, other):
        each.after_update()
        assert each.commits == 0
    memory(torch.ones(3, 2))
    memory.after_update()
    assert memory.commits == 1


@pytest.mark.parametrize("spoilt", [torch.nan, torch.inf])
def test_one_value_that_is_not_finite_holds_up_all_memories(spoilt: float):
    both = nn.ModuleDict({"one": Running(), "two": Running()})
    both["one"](torch.ones(2, 2))
    both["two"](torch.tensor([[1.0, spoilt]]))
    commit_memories(both)
    assert [memory.commits for memory in both.values()] == [0, 0]
    for memory in both.values():
        memory(torch.ones(2, 2))
    commit_memories(both)
    assert [memory.commits for memory in both.values()] == [1, 1]


def test_who_is_never_told_of_an_update_says_so_once(recwarn: pytest.WarningsRecorder):
    memory, x = Running(), torch.randn(1, 2)
    for _ in range(999):
        memory(x)
    assert not recwarn.list
    for _ in range(500):
        memory(x)
    (warning,) = recwarn.list
    assert issubclass(warning.category, RepertoireWarning)
    assert "its after_update() after each step" in str(warning.message)
    for _ in range(1500):
        memory(x)
        memory.after_update()
    assert len(recwarn.list) == 1


def test_all_that_is_declared_must_be_remembered():
    with pytest.raises(TypeError, match=r"Running remembers \['mean', 'rows'\], found \['mean'\]"):
        Running().remember(2, mean=torch.zeros(2))


def test_a_queue_takes_what_it_saw_once_the_weights_have_changed():
    queue = Queue(8, 2)
    for piece in torch.arange(6.0).view(3, 2).split(2):
        queue.see(piece)
    assert len(queue) == 0
    queue.after_update()
    assert queue.rows.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert queue.labels.tolist() == [-1, -1, -1]


@pytest.mark.slow
def test_ranks_have_a_share_by_how_many_samples_they_saw(ranks, tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            import torch
            sys.path.insert(0, sys.argv[1])
            from test_ops_memory import Running

            torch.distributed.init_process_group("gloo")
            rank = torch.distributed.get_rank()
            x = torch.arange(10.0).view(5, 2)
            memory = Running()
            memory(x[:3] if rank == 0 else x[3:])
            memory.after_update()
            assert torch.allclose(memory.mean, x.mean(0)), memory.mean
            assert torch.equal(memory.rows, x), memory.rows
            memory(x if rank == 0 else x * torch.nan)
            memory.after_update()
            assert memory.commits == 1, "both ranks see what one of them spoilt"
            torch.distributed.destroy_process_group()
            """
        )
    )
    here = __file__.rpartition("/")[0]
    said = [(rank.communicate(timeout=120)[0], rank.returncode) for rank in ranks(2, str(script), here)]
    assert [status for _, status in said] == [0, 0], said


def test_a_memory_waits_for_the_update_of_its_own_module():
    ours, theirs = Running(), Running()
    ours(torch.ones(2, 2))
    theirs(torch.full((2, 2), 2.0))
    commit_memories(nn.ModuleList([ours]))
    commit_memories(nn.Linear(1, 1))
    assert (ours.commits, theirs.commits) == (1, 0)
    theirs.after_update()
    assert theirs.commits == 1
    torch.testing.assert_close(theirs.mean, torch.full((2,), 2.0))
