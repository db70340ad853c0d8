"""The thread that writes states to files, behind those who compute and answer.

A session's state is replaced turn after turn, so a file waits `settle_s` for a newer one: what is written is then the last of a
busy while. Held in RAM until it is written; after a crash the unwritten ones are computed again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from memory.activation.container import Each, Payload, write
from memory.activation.folder import Folder
from memory.activation.states import State

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Due:
    state: State
    payload: Payload
    at: float  # monotonic


class Writer:
    """Writes what it is given, one after the other, the one that is due first. `written` is told the file's bytes, 0 when it
    could not be written."""

    def __init__(self, folder: Folder, written: Callable[[State, int], None], each: Each, settle_s: float) -> None:
        self._folder = folder
        self._written = written
        self._each = each
        self._settle_s = settle_s
        self._due: dict[tuple[str, str], _Due] = {}  # (cube, key)
        self._busy = False
        self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="kv-writer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def add(self, state: State, *, at_once: bool) -> None:
        """Write it by and by, in place of an older one of its name."""
        if state.payload is None:
            raise ValueError("a state without a payload cannot be written")
        with self._change:
            due = time.monotonic() + (0.0 if at_once else self._settle_s)
            former = self._due.get(_name(state))
            self._due[_name(state)] = _Due(state, state.payload, min(due, former.at) if former else due)
            self._change.notify_all()

    def hurry(self, state: State) -> bool:
        """Write it now; False if it is not waiting to be written."""
        with self._change:
            due = self._due.get(_name(state))
            if due is None or due.state is not state:
                return False
            due.at = 0.0
            self._change.notify_all()
            return True

    def cancel(self, state: State) -> None:
        """Do not write it."""
        with self._change:
            self._due.pop(_name(state), None)
            self._change.notify_all()

    def flush(self) -> None:
        """Write all now, and block until that is done. Nothing happens before `start` or after `close`."""
        with self._change:
            for due in self._due.values():
                due.at = 0.0
            self._change.notify_all()
            self._change.wait_for(lambda: not (self._due or self._busy) or not self._thread.is_alive())

    def close(self) -> None:
        """Write all and end."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while (due := self._next()) is not None:
            try:
                size = self._write(due)
                with self._change:
                    if self._due.get(_name(due.state)) is due:
                        del self._due[_name(due.state)]
                self._written(due.state, size)
            except Exception as error:  # one state's fault must not keep all others in memory
                log.error("a state was not written: %s", type(error).__name__)
                with self._change:
                    self._due.pop(_name(due.state), None)
            finally:
                with self._change:
                    self._busy = False
                    self._change.notify_all()

    def _next(self) -> _Due | None:
        """Wait for what is due; None: closed, and all is written."""
        with self._change:
            while True:
                first = min(self._due.values(), key=lambda due: due.at, default=None)
                if first is None and self._closed:
                    return None
                wait = None if first is None else first.at - time.monotonic()
                if first is not None and wait is not None and (wait <= 0 or self._closed):
                    self._busy = True
                    return first
                self._change.wait(wait)

    def _write(self, due: _Due) -> int:
        head = due.state.head
        try:
            if self._folder.epoch(head.cube) != head.epoch:  # forgotten meanwhile
                return 0
            path = self._folder.path(head.cube, head.key)
            size = write(path, head, due.state.tokens, due.payload, self._each)
            if self._folder.epoch(head.cube) != head.epoch:  # forgotten while it was written
                path.unlink(missing_ok=True)
                return 0
            return size
        except OSError as error:
            log.warning("a state could not be written: %s", error.strerror)
            return 0


def _name(state: State) -> tuple[str, str]:
    return state.head.cube, state.head.key
