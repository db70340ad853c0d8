"""The states that are held, in two tiers: RAM and files, each under a budget of bytes. The least worth leaves first.

A state is found by the tokens it was computed from, only for its own cube and adapter, and only while the cube's epoch is the
one it was computed in: a changed prompt, another's memory or a forgotten one can not be served. Files are written by a thread of
its own (writing.py). Every method may be called from any thread; `load` blocks for a file.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memory.activation import folder as folders
from memory.activation.container import Damaged, Head, Payload, Tokens, read_head, read_payload, sha_of
from memory.activation.folder import Folder
from memory.activation.states import Budgets, Held, Origin, State, Sums, Tally, Worth, latest
from memory.activation.writing import Writer

log = logging.getLogger(__name__)
_PARTS = 2  # threads that check one file


@dataclass(frozen=True, slots=True)
class Found:
    """A state that begins as the prompt does, for `tokens` of them."""

    state: State
    tokens: int


class States:
    """All states of one engine. Made once; of use after `open`."""

    def __init__(
        self,
        root: Path,
        budgets: Budgets,
        *,
        worth: Worth = latest,
        clock: Callable[[], float] = time.time,
        settle_s: float = 30.0,
    ) -> None:
        self.budgets = budgets
        self.root = root
        self._folder = Folder(root)
        self._worth = worth
        self._clock = clock
        self._lock = threading.RLock()
        self._cubes: dict[str, dict[str, State]] = defaultdict(dict)  # cube → key → state
        self._epochs: dict[str, str] = {}
        self._compat: Mapping[str, Any] = {}
        self._tally = Tally()
        self._pool = ThreadPoolExecutor(_PARTS, "kv-check")
        self._writer = Writer(self._folder, self._written, self._pool.map, settle_s)

    def open(self, compat: Mapping[str, Any]) -> None:
        """Find the files. `compat`: what every state depends on besides its tokens; files of another one are removed."""
        self._folder.open()
        with self._lock:
            self._compat = compat
            for cube in self._folder.cubes():
                self._see(cube)
            self._fit_disk()
        self._writer.start()

    def close(self) -> None:
        """Write what is not written yet."""
        self._writer.close()
        self._pool.shutdown()

    def flush(self) -> None:
        """Block until everything that is to be a file is one."""
        self._writer.flush()

    def epoch(self, cube: str) -> str:
        """The cube's epoch now, for an Origin. Raises OSError when the folder cannot be written."""
        with self._lock:
            epoch = self._folder.begin(cube)
            if self._epochs.get(cube, epoch) != epoch:  # another process has removed the folder
                self._let_go(cube)
            self._epochs[cube] = epoch
            return epoch

    def best(self, cube: str, adapter: str, epoch: str, tokens: Sequence[int], *, whole: bool = False) -> Found | None:
        """The state that has most of these first tokens; of equals one in RAM, then a small one. `whole`: only those that have
        nothing else."""
        asked = np.asarray(tokens, np.int32)
        with self._lock:
            mine = [
                Found(state, count)
                for state in self._cubes.get(cube, {}).values()
                if (state.head.adapter, state.head.epoch) == (adapter, epoch)
                and (count := shared(state.tokens, asked))
                and not (whole and count < len(state.tokens))
            ]
        return max(mine, key=_nearness, default=None)

    def load(self, state: State) -> Payload | None:
        """Its payload, from RAM or the file; None when it is gone, or was damaged (and is removed then)."""
        with state.loading:  # one reader for one file
            if (payload := state.payload) is None:
                payload = self._read(state)
        with self._lock:
            if payload is None or not self._has(state):
                return None
            now = self._clock()
            state.uses, state.used_at = state.uses + 1, now
            self._tally.counts["restored_ram" if state.payload is not None else "restored_disk"] += 1
            if state.payload is None and state.head.size <= self.budgets.ram:
                state.payload = payload
                self._fit_ram(state)
        if state.on_disk:
            self._touch(state, now)
        return payload

    def reject(self, state: State) -> None:
        """The model did not take its payload, though nothing was found wrong with it: it goes."""
        with self._lock:
            if self._has(state):
                self._writer.cancel(state)
                del self._cubes[state.head.cube][state.head.key]
                self._refuse(self._folder.path(state.head.cube, state.head.key), Damaged("rejected"))

    def put(self, origin: Origin, tokens: Sequence[int], payload: Payload, *, at_once: bool = False) -> Held | None:
        """Keep a state; the session's former one goes. `at_once`: its file need not wait for a newer one. None: there is no room
        for it, or what its cube had was forgotten meanwhile."""
        array: Tokens = np.asarray(tokens, np.int32)
        now = self._clock()
        head = Head(
            cube=origin.cube,
            epoch=origin.epoch,
            sort=origin.sort,
            session=origin.session,
            adapter=origin.adapter,
            compat=self._compat,
            count=len(array),
            tokens_sha=sha_of(array),
            size=len(payload),
            created=now,
        )
        state = State(head, array, now, payload)
        to_disk = 0 < len(payload) <= self.budgets.disk
        if self._folder.epoch(origin.cube) != (origin.epoch or None) or not (
            to_disk or len(payload) <= self.budgets.ram
        ):
            return None
        with self._lock:
            former = self._cubes[origin.cube].get(head.key)
            self._cubes[origin.cube][head.key] = state
            state.uses = former.uses if former else 0
            state.on_disk = former.on_disk if former else 0  # its file stays until this one takes its place
            self._tally.counts["saved"] += 1
            if to_disk:
                self._writer.add(state, at_once=at_once)
            self._fit_ram(state)
        return state.held()

    def drop(self, cube: str) -> tuple[int, int]:
        """Forget everything of a cube, in RAM and on disk: (states, payload bytes). Raises OSError, ValueError."""
        with self._lock:
            known = list(self._cubes.get(cube, {}).values())
            self._let_go(cube)
            self._epochs.pop(cube, None)
            files = folders.forget(self._folder.root, cube)
            self._tally.counts["dropped"] += max(len(known), files)
        return max(len(known), files), sum(state.head.size for state in known)

    def held(self, cube: str | None = None) -> list[Held]:
        """The states of a cube, or all of them, the latest used first."""
        with self._lock:
            chosen = self._every() if cube is None else list(self._cubes.get(cube, {}).values())
            return sorted((state.held() for state in chosen), key=lambda held: -held.used_at)

    def sums(self) -> Sums:
        """All together, and what has happened."""
        with self._lock:
            every = self._every()
            ram, disk = sum(state.ram for state in every), sum(state.on_disk for state in every)
            return Sums(self.budgets, len(every), ram, disk, dict(self._tally.counts), dict(self._tally.damaged))

    def _every(self) -> list[State]:
        return [state for states in self._cubes.values() for state in states.values()]

    def _has(self, state: State) -> bool:
        return self._cubes.get(state.head.cube, {}).get(state.head.key) is state

    def _see(self, cube: str) -> None:
        """Find the files of one cube."""
        epoch = self._epochs[cube] = self._folder.epoch(cube)
        for path in self._folder.files(cube):
            try:
                head, tokens = read_head(path)
                if wrong := self._wrong(head, cube, epoch, path.stem):
                    raise Damaged(wrong)
                status = path.stat()
            except (Damaged, OSError) as error:
                self._refuse(path, error)
            else:
                state = State(head, tokens, status.st_mtime, on_disk=status.st_size)
                self._cubes[cube][head.key] = state

    def _wrong(self, head: Head, cube: str, epoch: str, name: str) -> str:
        """Why a whole file must not be used: the first thing in it that is not as it must be."""
        if head.cube != cube:
            return "cube"
        if head.epoch != epoch:
            return "epoch"
        names = [*self._compat, *(name for name in head.compat if name not in self._compat)]
        different = next((name for name in names if head.compat.get(name) != self._compat.get(name)), "")
        return different or ("" if head.key == name else "name")

    def _read(self, state: State) -> Payload | None:
        path = self._folder.path(state.head.cube, state.head.key)
        try:
            if not state.on_disk:
                raise FileNotFoundError(path)
            head, _ = read_head(path)  # again: the file may be another one by now
            if head.key != state.head.key or head.tokens_sha != state.head.tokens_sha or head.epoch != state.head.epoch:
                raise Damaged("replaced")
            return read_payload(path, head, self._pool.map)
        except (Damaged, OSError) as error:
            with self._lock:
                if self._has(state):
                    self._refuse(path, error)
                    del self._cubes[state.head.cube][state.head.key]
            return None

    def _refuse(self, path: Path, error: Damaged | OSError) -> None:
        """A file that cannot be used is counted and removed."""
        reason = (
            error.reason
            if isinstance(error, Damaged)
            else "missing"
            if isinstance(error, FileNotFoundError)
            else "unreadable"
        )
        self._tally.damaged[reason] += 1
        log.warning("a saved state was not used and is removed (%s): %s", reason, path.name)
        try:
            path.unlink(missing_ok=True)
        except OSError as left:
            log.warning("it could not be removed: %s", os.strerror(left.errno or 0))

    def _touch(self, state: State, now: float) -> None:
        try:
            os.utime(
                self._folder.path(state.head.cube, state.head.key), (now, now)
            )  # so that a restart knows its last use
        except OSError:
            log.debug("the time of a state's last use could not be noted")

    def _let_go(self, cube: str) -> None:
        for state in self._cubes.pop(cube, {}).values():
            self._writer.cancel(state)
            state.payload = None

    def _written(self, state: State, size: int) -> None:
        """The writer has written it (0 bytes: it could not)."""
        with self._lock:
            if not self._has(state):
                return
            state.on_disk = size
            if size:
                self._fit_disk(state)
            else:  # what is there is an older one's
                self._remove(state)
            self._fit_ram(None)

    def _fit_ram(self, newest: State | None) -> None:
        """Let go of payloads until the rest fit. One without a file, whose file is not coming either, is gone."""
        inside = [state for state in self._every() if state.payload is not None]
        total = sum(state.ram for state in inside)
        for state in self._by_worth(inside, newest):
            if total <= self.budgets.ram:
                return
            total -= state.ram
            self._tally.counts["evicted_ram"] += 1
            if self._writer.hurry(state):  # it holds the payload until then
                continue
            state.payload = None
            if not state.on_disk and self._has(state):
                del self._cubes[state.head.cube][state.head.key]

    def _fit_disk(self, newest: State | None = None) -> None:
        inside = [state for state in self._every() if state.on_disk]
        total = sum(state.on_disk for state in inside)
        for state in self._by_worth(inside, newest):
            if total <= self.budgets.disk:
                return
            total -= state.on_disk
            self._tally.counts["evicted_disk"] += 1
            self._writer.cancel(state)
            state.on_disk = 0
            self._remove(state)
            if state.payload is None and self._has(state):
                del self._cubes[state.head.cube][state.head.key]

    def _remove(self, state: State) -> None:
        try:
            self._folder.path(state.head.cube, state.head.key).unlink(missing_ok=True)
        except OSError as error:
            log.warning("the file of a state could not be removed: %s", error.strerror)

    def _by_worth(self, states: Sequence[State], newest: State | None) -> list[State]:
        """The least worth first; the newest last, which would otherwise never be given a chance."""
        now = self._clock()
        return sorted(states, key=lambda state: (state is newest, self._worth(state.held(), now)))


def _nearness(found: Found) -> tuple[int, bool, int]:
    return found.tokens, found.state.payload is not None, -len(found.state.tokens)


def shared(a: Tokens, b: Tokens) -> int:
    """The length of the longest common prefix."""
    least = min(len(a), len(b))
    different = np.flatnonzero(a[:least] != b[:least])
    return int(different[0]) if len(different) else least
