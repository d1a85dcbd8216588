"""Processes that have imported PyTorch and the package before they begin.

To import both takes longer than most of what tests let a process do. A server imports them once, computes nothing, and
forks: what it starts runs a script or a module as `python` would, in a process of its own, which can be killed.
Where a test is about starting itself (the launcher, imports, what is said while they go on), it starts Python.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

_IMPORTED = (
    "torch.distributed.fsdp",
    "lightning_fabric",
    "pytest",
    *(
        f"repertoire.{name}"
        for name in ("train._fit", "cli.train", "recipe._build", "local", "losses", "rules", "heads")
    ),
)


def server() -> ForkServerContext:
    """Where such processes come from; there is one for all tests of a worker, started with the first of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    return context


class Started:
    """A process that was started, looked at and ended as one of `subprocess.Popen`; its errors are in its output.

    Args:
        arguments: of Python: a script, `-m` and a module, or `-c` and a program, and what these take.
        environment: its environment variables.
    """

    def __init__(self, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        handle, self._output = tempfile.mkstemp()
        os.close(handle)
        self._process: ForkServerProcess = server().Process(
            target=_run, args=(arguments, dict(environment), self._output)
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """Its exit status, -9 if it was killed, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same, as `subprocess.Popen` has it."""
        return self.returncode

    def kill(self) -> None:
        """Ends it as SIGKILL does."""
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What it printed, once it is at its end."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0.0, Path(self._output).read_bytes())
        return Path(self._output).read_text(encoding="utf-8"), None

    def end(self) -> None:
        """Ends it if it still runs, and removes what it printed."""
        self.kill()
        self._process.join()
        Path(self._output).unlink(missing_ok=True)


def _run(arguments: tuple[str, ...], environment: dict[str, str], output: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    handle = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    how, *rest = arguments
    if how == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = list(arguments)
        sys.path.insert(0, str(Path(how).parent))
        runpy.run_path(how, run_name="__main__")


def start_ranks(count: int, *arguments: str) -> list[Started]:
    """Starts so many processes with these arguments of Python, as the ranks of one group."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "0"}
    shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "TORCHELASTIC_RUN_ID": "test"}
    each = [{**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    return [Started(arguments, environment) for environment in each]
