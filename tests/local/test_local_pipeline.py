"""A pipeline of processes gives the weights of one, and ends when one of them does."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from repertoire.errors import ConfigError
from repertoire.local import Pipeline
from repertoire.local.pipeline._channel import dense
from repertoire.local.pipeline._stages import stage_bounds

WORKER = Path(__file__).with_name("pipeline_worker.py")


@pytest.fixture(scope="module")
def launch(ranks) -> Callable[..., list[tuple[int, str]]]:
    """`launch(n, what, ...)` gives exit status and output of n processes that do something together."""

    def run(processes: int, what: str, *arguments: str) -> list[tuple[int, str]]:
        started = ranks(processes, str(WORKER), what, *arguments)
        outputs = [process.communicate(timeout=600)[0] for process in started]
        return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]

    return run


def succeeded(found: list[tuple[int, str]]) -> None:
    assert all(status == 0 for status, _ in found), "\n".join(output[-3000:] for _, output in found)


@pytest.fixture(scope="module")
def two(launch) -> list[tuple[int, str]]:
    """What two processes had to say; they do one thing after the other, because starting them takes longest."""
    return launch(2, "exact,rules,overlap,waiting,resumed,refusals,crossing,nonfinite")


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one_bit_for_bit(two):
    """Convolutions, batch normalisation, dropout, momentum, clipping, accumulation; batches of several sizes; blocks
    that overlap, also across the border of two processes."""
    assert all("exact passed" in output for _, output in two), two


@pytest.mark.slow
def test_three_processes_give_the_weights_of_one_bit_for_bit(launch):
    succeeded(launch(3, "exact"))


@pytest.mark.slow
def test_the_rule_gives_the_weights_of_one_process(two):
    assert all("rules passed" in output for _, output in two), two


@pytest.mark.slow
def test_stages_times_replicas_give_the_weights_of_data_parallelism(launch, tmp_path: Path):
    """Two replicas: a sum of two has one order, so that even this is exact. Running statistics are those of the first
    replica in both."""
    succeeded(launch(4, "replicated", str(tmp_path / "pipeline")))
    succeeded(launch(2, "plain", str(tmp_path / "plain")))
    pipelined, plain = load_file(tmp_path / "pipeline"), load_file(tmp_path / "plain")
    assert pipelined.keys() == plain.keys()
    assert not [name for name in plain if not torch.equal(plain[name], pipelined[name])]


@pytest.mark.slow
def test_two_processes_work_at_the_same_time(two):
    assert all("overlap passed" in output for _, output in two), two


@pytest.mark.slow
def test_two_processes_work_at_the_same_time_where_blocks_overlap(two):
    assert all("waiting passed" in output for _, output in two), two


@pytest.mark.slow
def test_a_state_that_is_loaded_is_gone_on_from(two):
    assert all("resumed passed" in output for _, output in two), two


@pytest.mark.slow
def test_blocks_that_overlap_learn_the_same_in_two_processes(two):
    assert all("crossing passed" in output for _, output in two), two


@pytest.mark.slow
def test_what_cannot_be_a_pipeline_is_refused(two):
    assert all("refusals passed" in output for _, output in two), two


@pytest.mark.slow
def test_a_nan_ends_all_processes_with_one_message(two):
    succeeded(two)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["killed", "hung"])
def test_processes_do_not_wait_for_one_that_is_gone(launch, what: str, tmp_path: Path):
    found = launch(3, what, str(tmp_path / "died"))
    assert [status for status, _ in found] == [3, -9 if what == "killed" else 3, 3], found
    for rank in (0, 2):
        seconds, message = re.search(r"lost after ([\d.]+) s: (.*)", found[rank][1]).groups()
        assert float(seconds) < 10
        assert "process 1 of 3 (block" in message
        assert "is gone or no longer answers" in message


@pytest.mark.slow
def test_the_benchmark_runs():
    script = WORKER.parents[2] / "benchmarks" / "pipeline.py"
    done = subprocess.run([sys.executable, script, "--quick"], capture_output=True, text=True, check=True, timeout=600)
    assert re.search(r"\| resnet20, 4 blocks, linear, batch 16 \| \d+ \| \d+ \| [\d.]+ \(", done.stdout), done.stdout


def test_a_pipeline_needs_processes():
    with pytest.raises(ConfigError, match="start them with torchrun"):
        Pipeline()


def test_stages_are_balanced_and_never_empty():
    assert stage_bounds([1, 1, 1, 3], 2) == [0, 3, 4]
    assert stage_bounds([1.0] * 5, 5) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ConfigError, match=r"needs 3 blocks or more, and there are 2: use local:blocks=3"):
        stage_bounds([1, 1], 3)


def test_what_is_sent_keeps_its_memory_format():
    images = torch.randn(4, 6, 5, 5)
    for tensor in (
        images,
        images.to(memory_format=torch.channels_last),
        images.permute(3, 1, 0, 2),
        torch.randn(4, 6, 1, 1).to(memory_format=torch.channels_last),
        torch.randn(()),
        torch.zeros(0, 3),
    ):
        assert dense(tensor) is tensor
    for tensor in (images[:, 1:], images[:1].expand(4, 6, 5, 5), images[..., ::2]):
        copy = dense(tensor)
        assert torch.equal(copy, tensor)
        assert copy.untyped_storage().nbytes() == 4 * tensor.numel()
