"""Reading forms (multipart/form-data): the model that one names, putting another in its place, and the ids in its fields. Pure."""

from __future__ import annotations

import re

from proxy.errors import BadRequest

_BOUNDARY = re.compile(r'boundary=(?:"([^"]+)"|([^";,\s]+))', re.IGNORECASE)
_SOLE_BOUNDARY = re.compile(r'multipart/form-data;[ \t]*boundary=(?:"([^"\\]+)"|([^\s";,=\\]+))[ \t]*', re.IGNORECASE)
# a part's head that no two readers take for different things
_PLAIN_HEAD = re.compile(
    rb"(?:\r\ncontent-(?:type:[^\r\n]*+|length:[ \t]*\d+|transfer-encoding:[ \t]*(?:7bit|8bit|binary)))*+"
    rb'\r\ncontent-disposition:[ \t]*form-data;[ \t]*name=("[^"\\\r\n]*+"|[^\s";,=\\*]++)'
    rb'(?:;[ \t]*filename=(?:"[^"\\\r\n]*+"|[^\s";,=\\]++))?(?:;[ \t]*filename\*=[^\s";,=\\]++)?[ \t]*'
    rb"(?:\r\ncontent-(?:type:[^\r\n]*+|length:[ \t]*\d+|transfer-encoding:[ \t]*(?:7bit|8bit|binary)))*+",
    re.IGNORECASE,
)
# a field that holds an id and nothing else, whatever its head says and the boundary is
_ID_FIELD = re.compile(rb"\n\r?\n[ \t]{0,16}([A-Za-z0-9][A-Za-z0-9_.-]{7,199})[ \t]{0,16}\r?\n--")
_LONGEST = 256  # bytes that it may match
_LENGTH = re.compile(rb"(\r\ncontent-length:[ \t]*)\d+", re.IGNORECASE)
_MODEL_FIELD = re.compile(rb'\bname="?model"?[ \t]*(?:[;\r\n]|$)', re.IGNORECASE)


def form_model(held: bytes, kind: str) -> str:
    """The field `model` of a multipart body, of which the end may be missing. Raises BadRequest when there are several."""
    boundary = _BOUNDARY.search(kind)
    if boundary is None:
        return ""
    mark = _mark(boundary)
    named = ""
    for part in (b"\r\n" + held).split(mark)[1:]:
        head, gap, value = part.partition(b"\r\n\r\n")
        if gap and _MODEL_FIELD.search(head[:1000]):
            if named:
                raise BadRequest("the body names several models", param="model")
            named = value.decode("utf-8", "replace").strip()
    return named


def sole_model(held: bytes, kind: str) -> str:
    """The same of a whole body that is written so plainly that every reader finds the same fields in it; empty when it has no such
    field. Raises BadRequest for any other."""
    boundary = _SOLE_BOUNDARY.fullmatch(kind.strip())
    if boundary is None:
        raise _unplain()
    mark = _mark(boundary)
    first, *parts = (b"\r\n" + held).split(mark)
    if first or not parts or parts.pop().rstrip(b" \t\r\n") != b"--":
        raise _unplain()
    models = []
    for part in parts:
        head, gap, value = part.partition(b"\r\n\r\n")
        told = _PLAIN_HEAD.fullmatch(head)
        if not gap or told is None:
            raise _unplain()
        if _names_model(told):
            models.append(value.decode("utf-8", "replace").strip())
    if len(models) > 1:
        raise BadRequest("the body names several models", param="model")
    return models[0] if models else ""


def put_model(held: bytes, kind: str, model: str) -> bytes:
    """The beginning of a form, or all of it, with `model` as the value of its field `model`. As it was where no such field ends
    in it, or what stands before that can be read in two ways."""
    boundary = _SOLE_BOUNDARY.fullmatch(kind.strip())
    if boundary is None:
        return held
    mark = _mark(boundary)
    first, *parts = (b"\r\n" + held).split(mark)
    if first or not parts or not parts[-1].startswith((b"\r\n", b"--")):
        return held
    for place, part in enumerate(parts[:-1]):
        head, gap, _ = part.partition(b"\r\n\r\n")
        told = _PLAIN_HEAD.fullmatch(head)
        if not gap or told is None:
            return held
        if _names_model(told):
            put = model.encode("utf-8", "replace")
            parts[place] = _LENGTH.sub(rb"\g<1>%d" % len(put), head) + gap + put
            return mark.join([first, *parts])[2:]
    return held


class Ids:
    """The ids that the fields of a form hold, as it passes by."""

    def __init__(self) -> None:
        self._end = b""

    def feed(self, chunk: bytes) -> set[str]:
        """Those that end in this piece."""
        window = self._end + chunk
        self._end = window[-_LONGEST:]
        return {found.decode() for found in _ID_FIELD.findall(window)}


def _mark(boundary: re.Match[str]) -> bytes:
    """What stands before each part, and before the end."""
    return b"\r\n--" + (boundary[1] or boundary[2]).encode("latin-1", "replace")


def _names_model(told: re.Match[bytes]) -> bool:
    return told[1].strip(b'"').strip().lower() == b"model"


def _unplain() -> BadRequest:
    return BadRequest("this form cannot be read with certainty; name each field plainly", code="invalid_form")
