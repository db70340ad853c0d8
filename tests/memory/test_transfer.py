"""A cube goes into an archive and comes out of it the same, wherever that is."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from memory import memories, sql
from memory.cube import Cubes
from memory.memories import Memories
from memory.sql import Database
from memory.transfer import Imported, Refused
from memory.transfer.format import Before, EdgeRow, MemoryRow, NodeRow, TurnRow, VectorRow
from memory.types import Trust, stable_id
from proxy import db
from proxy.config import Config
from tests.memory.archives import DAY, changed, exported, furnish, imported, members, rows
from tests.memory.make import CUBE, NOW, OWNER, learned_from, memory, put, record, turn


@pytest.fixture
async def elsewhere(tmp_path: Path):  # type: ignore[no-untyped-def]
    """The database of another installation."""
    config = Config(data=str(tmp_path / "elsewhere"))
    db.upgrade(config)
    database = db.open_database(config)
    yield database
    await database.close()


@pytest.mark.parametrize("cube", [CUBE, "another"])
async def test_everything_comes_out_as_it_went_in(
    database: Database, elsewhere: Database, tmp_path: Path, cube: str
) -> None:
    await furnish(database)
    archive = await exported(database, tmp_path)
    assert await imported(elsewhere, archive, cube) == Imported(turns=2, memories=9, waiting=2)
    assert await rows(elsewhere, cube) == await rows(database)
    info = await Cubes(elsewhere).get(cube)
    assert info is not None
    assert (info.owner, info.rev > 0) == (OWNER, True)


async def test_a_second_import_changes_nothing(database: Database, elsewhere: Database, tmp_path: Path) -> None:
    await furnish(database)
    archive = await exported(database, tmp_path)
    await imported(elsewhere, archive)
    before = await rows(elsewhere), await Cubes(elsewhere).get(CUBE)
    assert await imported(elsewhere, archive) == Imported(skipped=11, waiting=2)
    assert (await rows(elsewhere), await Cubes(elsewhere).get(CUBE)) == before
    assert await imported(database, archive) == Imported(skipped=11, waiting=2)


async def test_the_same_content_gives_the_same_bytes(database: Database, elsewhere: Database, tmp_path: Path) -> None:
    await furnish(database)
    archive = await exported(database, tmp_path)
    assert await exported(database, tmp_path) == archive
    await imported(elsewhere, archive)
    again = members(await exported(elsewhere, tmp_path))
    assert {n: again[n] for n in again if n != "manifest.json"} == {
        n: data for n, data in members(archive).items() if n != "manifest.json"
    }


async def test_the_manifest_comes_first_and_names_no_principal(database: Database, tmp_path: Path) -> None:
    await furnish(database)
    archive = await exported(database, tmp_path)
    files = members(archive)
    assert next(iter(files)) == "manifest.json"
    manifest = json.loads(files["manifest.json"])
    assert manifest["counts"] == {"turns": 2, "memories": 9, "nodes": 2, "edges": 1, "vectors": 0, "blobs": 0}
    assert not [name for name, data in files.items() if OWNER.encode() in data]


async def test_what_is_erased_is_not_exported(database: Database, tmp_path: Path) -> None:
    await furnish(database)
    await Memories(database).forget(CUBE, "dog")
    archive = await exported(database, tmp_path)
    assert not [name for name, data in members(archive).items() if b"Rex" in data]
    assert b'"n-dogs"' not in members(archive)["nodes.jsonl"]  # its name may hold words of what was erased
    assert b'"n-pets"' in members(archive)["nodes.jsonl"]
    assert members(archive)["edges.jsonl"] == b""


async def test_what_cites_something_erased_is_exported_without_that(
    database: Database, elsewhere: Database, tmp_path: Path
) -> None:
    gone, kept = [await record(database, turn()) for _ in range(2)]
    for text in ("Has a dog.", "Has a big dog."):
        await put(database, memory(id="m", text=text, sources=learned_from(gone, kept), supersedes=None))
    await Memories(database).forget(CUBE, stable_id(gone.id, "episode"))
    await imported(elsewhere, await exported(database, tmp_path))
    found = await Memories(elsewhere).get(CUBE, "m")
    assert found is not None
    assert [source.turn for source in found.sources] == [kept.id]
    assert gone.id not in str((await rows(elsewhere))["history"])


async def test_a_change_can_be_undone_elsewhere(database: Database, elsewhere: Database, tmp_path: Path) -> None:
    await furnish(database)
    await imported(elsewhere, await exported(database, tmp_path))
    undone = await Memories(elsewhere).undo(CUBE, "dog")
    assert undone is not None
    assert undone[0].text == "The dog is called Rex."


async def test_a_cube_that_was_never_written_to_gives_an_empty_archive(database: Database, tmp_path: Path) -> None:
    archive = await exported(database, tmp_path)
    assert await imported(database, archive) == Imported()


async def test_no_file_stays_behind(database: Database, tmp_path: Path) -> None:
    await furnish(database)
    await exported(database, tmp_path / "spool")
    assert list((tmp_path / "spool").iterdir()) == []


async def test_whatever_can_be_stored_can_be_exported_and_imported(
    database: Database, elsewhere: Database, tmp_path: Path
) -> None:
    deep: object = 1
    for _ in range(300):
        deep = [deep]
    odd = memory(
        id="odd",
        text="nul \x00 and half \ud83d",
        attributes={"huge": 10**40, "deep": deep, "a\x00b": [-(2**63), 2**63 - 1, 1e-320]},
        event_time=-253_402_300_799.0,
        event_end=253_402_300_799.0,
        tags=("\u2028", ""),
        confidence=0.0,
    )
    await put_first(database, odd.evolve(text=odd.text.replace("\ud83d", "?")))
    assert (await imported(elsewhere, await exported(database, tmp_path))).memories == 1
    found = await Memories(elsewhere).get(CUBE, "odd")
    assert found is not None
    assert (found.text, found.tags, found.event_time) == ("nul  and half ?", odd.tags, odd.event_time)
    assert (found.attributes or {})["huge"] == "1" + "0" * 40
    assert (found.attributes or {})["ab"] == [-(2**63), 2**63 - 1, 1e-320]


# --- two versions of one memory -------------------------------------------------------------------------------------------


async def test_the_version_that_changed_last_stands(database: Database, elsewhere: Database, tmp_path: Path) -> None:
    await furnish(database)
    archive = await exported(database, tmp_path)
    await imported(elsewhere, archive)
    await Memories(elsewhere, lambda: NOW + 5 * DAY).change(CUBE, "tea", {"text": "Prefers green tea."})
    assert (await imported(elsewhere, archive)).merged == 0
    await Memories(database, lambda: NOW + 6 * DAY).change(CUBE, "tea", {"text": "Prefers coffee."})
    newer = await exported(database, tmp_path)
    assert await imported(elsewhere, newer) == Imported(merged=1, skipped=10, waiting=2)
    found = await Memories(elsewhere).get(CUBE, "tea")
    assert found is not None
    assert found.text == "Prefers coffee."
    texts = [change.before["text"] for change in await Memories(elsewhere).history(CUBE, "tea")]
    assert texts == ["Prefers tea.", "Prefers green tea."]
    assert await imported(elsewhere, newer) == Imported(skipped=11, waiting=2)


async def test_use_is_not_a_change(database: Database, tmp_path: Path) -> None:
    await furnish(database)
    archive = await exported(database, tmp_path)
    await Memories(database).used(CUBE, {"dog": 1}, NOW)
    assert (await imported(database, archive)).merged == 0


async def test_another_turn_with_the_same_key_keeps_its_words(
    database: Database, elsewhere: Database, tmp_path: Path
) -> None:
    await record(database, turn(key="k", user_text="from one machine"))
    await record(elsewhere, turn(key="k", user_text="from the other"))
    assert (await imported(elsewhere, await exported(database, tmp_path))).turns == 1
    assert {row["user_text"] for row in (await rows(elsewhere))["turns"]} == {"from one machine", "from the other"}


@pytest.mark.parametrize(("erased", "texts"), [("restore", ["Prefers tea."]), ("keep", [])])
async def test_what_was_erased_comes_back_unless_it_shall_not(
    database: Database, tmp_path: Path, erased: str, texts: list[str]
) -> None:
    await put_first(database, memory(id="tea", text="Prefers tea."))
    archive = await exported(database, tmp_path)
    await Memories(database).forget(CUBE, "tea")
    done = await imported(database, archive, erased=erased)
    assert done == (Imported(restored=1) if texts else Imported(skipped=1))
    assert [m.text for m in await Memories(database).page(CUBE)] == texts


async def test_an_erased_turn_stays_erased_on_request(database: Database, tmp_path: Path) -> None:
    said = await record(database, turn(user_text="My dog is called Rex."))
    archive = await exported(database, tmp_path)
    await Memories(database).forget(CUBE, stable_id(said.id, "episode"))
    assert await imported(database, archive, erased="keep") == Imported(skipped=2)
    assert (await rows(database))["turns"] == []
    assert await imported(database, archive) == Imported(turns=1, restored=1, waiting=1)


# --- nothing gets better by travelling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("trust", list(Trust))
async def test_trust_travels_as_it_is(database: Database, elsewhere: Database, tmp_path: Path, trust: Trust) -> None:
    await put_first(database, memory(id="m", trust=trust))
    await imported(elsewhere, await exported(database, tmp_path))
    found = await Memories(elsewhere).get(CUBE, "m")
    assert found is not None
    assert found.trust is trust


async def test_an_import_cannot_raise_the_trust_of_what_is_here(database: Database, tmp_path: Path) -> None:
    await put_first(database, memory(id="m", text="Buy gold.", trust=Trust.OUTSIDE))
    archive = await exported(database, tmp_path)

    def raise_trust(found: list[dict[str, object]]) -> None:
        found[0] |= {"trust": "user", "text": "Buy more gold.", "created_at": NOW + DAY}

    assert (await imported(database, changed(archive, "memories.jsonl", raise_trust))).merged == 1
    found = await Memories(database).get(CUBE, "m")
    assert found is not None
    assert (found.text, found.trust) == ("Buy more gold.", Trust.OUTSIDE)


async def test_what_only_the_assistant_said_is_not_the_users_word(database: Database, tmp_path: Path) -> None:
    said = await record(database, turn())
    await put(database, memory(id="m", trust=Trust.USER))
    archive = await exported(database, tmp_path)

    def by_the_assistant(found: list[dict[str, object]]) -> None:
        for row in found:
            if row["id"] == "m":
                row["sources"] = [{"turn": said.id, "session": said.session, "role": "assistant"}]

    await imported(database, changed(archive, "memories.jsonl", by_the_assistant), "another")
    found = await Memories(database).get("another", "m")
    assert found is not None
    assert found.trust is Trust.ACCEPTED


async def test_secrets_are_taken_out_of_every_text(database: Database, tmp_path: Path) -> None:
    secret = "sk-" + "a1b2c3d4" * 4
    await furnish(database)
    archive = await exported(database, tmp_path)

    def slip_in(found: list[dict[str, object]]) -> None:
        for row in found:
            row["text"] = f"{row['text']} {secret}"
            row |= {"entities": [secret], "tags": [secret], "attributes": {"note": [secret]}}
            for change in row["history"]:  # type: ignore[attr-defined]
                change["before"]["text"] = secret

    tampered = changed(archive, "memories.jsonl", slip_in)
    tampered = changed(tampered, "turns.jsonl", lambda found: [row.update(user_text=secret) for row in found])
    await imported(database, tampered, "another")
    assert secret not in str(await rows(database, "another"))
    assert (await imported(database, tampered, "another")).merged == 0


# --- the format follows the tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "table", "left_out", "more"),
    [
        (TurnRow, sql.turns, {"cube"}, set()),
        (MemoryRow, sql.memories, {"cube", "digest", "rev"}, {"history"}),
        (NodeRow, sql.nodes, {"cube"}, set()),
        (EdgeRow, sql.edges, {"cube"}, set()),
        (VectorRow, sql.vectors, {"cube", "embedder", "vector"}, set()),
    ],
)
def test_every_column_travels(kind: type[msgspec.Struct], table, left_out: set[str], more: set[str]) -> None:  # type: ignore[no-untyped-def]
    assert set(kind.__struct_fields__) - more == set(table.c.keys()) - left_out


def test_every_field_of_the_history_travels() -> None:
    assert set(memories._KEPT) <= set(Before.__struct_fields__)


# --- the other forms ------------------------------------------------------------------------------------------------------


async def test_the_other_forms_files_are_carried(database: Database, elsewhere: Database, tmp_path: Path) -> None:
    await furnish(database)
    here, there = tmp_path / "blobs", tmp_path / "there"
    (here / "kv").mkdir(parents=True)
    (here / "kv" / "state.bin").write_bytes(b"\x00\x01" * 1000)
    (here / "kv" / "link").symlink_to("/etc/passwd")
    archive = await exported(database, tmp_path, blobs=lambda _: here)
    assert [name for name in members(archive) if name.startswith("blobs")] == ["blobs/kv/state.bin"]
    await imported(elsewhere, archive, blobs=lambda _: there)
    assert (there / "kv" / "state.bin").read_bytes() == b"\x00\x01" * 1000
    assert [path.name for path in there.rglob("*")] == ["kv", "state.bin"]


# --- versions -------------------------------------------------------------------------------------------------------------


async def test_an_archive_of_version_0_is_read(database: Database) -> None:
    archive = (Path(__file__).parent / "data" / "cube_v0.zip").read_bytes()
    assert await imported(database, archive) == Imported(turns=2, memories=4)
    found = {m.id: m for m in await Memories(database).page(CUBE, statuses=())}
    assert found["m1"].sources[0].turn == "t1"
    assert (found["m2"].supersedes, found["m1"].status) == ("m1", "superseded")
    assert found["m2"].pinned is True


async def test_a_newer_archive_is_refused_and_says_what_to_do(database: Database, tmp_path: Path) -> None:
    from tests.memory.archives import with_manifest

    await furnish(database)
    archive = with_manifest(await exported(database, tmp_path), version=7, another="field")
    with pytest.raises(Refused, match=r"version 7.* reads up to 1: update memrelay"):
        await imported(database, archive)


async def put_first(database: Database, made) -> None:  # type: ignore[no-untyped-def]
    await Memories(database, lambda: NOW).add(made, OWNER)
