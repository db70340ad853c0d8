"""Adapters on this engine's model: which file a chat asks for, whether it may be used, and those that are loaded.

A file is used after its manifest and all its bytes were checked (again when it changed), so `find` may be asked in any thread but
the worker's; `load` and `use` belong to the worker. What is loaded stays within a budget, the longest unused leaves first. One
adapter counts for a whole batch; who shares a batch is decided elsewhere.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from memory.adapters.files import Damaged, Folder, sha256_of
from memory.engine.errors import EngineError
from memory.engine.llama import Context, Model
from memory.engine.lora import Adapter, take_off

log = logging.getLogger(__name__)
_STRONGEST = 2.0
_DIGITS = 12  # of a file's SHA-256 in an id


@dataclass(frozen=True, slots=True)
class Overlay:
    """An adapter as a chat uses it. `id` changes with its bytes and its strength: states computed under one are no other's."""

    id: str
    cube: str
    version: int
    scale: float
    path: Path
    sha256: str
    bytes: int


class Adapters:
    """All adapters below one folder, for the model of one file. `budget`: bytes that stay loaded."""

    def __init__(self, folder: Folder, model: Path, budget: int) -> None:
        self._folder = folder
        self._path = model
        self._budget = budget
        self._fingerprint = ""
        self._known: dict[str, Overlay] = {}  # id → what it is
        self._whole: dict[Path, tuple[int, ...]] = {}  # file → how it looked when its bytes were checked
        self._loaded: OrderedDict[str, tuple[Adapter, Overlay]] = OrderedDict()  # SHA-256 → the longest unused first
        self._used = ""
        self._lock = threading.Lock()

    def find(self, cube: str, asked: str) -> Overlay | None:
        """The adapter that `asked` names: `<version>` or `<version>@<scale>`. None when it may not be used: there is none, it is
        damaged, another cube's or another model's."""
        number, _, strength = asked.partition("@")
        try:
            version, scale = int(number), float(strength or 1.0)
            if not cube or version < 1 or not 0 < scale <= _STRONGEST:
                raise ValueError
            with self._lock:
                overlay = self._checked(cube, version, scale)
        except FileNotFoundError:
            log.warning("cube %s has no such adapter; answered without one", cube)
        except Damaged as damaged:
            log.warning("an adapter of cube %s is not used: %s", cube, damaged)
        except (ValueError, OSError) as error:
            log.warning("an adapter of cube %s is not used: %s", cube, type(error).__name__)
        else:
            return overlay
        return None

    def _checked(self, cube: str, version: int, scale: float) -> Overlay:
        manifest, path = self._folder.manifest(cube, version), self._folder.path(cube, version)
        stat = path.stat()
        looks = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if self._whole.get(path) != looks or manifest.model != self._model():
            manifest = self._folder.checked(cube, version, self._model())
            self._whole[path] = looks
        name = f"{version}-{manifest.sha256[:_DIGITS]}@{scale:g}"
        overlay = Overlay(name, cube, version, scale, path, manifest.sha256, manifest.bytes)
        self._known[name] = overlay
        return overlay

    def _model(self) -> str:
        if not self._fingerprint:
            self._fingerprint = sha256_of(self._path)
        return self._fingerprint

    def load(self, model: Model, overlay: Overlay, needed: Collection[str]) -> None:
        """Have it ready for `use`. `needed`: ids that must stay. Raises EngineError when llama.cpp refuses it."""
        if overlay.sha256 not in self._loaded:
            if not overlay.path.is_file():
                raise EngineError("the adapter is gone")
            self._loaded[overlay.sha256] = (Adapter(model, overlay.path), overlay)
        self._loaded.move_to_end(overlay.sha256)
        self._make_room(
            {self._known[name].sha256 for name in (*needed, self._used) if name in self._known} | {overlay.sha256}
        )

    def use(self, model: Model, context: Context, name: str, needed: Collection[str] = ()) -> None:
        """Decode with the adapter of this id from now on; "" means with the model alone. Raises EngineError."""
        if name == self._used:
            return
        if not name:
            take_off(context)
        else:
            overlay = self._known.get(name)
            if overlay is None:
                raise EngineError("no such adapter")
            self.load(model, overlay, needed)
            self._loaded[overlay.sha256][0].lay_over(context, overlay.scale)
        self._used = name

    def forget(self, context: Context, cube: str, needed: Collection[str]) -> int:
        """Let go of a cube's adapters, but for those that somebody is being answered with; how many went."""
        here = [name for name, overlay in self._known.items() if overlay.cube == cube and name not in needed]
        if self._used in here:
            take_off(context)
            self._used = ""
        for name in here:
            del self._known[name]
        still = {overlay.sha256 for overlay in self._known.values()}
        gone = [sha for sha, (_, overlay) in self._loaded.items() if overlay.cube == cube and sha not in still]
        for sha in gone:
            self._loaded.pop(sha)[0].close()
        return len(gone)

    @property
    def held(self) -> list[int]:
        """The versions that are loaded, the longest unused first."""
        return [overlay.version for _, overlay in self._loaded.values()]

    def close(self) -> None:
        """Free all, before the model is."""
        while self._loaded:
            self._loaded.popitem()[1][0].close()

    def _make_room(self, needed: Collection[str]) -> None:
        size = sum(overlay.bytes for _, overlay in self._loaded.values())
        for sha in [sha for sha in self._loaded if sha not in needed]:
            if size <= self._budget:
                return
            adapter, overlay = self._loaded.pop(sha)
            adapter.close()
            size -= overlay.bytes
