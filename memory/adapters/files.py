"""The adapters' folder: `<root>/<cube>/<version>.gguf` with `<version>.json`, its manifest.

What is read was checked: the manifest's own checksum, the file's length and SHA-256, the cube, the version and the model. Raises
Damaged otherwise. Writes are temporary file + rename, mode 0600. A manifest holds ids and figures, no one's words.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FORMAT = "memrelay-adapter"
FORMAT_VERSION = 1
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MOST = 1 << 20  # bytes of a manifest


class Damaged(Exception):
    """An adapter's file is not what its manifest says, or belongs elsewhere."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an adapter is. `memories`: id → the cube's revision at which it was read; `results`: what was measured."""

    cube: str
    version: int
    model: str  # SHA-256 of the GGUF file that it was trained for
    architecture: str
    memories: dict[str, int]
    samples: str  # digest of the questions and answers
    settings: dict[str, Any]
    results: dict[str, Any]
    sha256: str
    bytes: int
    created: float
    scale: float = 1.0  # how strongly it is laid over the model


class Folder:
    """All adapters below one root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def of(self, cube: str) -> Path:
        """A cube's folder."""
        return self._root / (cube if _PLAIN.fullmatch(cube) else hashlib.sha256(cube.encode()).hexdigest())

    def path(self, cube: str, version: int) -> Path:
        """An adapter's file."""
        return self.of(cube) / f"{version}.gguf"

    def unfinished(self, cube: str, version: int) -> Path:
        """Where it is written before it is whole. Makes the folder."""
        folder = self.of(cube)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder / f"{version}.gguf.part"

    def keep(self, manifest: Manifest) -> None:
        """Give the unfinished file its name, the manifest first: a file without one is no adapter."""
        part = self.unfinished(manifest.cube, manifest.version)
        part.chmod(0o600)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        plain = asdict(manifest)
        body = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **plain, "digest": _digest(plain)})
        target = self._manifest(manifest.cube, manifest.version)
        fresh = target.with_suffix(".json.part")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(body)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(target)
        part.replace(self.path(manifest.cube, manifest.version))
        _sync(target.parent)

    def manifest(self, cube: str, version: int) -> Manifest:
        """Read and check the manifest. Raises Damaged; FileNotFoundError when there is no such adapter."""
        with self._manifest(cube, version).open("rb") as file:
            raw = file.read(_MOST + 1)
        try:
            found = json.loads(raw)
            plain = {field.name: found[field.name] for field in fields(Manifest)}
            right = (found["format"], found["format_version"], found["digest"]) == (
                FORMAT,
                FORMAT_VERSION,
                _digest(plain),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged("the manifest cannot be read") from error
        if len(raw) > _MOST or not right:
            raise Damaged("the manifest is damaged")
        if (found["cube"], found["version"]) != (cube, version):
            raise Damaged("the manifest is another adapter's")
        return Manifest(**plain)

    def checked(self, cube: str, version: int, model: str) -> Manifest:
        """The manifest of an adapter whose file is whole and made for the model of this SHA-256. Reads all of it. Raises Damaged,
        FileNotFoundError."""
        manifest, path = self.manifest(cube, version), self.path(cube, version)
        if manifest.model != model:
            raise Damaged("made for another model")
        if path.stat().st_size != manifest.bytes or sha256_of(path) != manifest.sha256:
            raise Damaged("the file is damaged")
        return manifest

    def versions(self, cube: str) -> list[int]:
        """The versions of which there is a file or a manifest."""
        folder = self.of(cube)
        names = {path.name.partition(".")[0] for path in folder.iterdir()} if folder.is_dir() else set()
        return sorted(int(name) for name in names if name.isdecimal())

    def remove(self, cube: str, version: int) -> bool:
        """Delete one adapter, finished or not; False: there was none."""
        found = False
        for name in (f"{version}.gguf", f"{version}.json", f"{version}.gguf.part", f"{version}.json.part"):
            path = self.of(cube) / name
            if path.is_file():
                path.unlink(missing_ok=True)
                found = True
        return found

    def keep_only(self, cube: str, versions: Collection[int]) -> list[int]:
        """Delete all others of a cube; returns which they were."""
        gone = [version for version in self.versions(cube) if version not in versions]
        for version in gone:
            self.remove(cube, version)
        if not versions:
            self.clear(cube)
        return gone

    def clear(self, cube: str) -> None:
        """Delete the cube's folder."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.of(cube))

    def cubes(self) -> list[str]:
        """The names of the folders there are."""
        return sorted(path.name for path in self._root.iterdir()) if self._root.is_dir() else []

    def _manifest(self, cube: str, version: int) -> Path:
        return self.of(cube) / f"{version}.json"


def sha256_of(path: Path) -> str:
    """Of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
