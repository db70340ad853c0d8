"""Where the files of states are: `<root>/<cube>/<key>.kv`, and in each cube's folder the file `epoch` with a random word.

States carry the epoch that they were computed in. Who removes a cube's folder thereby makes all of them worthless at once,
also those that a running process still holds in RAM, or is about to write: the next use of the cube makes another epoch.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

_CUBE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_GONE = ".gone-"
SUFFIX = ".kv"


def is_cube(name: str) -> bool:
    """Whether a cube may be called so: its name is that of a folder."""
    return _CUBE.fullmatch(name) is not None


def forget(root: Path, cube: str) -> int:
    """Remove all states of a cube, whoever holds them; returns how many files went. Raises OSError when some could not be
    removed, ValueError when no cube may be called so."""
    if not is_cube(cube):
        raise ValueError("not the name of a cube")
    away = root / f"{_GONE}{uuid4().hex}"
    with suppress(FileNotFoundError):
        (root / cube).rename(away)  # first, so that nobody finds or writes half of it
    count = 0
    for left in root.glob(f"{_GONE}*"):  # also what a crash has left of an earlier one
        count += sum(1 for _ in left.glob(f"*{SUFFIX}"))
        with suppress(FileNotFoundError):  # another process removes it too
            shutil.rmtree(left)
    return count


class Folder:
    """The files below one root. Every method may be called from any thread."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self) -> None:
        """Make it, and remove what a crash has left. Raises OSError."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self.root.glob(f"{_GONE}*"):
            shutil.rmtree(left, ignore_errors=True)
        for temporary in self.root.glob("*/*.tmp"):
            temporary.unlink(missing_ok=True)

    def cubes(self) -> list[str]:
        """Those that have a folder."""
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and is_cube(path.name))

    def files(self, cube: str) -> Iterator[Path]:
        """The states of a cube, in no order."""
        return (self.root / cube).glob(f"*{SUFFIX}")

    def path(self, cube: str, key: str) -> Path:
        """Where a state is written."""
        return self.root / cube / f"{key}{SUFFIX}"

    def epoch(self, cube: str) -> str:
        """The cube's epoch; "" when everything of it was forgotten."""
        try:
            return (self.root / cube / "epoch").read_text("ascii")
        except (FileNotFoundError, UnicodeDecodeError):
            return ""

    def begin(self, cube: str) -> str:
        """The cube's epoch, a new one if it has none. Raises OSError."""
        if found := self.epoch(cube):
            return found
        home, word = self.root / cube, uuid4().hex
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = home / f"{word}.tmp"
        temporary.write_text(word, "ascii")
        temporary.replace(home / "epoch")
        return word
