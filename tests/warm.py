"""Processes that have imported PyTorch and the package before they begin.

To import both takes longer than most of what tests let a process do. A server imports them once, computes nothing, and
forks: what it starts runs a script or a module as `python` would, in a process of its own, which can be killed.
Where a test is about starting itself (the launcher, imports, what is said while they go on), it starts Python.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import shutil
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
    """A process that was started, looked at and ended as one of `subprocess.Popen`.

    Args:
        arguments: of Python: a script, `-m` and a module, or `-c` and a program, and what these take.
        environment: its environment variables; those of this process by default.
        folder: where it works; by default where this process does.
        given: its standard input.
        apart: whether its errors are kept apart; else they are in its output.
    """

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        given: bytes = b"",
        apart: bool = False,
    ) -> None:
        self._files = Path(tempfile.mkdtemp())
        for name in ("out", "err"):
            (self._files / name).touch()
        (self._files / "in").write_bytes(given)
        surroundings = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        details = (arguments, surroundings, str(folder or Path.cwd()), str(self._files), apart)
        self._process: ForkServerProcess = server().Process(target=_run, args=details)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """Its exit status, -9 if it was killed, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same, as `subprocess.Popen` has it."""
        return self.returncode

    def said(self) -> tuple[str, str]:
        """What it printed so far, and its errors."""
        out, err = ((self._files / name).read_text(encoding="utf-8") for name in ("out", "err"))
        return out, err

    def send_signal(self, number: int) -> None:
        """Sends it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Ends it as SIGKILL does."""
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it printed, and its errors, once it is at its end."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0.0, "\n".join(self.said()))
        return self.said()

    def end(self) -> None:
        """Ends it if it still runs, and removes what it printed."""
        self.kill()
        self._process.join()
        shutil.rmtree(self._files, ignore_errors=True)


def _run(arguments: tuple[str, ...], environment: dict[str, str], folder: str, files: str, apart: bool) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for name, number in (("in", 0), ("out", 1), ("err" if apart else "out", 2)):
        handle = os.open(f"{files}/{name}", os.O_RDWR | (os.O_APPEND if number else 0))
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
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
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "0"}
    shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "TORCHELASTIC_RUN_ID": "test"}
    each = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    return [Started(*arguments, environment=environment) for environment in each]
