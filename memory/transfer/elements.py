"""The elements of a large JSON array, one at a time: nothing but the present element is held in memory. Pure.

Python's JSON readers want the whole text. This finds where each element ends by following strings and brackets, and
leaves reading it to msgspec.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from memory.transfer.format import Refused

_OUTSIDE = re.compile(rb'["{}\[\],]')
_INSIDE = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)  # up to the closing quote, or to the end of the buffer


def elements(chunks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The raw elements of the array in `chunks`. Raises Refused when it is no array, broken off, or holds an element of
    more than `most` bytes."""
    buffer, at, begin = b"", 0, 0
    depth, quoted, began, ended = 0, False, False, False
    for chunk in chunks:
        buffer, at, begin = buffer[begin:] + chunk, at - begin, 0
        while at < len(buffer):
            if ended:
                if buffer[at:].strip():
                    raise Refused("the JSON goes on after its end")
                at = begin = len(buffer)
                break
            if quoted:
                match = _INSIDE.match(buffer, at)
                at = match.end() if match else at
                if at >= len(buffer) or buffer[at] != 0x22:
                    break  # at the end, or at a backslash whose other half is yet to come
                at += 1
                quoted = False
                continue
            found = _OUTSIDE.search(buffer, at)
            if found is None:
                at = len(buffer)
                break
            sign, here = found.group(), found.start()
            at = here + 1
            if not began:
                if sign != b"[" or buffer[:here].strip():
                    raise Refused("the JSON is not a list")
                began, depth, begin = True, 1, at
            elif sign == b'"':
                quoted = True
            elif sign in b"{[":
                depth += 1
            elif sign in b"}]":
                depth -= 1
                ended = depth == 0
            if (sign == b"," and depth == 1) or ended:
                if element := buffer[begin:here].strip():
                    yield element
                begin = at
        if at - begin > most:
            raise Refused(f"one entry is larger than {most} bytes")
    if not ended:
        raise Refused("the JSON was cut off" if began else "the JSON is not a list")
