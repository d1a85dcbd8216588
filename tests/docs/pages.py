"""The pages that people wrote, and the code in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [page for page in PAGES if "numbers" not in page.parts]

_BLOCK = re.compile(
    r"(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A fenced block; `file` names the file that a reader would write it to, or the one of this repository it shows."""

    language: str
    code: str
    file: str | None

    @property
    def of_the_repository(self) -> bool:
        return self.file is not None and "/" in self.file


def blocks(page: Path, language: str) -> list[Block]:
    found = [Block(m["language"], m["code"], m["file"]) for m in _BLOCK.finditer(page.read_text(encoding="utf-8"))]
    return [block for block in found if block.language == language]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))
