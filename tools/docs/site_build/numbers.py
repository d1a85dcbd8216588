"""What the benchmarks printed, put where a page asks for it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["numbers"]


def numbers(script: str, root: Path) -> str:
    """The Markdown that `benchmarks/SCRIPT.py` printed, kept under `docs/numbers`; or that it was not run yet.

    Raises:
        FileNotFoundError: there is no such benchmark.
    """
    if not (root / "benchmarks" / f"{script}.py").exists():
        raise FileNotFoundError(f"there is no benchmark benchmarks/{script}.py")
    kept = root / "docs" / "numbers" / f"{script}.md"
    text = kept.read_text(encoding="utf-8").strip() if kept.exists() else ""
    return text or f"*Not measured yet: `python benchmarks/{script}.py` prints this table.*"
