"""The code blocks of docs/CLIENTS.md, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

CLIENTS = Path(__file__).parents[2] / "docs" / "CLIENTS.md"


def block(heading: str, language: str) -> str:
    """The first block in this language below a heading."""
    section = CLIENTS.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found is not None, f"docs/CLIENTS.md has no {language} under {heading}"
    return found.group(1)
