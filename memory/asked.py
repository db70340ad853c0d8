"""Questions that were embedded lately. Who sends one message to several models at once, regenerates or tries again asks the same
once more; its vectors are known then. Texts are not kept, only their digests."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict

from memory.late import Asked, encode_query
from memory.models import Embedder

MOST = 256  # questions
KEPT_S = 600.0


class Questions:
    """May be used by several threads."""

    def __init__(self, most: int = MOST, kept_s: float = KEPT_S) -> None:
        self._most = most
        self._kept_s = kept_s
        self._known: OrderedDict[tuple[str, bytes], tuple[float, Asked]] = OrderedDict()
        self._lock = threading.Lock()

    def embedded(self, embedder: Embedder, text: str) -> Asked:
        """The question's vectors by this embedder. Blocking."""
        key, now = (embedder.id, hashlib.sha256(text.encode()).digest()), time.monotonic()
        with self._lock:
            found = self._known.get(key)
        if found is not None and now - found[0] < self._kept_s:
            return found[1]
        asked = encode_query(embedder, text)
        with self._lock:
            self._known.pop(key, None)
            self._known[key] = now, asked
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return asked

    def __len__(self) -> int:
        return len(self._known)
