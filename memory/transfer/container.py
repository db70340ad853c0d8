"""A ZIP file from anywhere, opened with care: its list of members is judged before one of them is read.

In comes a seekable binary file; out come named members, each read as a bounded stream. What is wrong raises Refused.
Nothing is ever unpacked to a path that the file names.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from memory.transfer.format import Limits, Refused

CHUNK = 1 << 20
_END = b"PK\x05\x06"
_END_64 = b"PK\x06\x06"
_LOCATOR_64 = b"PK\x06\x07"
_SMALL = 16 << 20  # below this much no ratio is suspicious
_BROKEN = "the file is damaged or was cut off"


class Container:
    """The members of a ZIP file."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._limits = limits
        _check_directory(file, limits)
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, struct.error, ValueError, OSError, EOFError, NotImplementedError) as error:
            raise Refused(_BROKEN) from error
        infos = self._zip.infolist()
        self.names = [info.filename for info in infos]
        self._infos = dict(zip(self.names, infos, strict=True))
        if len(self._infos) != len(infos):
            raise Refused("a member occurs twice")

    def check(self, names: Iterable[str]) -> None:
        """Judge these members by what the file declares of them; to be done before one is read. Raises Refused."""
        infos = [self._infos[name] for name in names]
        for info in infos:
            self._check(info)
        if sum(info.file_size for info in infos) > self._limits.total:
            raise Refused(f"unpacked it would be larger than {self._limits.total} bytes")

    def _check(self, info: zipfile.ZipInfo) -> None:
        name, mode = info.filename, info.external_attr >> 16
        shown = name[:80]
        parts = name.removesuffix("/").split("/")
        if info.orig_filename != name or "\\" in name or name.startswith("/") or ":" in parts[0]:
            raise Refused(f"member {shown!r} has an absolute or odd path")
        if any(part in ("", ".", "..") for part in parts) or not name.isprintable():
            raise Refused(f"member {shown!r} has a path that leads elsewhere")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG) and not (stat.S_ISDIR(mode) and info.is_dir()):
            raise Refused(f"member {shown!r} is not a plain file (a link or a device)")
        if info.flag_bits & 1:
            raise Refused(f"member {shown!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(f"member {shown!r} is packed in a way that is not read here")
        if info.file_size > max(_SMALL, info.compress_size * self._limits.ratio):
            raise Refused(f"member {shown!r} is packed too densely to be honest")

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def size(self, name: str) -> int:
        """Unpacked bytes, as the file declares them; reading raises when there are others."""
        return self._infos[name].file_size

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a member, a piece at a time. Raises Refused when it is damaged."""
        left = self._infos[name].file_size
        try:
            with self._zip.open(name) as member:
                while part := member.read(CHUNK):
                    left -= len(part)
                    if left < 0:
                        raise Refused(f"member {name[:80]!r} is larger than it declares")
                    yield part
        except (
            zipfile.BadZipFile,
            zlib.error,
            struct.error,
            EOFError,
            OSError,
            ValueError,
            NotImplementedError,
        ) as error:
            raise Refused(f"member {name[:80]!r} is damaged") from error
        except RuntimeError as error:  # how zipfile says that a password is needed
            raise Refused(f"member {name[:80]!r} cannot be read") from error
        if left:
            raise Refused(f"member {name[:80]!r} is smaller than it declares")

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a member, without their ends. Raises Refused for one beyond the limit."""
        rest: list[bytes] = []
        size = 0
        for chunk in self.chunks(name):
            first, *others = chunk.split(b"\n")
            rest.append(first)
            size += len(first)
            for line in others:
                self._check_line(name, size)
                yield b"".join(rest)
                rest, size = [line], len(line)
            self._check_line(name, size)
        if size:
            yield b"".join(rest)

    def _check_line(self, name: str, size: int) -> None:
        if size > self._limits.line:
            raise Refused(f"{name}: a line is longer than {self._limits.line} bytes")

    def whole(self, name: str, most: int) -> bytes:
        """A small member at once."""
        if self.size(name) > most:
            raise Refused(f"member {name[:80]!r} is larger than {most} bytes")
        return b"".join(self.chunks(name))


def is_zip(file: BinaryIO) -> bool:
    """Whether a file begins as a ZIP file does."""
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    return head in (b"PK\x03\x04", _END)


def _check_directory(file: BinaryIO, limits: Limits) -> None:
    """Bound the list of members before anybody reads it into memory."""
    end = file.seek(0, 2)
    file.seek(max(0, end - 65_558))
    start, tail = file.tell(), file.read()
    file.seek(0)
    plain = len(tail) - 22  # where it lies when the file has no comment; zipfile looks there first
    at = plain if plain >= 0 and tail.startswith(_END, plain) and tail.endswith(b"\0\0") else tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise Refused(_BROKEN if start or tail.startswith(b"PK") else "the file is not an archive")
    count, size = struct.unpack("<10xHL", tail[at : at + 16])
    if at >= 20 and tail.startswith(_LOCATOR_64, at - 20):
        (where,) = struct.unpack("<8xQ", tail[at - 20 : at - 4])
        if where > end:
            raise Refused(_BROKEN)
        file.seek(where)
        record = file.read(56)
        file.seek(0)
        if len(record) < 56 or not record.startswith(_END_64):
            raise Refused(_BROKEN)
        count, size = struct.unpack("<32xQQ", record[:48])
    if count > limits.members or size > limits.directory:
        raise Refused(f"there are more than {limits.members} members")
