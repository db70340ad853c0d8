"""What the jobs do: learn, index, erase, rebuild; and the sweep that finds work nobody announced."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from memory.cube import Cubes
from memory.erase import Receipts, everything
from memory.index import Index
from memory.memories import Memories
from memory.models import Embedder
from memory.organise import Organiser
from memory.reflect import Policy, Reflector
from memory.sql import Database
from memory.store import Store
from memory.turns import TurnLog
from memory.types import Status
from proxy import db
from proxy.blocks import Blocks, Recalled
from proxy.kept import Kept, Responses, erase
from proxy.tasks import StillHeld, Sweep, Work
from scheduler.jobs import Job
from scheduler.policy import DAY_S
from scheduler.triggers import built_in_tasks
from tests.memory.make import CUBE, NOW, OWNER, memory, record, turn
from tests.scheduler.test_triggers import Slip


@pytest.fixture
def work(database: Database, store: Store, embedder: Embedder) -> Work:
    return Work(
        database=database,
        cubes=Cubes(database),
        receipts=Receipts(database),
        turns=TurnLog(database),
        organiser=Organiser(database, embedder),
        index=Index(database, store, embedder),
        store=store,
        extractor=None,
        batch=2,
        clock=lambda: NOW,
        reflector=Reflector(database, embedder, clock=lambda: NOW),
    )


def tasks(slip: Slip) -> list[tuple[str, str]]:
    return sorted((task, cube) for task, cube, *_ in slip.put_in)


def scan(data: Path, word: bytes) -> bool:
    return any(word in file.read_bytes() for file in data.rglob("*") if file.is_file() and "models" not in file.parts)


async def test_learning_takes_every_turn_that_waits_and_indexes(work: Work, database: Database) -> None:
    for text in ("My name is Ann.", "I live in Oslo.", "Hello!", "I am allergic to nuts.", "Thanks."):
        await record(database, turn(user_text=text))
    done = await work.learn(CUBE, {})
    assert (done["turns"], done["extraction"]) == (5, "rules")
    assert done["added"] >= 2
    assert await work.turns.waiting() == []
    assert await work.index.verify(CUBE) is None


async def test_the_tasks_are_those_that_triggers_know_by_name(work: Work) -> None:
    assert {task.name for task in work.tasks(1)} | {"predict", "activate"} == built_in_tasks()


async def test_learning_again_changes_nothing(work: Work, database: Database) -> None:
    await record(database, turn(user_text="My name is Ann."))
    await work.learn(CUBE, {})
    before = await Memories(database).since(CUBE, 0)
    done = await work.learn(CUBE, {})
    assert (done["turns"], done["added"]) == (0, 0)
    assert await Memories(database).since(CUBE, 0) == before


async def test_blame_in_a_chat_lowers_what_was_shown_for_the_answer_before(work: Work, database: Database) -> None:
    shown, other = memory(), memory()
    for one in (shown, other):
        await Memories(database).add(one, OWNER)
    asked = await record(database, turn(said_at=NOW, answered_at=NOW + 2))
    tasks: list[Any] = []
    blocks = Blocks(database, tasks.append)
    blocks.keep(CUBE, Recalled("anchor", asked.session, NOW + 1, "block", (shown.id,)))
    await tasks[0]
    await record(database, turn(user_text="That's wrong, it is not.", said_at=NOW + 60))
    assert (await work.learn(CUBE, {}))["judged"] == 1
    after = await Memories(database).by_ids(CUBE, [shown.id, other.id])
    assert after[shown.id].confidence < after[other.id].confidence == 1.0


async def test_erasing_leaves_no_byte_of_what_was_said(work: Work, database: Database, data: Path) -> None:
    await record(database, turn(user_text="I live in Zanzibar."))
    await record(database, turn(user_text="I like tea."))
    await work.learn(CUBE, {})
    assert scan(data, b"Zanzibar")
    memories = Memories(database)
    for one in await memories.page(CUBE):
        if "Zanzibar" in one.text:
            await memories.forget(CUBE, one.id)
    assert (await work.erase(CUBE, {}))["vacuumed"] is True
    assert not scan(data, b"Zanzibar")
    assert scan(data, b"I like tea")


async def test_wiping_a_cube_leaves_no_byte_of_it_and_signs_the_receipt(
    work: Work, database: Database, data: Path
) -> None:
    for cube, text in ((CUBE, "I live in Zanzibar."), ("other", "I like tea.")):
        await record(database, turn(cube=cube, user_text=text))
        await work.learn(cube, {})
    tables = data / "lance"
    before = {file for file in tables.rglob("*") if file.is_file()}
    assert any(b"Zanzibar" in file.read_bytes() for file in before)
    receipt = await database.write(lambda c: everything(c, CUBE, OWNER, NOW, keep=True))
    assert await work.wipe(CUBE, {}) == {"tables": 1, "receipts": 1, "states": 0, "vacuumed": True}
    assert not scan(data, b"Zanzibar")
    left = {file for file in tables.rglob("*") if file.is_file()}
    assert left < before  # full-text tokens cannot be found by a scan: the files themselves must be gone
    assert all("other_g1.lance" in file.parts for file in left)
    assert scan(data, b"I like tea")
    signed = await work.receipts.get(receipt.id)
    assert signed is not None
    assert signed.state == "done"


async def test_a_kept_response_leaves_no_byte_with_its_turn_and_none_after_its_time(
    work: Work, database: Database, data: Path
) -> None:
    now = [NOW]
    responses = Responses(database, 30 * DAY_S, lambda: now[0])
    said = turn(user_text="I live in Zanzibar.")
    await record(database, said)
    base = Kept(
        "resp_1", OWNER, CUBE, said.session, said.key, "req", "", NOW, [{"content": "Zanzibar"}], {"id": "resp_1"}
    )
    await responses.keep(base, NOW)
    await responses.keep(replace(base, id="resp_2", turn="", input=[{"content": "Tangier"}]), NOW)
    (episode,) = [one.id for one in await Memories(database).since(CUBE, 0)]
    await Memories(database).forget(CUBE, episode, beside=partial(erase, cube=CUBE))
    await work.erase(CUBE, {})
    assert (scan(data, b"Zanzibar"), scan(data, b"Tangier")) == (False, True)
    sweep = Sweep(replace(work, clock=lambda: now[0]), Slip(), keep_responses_s=30 * DAY_S)
    await sweep()
    assert await responses.get(OWNER, "resp_2") is not None
    now[0] += 31 * DAY_S
    await sweep()
    async with database.read() as connection:
        assert (await connection.execute(sa.select(db.responses.c.id))).all() == []


async def test_no_receipt_is_signed_before_the_files_are_gone(work: Work, database: Database, tmp_path: Path) -> None:
    root = tmp_path / "cubes"
    work = replace(work, files=root)
    await record(database, turn())
    receipt = await database.write(lambda c: everything(c, CUBE, OWNER, NOW, keep=True))
    root.write_bytes(b"no folder, so nothing can be removed")
    with pytest.raises(OSError):
        await work.wipe(CUBE, {})
    assert [one.id for one in await work.receipts.pending(CUBE)] == [receipt.id]
    root.unlink()
    (root / CUBE / "blobs").mkdir(parents=True)
    (root / CUBE / "blobs" / "note").write_bytes(b"words")
    await work.wipe(CUBE, {})
    assert list(root.iterdir()) == []
    assert await work.receipts.pending(CUBE) == []


async def test_what_was_said_after_an_erasure_is_indexed(work: Work, database: Database) -> None:
    for text in ("I live in Zanzibar.", "I like tea."):
        await database.write(lambda c: everything(c, CUBE, OWNER, NOW, keep=True))
        await record(database, turn(user_text=text))
        await work.wipe(CUBE, {})
    assert await work.index.verify(CUBE) is None
    assert {m.text for m in await Memories(database).since(CUBE, 0)} == {"I like tea."}


async def test_a_fusion_by_a_job_asks_again_who_may(work: Work, database: Database) -> None:
    for cube in ("target", "source"):
        await record(database, turn(cube=cube, user_text=f"I live in the {cube}."))
    asked = {"from": "source", "archive": "yes"}
    assert await work.fuse("target", {**asked, "principal": "guest"}) == {"action": "refused", "reason": "unknown"}
    assert (await work.fuse("target", {**asked, "principal": OWNER}))["memories"] == 1
    assert await work.index.verify("target") is None
    assert {cube.id: cube.status for cube in await work.cubes.every()} == {"target": "active", "source": "archived"}


async def test_closing_a_cube_drops_its_table_and_restoring_builds_it_again(
    work: Work, database: Database, data: Path
) -> None:
    await record(database, turn(user_text="I like tea."))
    await work.learn(CUBE, {})
    assert await work.close(CUBE, {}) == {"action": "nothing"}
    await work.cubes.change(CUBE, {"status": "archived"})
    assert await work.close(CUBE, {}) == {"action": "closed", "tables": 1}
    assert not [file for file in (data / "lance").rglob("*") if file.is_file()]
    for task in (work.bring_index_up, work.learn, work.rebuild):
        await task(CUBE, {})
    assert not [file for file in (data / "lance").rglob("*") if file.is_file()]
    await work.cubes.change(CUBE, {"status": "active"})
    assert (await work.bring_index_up(CUBE, {}))["action"] == "rebuilt"
    assert await work.index.verify(CUBE) is None


async def test_the_sweep_finds_cubes_to_wipe_to_close_and_to_trim(work: Work, database: Database) -> None:
    for cube in ("wipe", "close", "trim"):
        await Memories(database).add(memory(cube=cube), OWNER)
        await Memories(database).add(memory(cube=cube), OWNER)
        await work.bring_index_up(cube, {})
    await database.write(lambda c: everything(c, "wipe", OWNER, NOW, keep=False))
    await work.cubes.change("close", {"status": "archived"})
    await work.cubes.change("trim", {"quota": 1})
    slip = Slip()
    await Sweep(work, slip)()
    assert {task for task in tasks(slip) if task[0] != "rebuild"} == {
        ("wipe", "wipe"),
        ("close", "close"),
        ("trim", "trim"),
    }
    for task, cube in tasks(slip):
        run: Any = next(t.run for t in work.tasks(1) if t.name == task)
        await run(cube, {})
    again = Slip()
    await Sweep(work, again)()
    assert [task for task in tasks(again) if task[0] != "rebuild"] == []


async def test_an_erasure_that_a_reader_held_up_is_not_called_done(work: Work, database: Database) -> None:
    await record(database, turn())
    hurried = Database(database.url, busy_timeout_s=0.05)
    held_up = Work(hurried, work.cubes, work.receipts, work.turns, work.organiser, work.index, work.store, None, 2)
    async with database.read() as connection:
        await connection.exec_driver_sql("SELECT * FROM turns")
        await record(database, turn())
        with pytest.raises(StillHeld):
            await held_up.erase(CUBE, {})
    assert (await held_up.erase(CUBE, {}))["vacuumed"] is True
    await hurried.close()


async def test_a_sound_index_is_not_rebuilt_without_force(work: Work, database: Database) -> None:
    await Memories(database).add(memory(), OWNER)
    assert await work.bring_index_up(CUBE, {}) == {"action": "rebuilt", "pieces": 1}
    assert await work.rebuild(CUBE, {}) == {"action": "nothing"}
    assert await work.rebuild(CUBE, {"force": "yes"}) == {"action": "rebuilt", "pieces": 1}


async def test_a_wrong_index_is_rebuilt(work: Work, database: Database, store: Store) -> None:
    kept = await Memories(database).add(memory(), OWNER)
    await work.bring_index_up(CUBE, {})
    await store.put(CUBE, 1, [kept.id], [])
    assert await work.rebuild(CUBE, {}) == {"action": "rebuilt", "pieces": 1}
    assert await work.index.verify(CUBE) is None


@pytest.mark.parametrize("task", ["learn", "reflect", "index", "erase", "rebuild", "close", "trim", "wipe"])
async def test_a_job_for_a_cube_that_is_gone_does_no_harm(work: Work, task: str) -> None:
    run: Any = next(t.run for t in work.tasks(1) if t.name == task)
    await run("nobody's", {})


async def test_the_sweep_finds_what_nobody_announced(work: Work, database: Database) -> None:
    slip = Slip()
    sweep = Sweep(work, slip)
    await record(database, turn(cube="said"))
    await Memories(database).add(memory(cube="written"), OWNER)
    await Memories(database).add(memory(cube="indexed"), OWNER)
    await work.bring_index_up("indexed", {})
    await sweep()
    assert tasks(slip) == [("index", "written"), ("learn", "said"), ("rebuild", "indexed")]


async def test_the_sweep_tries_more_and_more_seldom_what_does_not_go_away(work: Work, database: Database) -> None:
    now = [1000.0]
    slip = Slip()
    sweep = Sweep(replace(work, clock=lambda: now[0]), slip)
    await record(database, turn(cube="said"))
    for second in range(100):
        now[0] = 1000.0 + second
        await sweep()
    assert len(tasks(slip)) == 5  # at once, then after 5, 10, 20 and 40 seconds


async def test_the_sweep_verifies_after_the_queue_is_back(work: Work, database: Database) -> None:
    await Memories(database).add(memory(), OWNER)
    await work.bring_index_up(CUBE, {})
    slip = Slip(refuses="rebuild")
    sweep = Sweep(work, slip)
    await sweep()
    slip.refuses = ""
    await sweep()
    assert tasks(slip) == [("rebuild", CUBE)]


class Reflecting(Slip):
    """A queue in which a cube is being thought over."""

    async def jobs(
        self,
        cube: str | None = None,
        *,
        states: tuple[str, ...] = (),
        task: str | None = None,
        limit: int = 50,
        after: str = "",
    ) -> list[Job]:
        begun = Job("c:reflect:8.1", "reflect", CUBE, "running", 8, NOW, NOW, {})
        return [begun] if cube == CUBE and task == "reflect" and "running" in states else []


@pytest.mark.parametrize("busy", [False, True])
async def test_one_silence_is_thought_over_once(work: Work, database: Database, busy: bool) -> None:
    await Memories(database).add(memory(), OWNER)
    await work.bring_index_up(CUBE, {})
    queue = Reflecting() if busy else Slip()
    sweep = Sweep(work, queue)
    await sweep()  # looks for damage
    await sweep()
    assert (("reflect", CUBE) in tasks(queue)) is not busy


async def test_a_cube_is_thought_over_when_it_has_gone_quiet(work: Work, database: Database) -> None:
    now = [NOW]
    slip = Slip()
    sweep = Sweep(replace(work, clock=lambda: now[0]), slip)
    await record(database, turn())
    await work.learn(CUBE, {})
    await sweep()
    slip.put_in.clear()
    now[0] += 30
    await sweep()
    assert tasks(slip) == []
    now[0] += 60
    await sweep()
    assert tasks(slip) == [("reflect", CUBE)]
    await work.reflect(CUBE, {})
    slip.put_in.clear()
    now[0] += 3600
    await sweep()
    assert tasks(slip) == []


async def test_where_memories_fade_every_cube_is_looked_at_once_a_day(
    work: Work, database: Database, embedder: Embedder
) -> None:
    now = [NOW + 9000]
    slip = Slip()
    fading = Reflector(database, embedder, policy=Policy(weak_after_s=1.0))
    sweep = Sweep(replace(work, clock=lambda: now[0], reflector=fading), slip)
    await Memories(database).add(memory(), OWNER)
    await work.reflect(CUBE, {})
    await sweep()
    slip.put_in.clear()
    for hours in (12, 13, 25):
        now[0] = NOW + 9000 + hours * 3600
        await sweep()
    assert tasks(slip) == [("reflect", CUBE)]


async def test_what_faded_comes_back_when_a_question_found_nothing(work: Work, database: Database) -> None:
    asleep = memory(text="The bike shop closes early on Sunday.", status=Status.ARCHIVED)
    await Memories(database).add(asleep, OWNER)
    await record(database, turn(user_text="When does the bike shop close on Sunday?"))
    assert (await work.learn(CUBE, {}))["woken"] == 1
    back = await Memories(database).get(CUBE, asleep.id)
    assert back is not None
    assert back.status is Status.ACTIVE
    assert await work.index.verify(CUBE) is None
