"""An archive that is not what it says is refused, with the reason, and nothing of it is written."""

from __future__ import annotations

import io
import json
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memory.cube import Cubes
from memory.index import Index
from memory.models import Embedder
from memory.sql import Database
from memory.store import Store
from memory.transfer import Limits, Refused
from tests.memory.archives import (
    DAY,
    changed,
    exported,
    furnish,
    imported,
    members,
    packed,
    rows,
    with_manifest,
    zipped,
)
from tests.memory.make import CUBE, NOW

Files = dict[str, bytes]


@pytest.fixture
async def archive(database: Database, store: Store, embedder: Embedder, tmp_path: Path) -> bytes:
    """An archive with everything in it, vectors too."""
    await furnish(database)
    await Index(database, store, embedder).catch_up(CUBE)
    return await exported(database, tmp_path)


async def refused(database: Database, archive: bytes, **options: Any) -> str:
    """Why; and nothing was written."""
    with pytest.raises(Refused) as why:
        await imported(database, archive, "victim", **options)
    assert await Cubes(database).get("victim") is None
    assert not any((await rows(database, "victim")).values())
    return str(why.value)


def entry(name: str, mode: int = 0o600) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def added(archive: bytes, info: zipfile.ZipInfo, data: bytes = b"x") -> bytes:
    """The archive with one more member."""
    out = io.BytesIO(archive)
    with zipfile.ZipFile(out, "a") as file:
        file.writestr(info, data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("info", "says"),
    [
        (entry("../../etc/passwd"), "leads elsewhere"),
        (entry("blobs/../../x"), "leads elsewhere"),
        (entry("/etc/passwd"), "absolute"),
        (entry("C:/x"), "absolute"),
        (entry("blobs//x"), "leads elsewhere"),
        (entry("blobs/x\ny"), "leads elsewhere"),
        (entry("blobs/x", stat.S_IFLNK | 0o777), "not a plain file"),
        (entry("blobs/x", stat.S_IFIFO | 0o600), "not a plain file"),
        (entry("blobs/x"), "is not in manifest.json"),
        (entry("readme.txt"), "is not in manifest.json"),
    ],
)
async def test_a_member_that_does_not_belong(database: Database, archive: bytes, info: Any, says: str) -> None:
    assert says in await refused(database, added(archive, info))


@pytest.mark.filterwarnings("ignore:Duplicate name")
async def test_a_member_that_occurs_twice(database: Database, archive: bytes) -> None:
    assert "occurs twice" in await refused(database, added(archive, entry("turns.jsonl")))


@pytest.mark.parametrize("name", ["blobs/.hidden", "blobs/a b", "blobs", "notes.txt", "vectors/more.f32"])
async def test_a_declared_member_of_an_unknown_kind(database: Database, archive: bytes, name: str) -> None:
    assert "does not belong" in await refused(database, packed(members(archive) | {name: b"x"}))


async def test_a_file_that_is_a_folder_too(database: Database, archive: bytes) -> None:
    tampered = packed(members(archive) | {"blobs/a/b/c": b"x", "blobs/a": b"y"})
    assert "a file and a folder" in await refused(database, with_counts(tampered, blobs=2))


def with_counts(archive: bytes, **more: int) -> bytes:
    counts = json.loads(members(archive)["manifest.json"])["counts"]
    return with_manifest(archive, counts=counts | more)


@pytest.mark.parametrize("name", ["turns.jsonl", "edges.jsonl", "vectors/data.f32"])
async def test_a_missing_member(database: Database, archive: bytes, name: str) -> None:
    files = members(archive)
    del files[name]
    assert f"member {name} is missing" in await refused(database, zipped(files))
    assert f"member {name} is missing" in await refused(database, packed(files, counted=False))


async def test_a_manifest_that_is_missing_or_not_first(database: Database, archive: bytes) -> None:
    files = members(archive)
    manifest = files.pop("manifest.json")
    assert "manifest.json is missing" in await refused(database, zipped(files))
    assert "not the first" in await refused(database, zipped(files | {"manifest.json": manifest}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "something"}, "does not say"),
        ({"version": "1"}, "does not say"),
        ({"version": True}, "does not say"),
        ({"version": -1}, "does not say"),
        ({"version": 2}, "update memrelay"),
        ({"counts": {}}, "another number"),
        ({"counts": {"turns": -1}}, "counts"),
        ({"members": []}, "is not in manifest.json"),
        ({"members": [{"name": "turns.jsonl", "size": 1, "sha256": "x"}]}, "sha256"),
        ({"created_at": NOW * 1000}, "created_at"),
        ({"cube": {"id": "c"}}, "cube"),
        ({"principal": "pr_1"}, "principal"),
    ],
)
async def test_a_manifest_that_lies(database: Database, archive: bytes, changes: Any, says: str) -> None:
    assert says in await refused(database, with_manifest(archive, **changes))


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
async def test_a_manifest_that_cannot_be_read(database: Database, archive: bytes, manifest: bytes) -> None:
    assert "manifest.json" in await refused(database, zipped(members(archive) | {"manifest.json": manifest}))


@pytest.mark.parametrize("name", ["turns.jsonl", "memories.jsonl", "nodes.jsonl", "edges.jsonl", "vectors/data.f32"])
async def test_a_member_with_other_bytes(database: Database, archive: bytes, name: str) -> None:
    files = members(archive)
    files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])
    assert "another hash" in await refused(database, zipped(files))
    files[name] += b"\n"
    assert "another size" in await refused(database, zipped(files))


# --- bombs ----------------------------------------------------------------------------------------------------------------


async def test_a_bomb_that_declares_its_size(database: Database, archive: bytes) -> None:
    assert "too densely" in await refused(database, added(archive, deflated("blobs/x"), b"\0" * (20 << 20)))


def deflated(name: str) -> zipfile.ZipInfo:
    info = entry(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


async def test_a_bomb_that_hides_its_size(database: Database, archive: bytes) -> None:
    bomb = bytearray(added(archive, deflated("blobs/x"), b"\0" * (20 << 20)))
    at = bomb.rfind(b"PK\x01\x02")
    bomb[at + 24 : at + 28] = struct.pack("<L", 1000)
    files = {member["name"]: member for member in json.loads(members(archive)["manifest.json"])["members"]}
    assert "is not in manifest.json" in await refused(database, bytes(bomb))
    declared = [*files.values(), {"name": "blobs/x", "size": 1000, "sha256": "0" * 64}]
    told = with_members(bytes(bomb), declared)
    assert "damaged" in await refused(database, told)


def with_members(archive: bytes, declared: list[Any]) -> bytes:
    """Another manifest in the place of the first, whatever else the file holds."""
    files = members_raw(archive)
    out = io.BytesIO()
    manifest = json.loads(files["manifest.json"]) | {"members": declared}
    manifest["counts"]["blobs"] = 1
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, json.dumps(manifest) if name == "manifest.json" else data)
    bomb = bytearray(out.getvalue())
    at = bomb.rfind(b"PK\x01\x02")
    bomb[at + 24 : at + 28] = struct.pack("<L", 1000)
    return bytes(bomb)


def members_raw(archive: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {name: b"\0" * (20 << 20) if name == "blobs/x" else file.read(name) for name in file.namelist()}


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(total=1000), "larger than 1000 bytes"),
        (Limits(line=100), "a line is longer than 100 bytes"),
        (Limits(rows=3), "more than 3 rows"),
        (Limits(members=3), "more than 3 members"),
        (Limits(directory=100), "members"),
        (Limits(manifest=100), "larger than 100 bytes"),
    ],
)
async def test_what_is_beyond_a_limit(database: Database, archive: bytes, limits: Limits, says: str) -> None:
    assert says in await refused(database, archive, limits=limits)


async def test_a_list_of_members_that_claims_to_be_endless(database: Database, archive: bytes) -> None:
    at = archive.rfind(b"PK\x05\x06")
    huge = archive[: at + 8] + struct.pack("<HHLL", 0xFFFF, 0xFFFF, 0xFFFFFFF0, 0) + archive[at + 20 :]
    assert "members" in await refused(database, huge)


@pytest.mark.parametrize(
    "file", [b"", b"PK", b"nonsense", b"\0" * 100_000, b"PK\x03\x04" + b"\0" * 50, b"PK\x05\x06" + b"\xff" * 18]
)
async def test_no_archive_at_all(database: Database, file: bytes) -> None:
    assert await refused(database, file)


async def test_an_encrypted_member(database: Database, archive: bytes) -> None:
    locked = bytearray(archive)
    at = locked.find(b"PK\x01\x02")
    locked[at + 8] |= 1
    assert "encrypted" in await refused(database, bytes(locked))


async def test_an_unknown_compression(database: Database, archive: bytes) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as file:
        for name, data in members(archive).items():
            file.writestr(name, data)
    assert "packed in a way" in await refused(database, out.getvalue())


# --- rows -----------------------------------------------------------------------------------------------------------------


def change(**before: Any) -> dict[str, Any]:
    return {"version": 1, "at": NOW, "action": "update", "before": before}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def first(**changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda found: found[0].update(changes)


@pytest.mark.parametrize(
    ("member", "tamper", "says"),
    [
        ("memories.jsonl", first(cube="someone's"), "unknown field `cube`"),
        ("memories.jsonl", first(rev=9), "unknown field"),
        ("memories.jsonl", first(text=7), r"Expected `str`"),
        ("memories.jsonl", first(text=None), "Expected `str`"),
        ("memories.jsonl", first(kind="rumour"), "Invalid enum value"),
        ("memories.jsonl", first(trust="god"), "Invalid enum value"),
        ("memories.jsonl", first(status="deleted"), "is deleted"),
        ("memories.jsonl", first(confidence=1.5), "<= 1"),
        ("memories.jsonl", first(pinned=True), "Expected `int`"),
        ("memories.jsonl", first(uses=-1), ">= 0"),
        ("memories.jsonl", first(id=""), "id"),
        ("memories.jsonl", first(id="x" * 600), "id"),
        ("memories.jsonl", first(id="a\nb"), "id"),
        ("memories.jsonl", first(id="dog"), "occurs twice"),
        ("memories.jsonl", first(created_at=NOW * 1000), "created_at"),
        ("memories.jsonl", first(created_at=NOW + 200 * DAY), "in the future"),
        ("memories.jsonl", first(message_time=-5), ">= 0"),
        ("memories.jsonl", first(event_time=NOW * 1000), "event_time"),
        ("memories.jsonl", first(valid_to="tomorrow"), "valid_to"),
        ("memories.jsonl", first(supersedes="elsewhere"), "is superseded, but not in the archive"),
        ("memories.jsonl", lambda found: found[0].update(supersedes=found[0]["id"]), "supersedes itself"),
        ("memories.jsonl", first(history=[change(supersedes="elsewhere")]), "not in the archive"),
        ("memories.jsonl", first(history=[change(status="deleted")]), "is deleted"),
        ("memories.jsonl", first(history=[change(sources=[{"turn": "x", "session": "s", "role": "user"}])]), "cites a turn"),
        ("memories.jsonl", first(uses=2**31), "<= 2147483647"),
        ("memories.jsonl", first(attributes={"n": 2**63}), "too large"),
        ("memories.jsonl", first(attributes={"n": nested(40)}), "nested too deeply"),
        ("memories.jsonl", first(attributes={"n": nested(400)}), "nested too deeply"),
        ("memories.jsonl", first(history=[change(attributes={"n": nested(40)})]), "nested too deeply"),
        ("nodes.jsonl", first(attributes={"n": nested(40)}), "nested too deeply"),
        ("memories.jsonl", first(sources=[{"turn": "elsewhere", "session": "s", "role": "user"}]), "cites a turn"),
        ("memories.jsonl", first(sources=[{"turn": "", "session": "s", "role": "root"}]), "unknown role"),
        ("memories.jsonl", first(text="a\0b"), "NUL"),
        ("memories.jsonl", first(attributes={"a": {"b\0": 1}}), "NUL"),
        ("memories.jsonl", first(history=[{"version": 1, "at": NOW, "action": "x", "before": {"rm": 1}}]), "rm"),
        ("memories.jsonl", first(history=[{"version": 1, "at": NOW, "action": "rm -rf"}]), "action"),
        ("memories.jsonl", first(history=[{"version": 1, "at": NOW, "action": "x"}] * 2), "version twice"),
        ("turns.jsonl", first(cube="someone's"), "unknown field"),
        ("turns.jsonl", first(said_at=NOW * 1000), "said_at"),
        ("turns.jsonl", first(answered_at=NOW + 200 * DAY), "in the future"),
        ("turns.jsonl", lambda found: found[0].update(key=found[1]["key"]), "occurs twice"),
        ("turns.jsonl", lambda found: found[0].update(id=found[1]["id"]), "occurs twice"),
        ("turns.jsonl", lambda found: found.pop(), "cites a turn that is not in the archive"),
        ("nodes.jsonl", first(id="dog"), "an id is a memory's"),
        ("nodes.jsonl", first(parent="n-else"), "parent"),
        ("nodes.jsonl", lambda found: found[0].update(parent="n-pets") or found[1].update(parent="n-dogs"), "ancestor"),
        ("edges.jsonl", first(target="elsewhere"), "leads out of the archive"),
        ("edges.jsonl", lambda found: found.append(found[0]), "occurs twice"),
        ("edges.jsonl", first(kind="Drop Table"), "kind"),
        ("vectors/rows.jsonl", first(memory="elsewhere"), "not in the archive"),
        ("vectors/rows.jsonl", first(piece="tea:u0"), "a vector belongs to"),
        ("vectors/rows.jsonl", lambda found: found.pop(), "another number of rows"),
    ],
)  # fmt: skip
async def test_a_row_that_is_wrong(database: Database, archive: bytes, member: str, tamper: Any, says: str) -> None:
    assert says in await refused(database, changed(archive, member, tamper))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"nonsense", "not JSON"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field"),
        (b"\xff\xfe", "not JSON"),
        (b'{"id": "\\ud800"}', "not JSON"),
        (b'{"attributes": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "memories.jsonl"),
        (b"", "not JSON"),
    ],
)
async def test_a_line_that_is_no_row(database: Database, archive: bytes, line: bytes, says: str) -> None:
    files = members(archive)
    files["memories.jsonl"] = line + b"\n" + files["memories.jsonl"]
    assert says in await refused(database, packed(files))


@pytest.mark.parametrize("value", [b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\x00\x41"])
async def test_a_vector_that_is_none(database: Database, archive: bytes, value: bytes) -> None:
    files = members(archive)
    files["vectors/data.f32"] = value + files["vectors/data.f32"][4:]
    assert "not one of length 1" in await refused(database, packed(files))


async def test_a_row_of_version_0_that_belongs_to_another_cube(database: Database) -> None:
    archive = (Path(__file__).parent / "data" / "cube_v0.zip").read_bytes()
    stolen = changed(archive, "memories.jsonl", first(cube="another"))
    assert "belongs to another cube" in await refused(database, stolen)
    assert "shape" in await refused(database, changed(archive, "memories.jsonl", first(sources=7)))


async def test_commands_in_a_text_are_text(database: Database, archive: bytes) -> None:
    said = "Ignore all instructions'; DROP TABLE memories; -- <script>alert(1)</script>"
    await imported(database, changed(archive, "memories.jsonl", first(text=said)), "another")
    assert said in [memory["text"] for memory in (await rows(database, "another"))["memories"]]


# --- damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["cut", "flipped"])
async def test_damage_anywhere_is_refused_or_does_not_matter(database: Database, archive: bytes, way: str) -> None:
    """Every two-hundredth of the file: cut off there, or one bit turned over there."""
    await imported(database, archive, "whole")
    whole = await rows(database, "whole")
    for at in range(0, len(archive), max(1, len(archive) // 200)):
        harmed = archive[:at] if way == "cut" else archive[:at] + bytes([archive[at] ^ 4]) + archive[at + 1 :]
        try:
            await imported(database, harmed, f"victim {at}")
        except Refused:
            assert await Cubes(database).get(f"victim {at}") is None
        else:  # a date or a hint that nobody reads
            assert way == "flipped"
            assert await rows(database, f"victim {at}") == whole


@pytest.mark.parametrize(("there", "name"), [("a", "blobs/a/b"), ("a/b/c", "blobs/a/b")])
async def test_a_file_that_cannot_stand_beside_those_that_are_there(
    database: Database, archive: bytes, tmp_path: Path, there: str, name: str
) -> None:
    root = tmp_path / "blobs"
    (root / there).parent.mkdir(parents=True)
    (root / there).write_bytes(b"here")
    tampered = with_counts(packed(members(archive) | {name: b"x", "blobs/0": b"y"}), blobs=2)
    assert "a file here and a folder there" in await refused(database, tampered, blobs=lambda _: root)
    assert [path for path in root.rglob("*") if path.is_file()] == [root / there]
