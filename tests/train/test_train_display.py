from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from repertoire.train._display import Display, Forgiving

ROW = {"epoch": 1, "train_loss": 0.5, "val_accuracy": 0.5, "images_per_second": 10.0}


class Broken(io.StringIO):
    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self.terminal = terminal

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def isatty(self) -> bool:
        return self.terminal


def show(display: Display) -> None:
    with display:
        display.epoch_starts(0, 0)
        for _ in range(3):
            display.step(0.5)
        display.epoch_ends(ROW)
        display.note("done")


@pytest.mark.parametrize("terminal", [False, True])
def test_nobody_watching_ends_nothing(terminal: bool):
    show(Display(2, 3, stream=Broken(terminal)))


def test_a_closed_standard_error_is_silence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", None)
    show(Display(2, 3))


def test_what_can_be_reached_is_told():
    stream = io.StringIO()
    show(Display(2, 3, stream=stream))
    assert stream.getvalue().splitlines()[-1] == "done"


def test_characters_that_the_stream_does_not_know_are_escaped():
    raw = io.BytesIO()
    stream = Forgiving(io.TextIOWrapper(raw, encoding="latin-1"))
    stream.write("ü 写\n")
    stream.flush()
    assert raw.getvalue() == "ü ".encode("latin-1") + b"\\u5199\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_a_full_disk_behind_standard_error_does_not_change_the_exit_status(redirection: str):
    code = "import sys; from repertoire.train._display import Forgiving; sys.stderr = Forgiving(sys.stderr); "
    code += "print('x' * 100_000, file=sys.stderr, flush=True); print('reached')"
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "{code}" {redirection}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "reached\n")
