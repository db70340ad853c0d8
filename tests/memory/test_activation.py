"""Saved states: files that are checked before they are used, two tiers under budgets, cubes that forget."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory.activation import container, writing
from memory.activation.container import Damaged, Head, read_head, read_payload, sha_of, write
from memory.activation.folder import forget
from memory.activation.states import Budgets, Held, Origin
from memory.activation.store import States

COMPAT = {"model": "m1", "template": "t1", "rope": [0, 1.0]}
MIB = 2**20


def payload(size: int = 5 * MIB, seed: int = 1) -> Any:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def head(**overrides: Any) -> Head:
    said = {"cube": "c1", "epoch": "e", "sort": "prefix", "session": "", "adapter": "", "compat": COMPAT, "count": 3}
    return Head(
        **said | {"tokens_sha": sha_of(np.arange(3, dtype=np.int32)), "size": 5 * MIB, "created": 1.0} | overrides
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[States]:
    store = opened(tmp_path)
    yield store
    store.close()


def opened(root: Path, *, ram: int = 64 * MIB, disk: int = 64 * MIB, **compat: Any) -> States:
    store = States(root, Budgets(ram, disk), settle_s=0.0)
    store.open(COMPAT | compat)
    return store


def put(store: States, tokens: range = range(100), cube: str = "c1", size: int = MIB, **origin: Any) -> Held | None:
    said: dict[str, Any] = {"sort": "prefix"} | origin
    held = store.put(Origin(cube, store.epoch(cube), **said), list(tokens), payload(size, len(tokens)), at_once=True)
    store.flush()
    return held


def found(store: States, tokens: range = range(200), cube: str = "c1", adapter: str = "", **how: Any) -> int:
    """How many of the tokens a state has that can really be had."""
    one = store.best(cube, adapter, store.epoch(cube), list(tokens), **how)
    return one.tokens if one and store.load(one.state) is not None else 0


def file_of(store: States, cube: str = "c1") -> Path:
    return next((store.root / cube).glob("*.kv"))


def test_file_gives_back_what_was_written(tmp_path: Path) -> None:
    tokens, given = np.arange(3, dtype=np.int32), payload()
    size = write(tmp_path / "a.kv", head(), tokens, given)
    read, told = read_head(tmp_path / "a.kv")
    assert (read.cube, read.compat, told.tolist()) == ("c1", COMPAT, [0, 1, 2])
    assert (read_payload(tmp_path / "a.kv", read) == given).all()
    assert ((tmp_path / "a.kv").stat().st_size, (tmp_path / "a.kv").stat().st_mode & 0o777) == (size, 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["a.kv"]


@pytest.mark.parametrize("kept", [0, 7, 56, 80, 900, 3 * MIB, 5 * MIB])
def test_truncated_file_is_damaged(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.kv"
    write(path, head(), np.arange(3, dtype=np.int32), payload())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(Damaged, match="truncated"):
        read_head(path)


@pytest.mark.parametrize("at", [0, 17, 21, 30, 60, 300, -5 * MIB - 3, -5 * MIB, -2 * MIB, -1])
def test_one_flipped_bit_is_found_wherever_it_is(tmp_path: Path, at: int) -> None:
    path = tmp_path / "a.kv"
    write(path, head(), np.arange(3, dtype=np.int32), payload())
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    with pytest.raises(Damaged):
        read_payload(path, read_head(path)[0])


def test_header_that_is_well_signed_but_not_ours_is_damaged(tmp_path: Path) -> None:
    path, raw = tmp_path / "a.kv", json.dumps({"cube": "c1"}).encode()
    start = container._START.pack(container.MAGIC, 1, len(raw), container.hashlib.sha256(raw).digest())
    path.write_bytes(start + raw)
    with pytest.raises(Damaged, match="format"):
        read_head(path)


def test_state_is_found_by_its_tokens(store: States) -> None:
    put(store, range(100))
    put(store, range(150))
    assert (found(store, range(200)), found(store, range(120))) == (150, 120)
    assert (found(store, range(120), whole=True), found(store, range(1, 50))) == (100, 0)


def test_state_of_another_cube_or_adapter_is_never_found(store: States) -> None:
    put(store, adapter="a1")
    assert (found(store), found(store, cube="c2"), found(store, adapter="a1")) == (0, 0, 100)


def test_states_are_there_after_a_restart(tmp_path: Path) -> None:
    first = opened(tmp_path)
    put(first, session="s1", sort="session")
    first.close()
    again = opened(tmp_path)
    assert found(again) == 100
    assert again.sums().counts == {"restored_disk": 1}
    assert found(again) == 100
    assert again.sums().counts == {"restored_disk": 1, "restored_ram": 1}
    again.close()


def test_session_has_one_state(store: States) -> None:
    put(store, range(100), sort="session", session="s1")
    put(store, range(50), sort="session", session="s1")
    assert ([held.tokens for held in store.held("c1")], len(list((store.root / "c1").glob("*.kv")))) == ([50], 1)


def edit(path: Path, change: Callable[[bytearray], object]) -> None:
    raw = bytearray(path.read_bytes())
    change(raw)
    path.write_bytes(raw)


def flip(raw: bytearray) -> None:
    raw[-100] ^= 4


@pytest.mark.parametrize("change", [flip, lambda raw: raw.__delitem__(slice(-9, None))])
def test_damage_while_running_is_found_counted_and_removed(
    tmp_path: Path, change: Callable[[bytearray], object]
) -> None:
    store = opened(tmp_path, ram=0)
    put(store)
    edit(file_of(store), change)
    assert found(store) == 0
    assert (sum(store.sums().damaged.values()), store.held(), list((tmp_path / "c1").glob("*.kv"))) == (1, [], [])
    put(store)
    assert found(store) == 100
    store.close()


@pytest.mark.parametrize("name", ["model", "template", "rope", "new"])
def test_file_of_other_settings_is_named_and_removed(tmp_path: Path, name: str) -> None:
    first = opened(tmp_path)
    put(first)
    first.close()
    other = opened(tmp_path, **{name: "other"})
    assert (other.sums().damaged, found(other), list((tmp_path / "c1").glob("*.kv"))) == ({name: 1}, 0, [])
    other.close()


def test_file_of_another_cube_is_named_and_removed(tmp_path: Path) -> None:
    first = opened(tmp_path)
    put(first)
    first.epoch("c2")
    file_of(first).rename(tmp_path / "c2" / file_of(first).name)
    first.close()
    again = opened(tmp_path)
    assert (again.sums().damaged, found(again, cube="c2")) == ({"cube": 1}, 0)
    again.close()


def test_file_under_the_name_of_another_adapters_is_removed(tmp_path: Path) -> None:
    first = opened(tmp_path)
    put(first, adapter="a1")
    a2 = put(first, adapter="a2")
    first.close()
    files = {read_head(path)[0].adapter: path for path in (tmp_path / "c1").glob("*.kv")}
    files["a1"].replace(files["a2"])
    again = opened(tmp_path)
    assert a2 is not None
    assert (again.sums().damaged, found(again, adapter="a2")) == ({"name": 1}, 0)
    again.close()


def test_stranger_of_the_right_name_is_removed_at_the_start(tmp_path: Path) -> None:
    opened(tmp_path).epoch("c1")
    (tmp_path / "c1" / "x.kv").write_bytes(b"not one of ours" * 100)
    again = opened(tmp_path)
    assert (again.sums().damaged, list((tmp_path / "c1").glob("*.kv"))) == ({"format": 1}, [])
    again.close()


def test_ram_budget_is_kept_and_files_stay(tmp_path: Path) -> None:
    store = opened(tmp_path, ram=2 * MIB)
    for cube in ("c1", "c2", "c3"):
        put(store, cube=cube)
    assert (store.sums().ram_bytes, len(list(tmp_path.glob("*/*.kv")))) == (2 * MIB, 3)
    assert [found(store, cube=cube) for cube in ("c1", "c2", "c3")] == [100] * 3
    store.close()


def test_disk_budget_is_kept(tmp_path: Path) -> None:
    store = opened(tmp_path, ram=0, disk=5 * MIB // 2)
    for cube in ("c1", "c2", "c3"):
        put(store, cube=cube)
    assert store.sums().disk_bytes <= 5 * MIB // 2
    assert [found(store, cube=cube) for cube in ("c1", "c2", "c3")] == [0, 100, 100]
    store.close()


def test_what_is_worth_least_leaves_first(tmp_path: Path) -> None:
    store = States(tmp_path, Budgets(0, 5 * MIB // 2), worth=lambda held, _: held.cube == "c1", settle_s=0.0)
    store.open(COMPAT)
    for cube in ("c1", "c2", "c3"):
        put(store, cube=cube)
    assert [found(store, cube=cube) for cube in ("c1", "c2", "c3")] == [100, 0, 100]
    store.close()


def test_what_no_budget_holds_is_not_kept(tmp_path: Path) -> None:
    store = opened(tmp_path, ram=MIB // 2, disk=MIB // 2)
    assert put(store) is None
    assert (found(store), store.held()) == (0, [])
    store.close()


def test_without_room_on_disk_a_state_is_in_ram_only(tmp_path: Path) -> None:
    store = opened(tmp_path, ram=3 * MIB // 2, disk=0)
    put(store, cube="c1")
    put(store, cube="c2")
    assert ([held.cube for held in store.held()], found(store, cube="c2")) == (["c2"], 100)
    store.close()


def test_dropped_cube_has_nothing_left(store: States) -> None:
    put(store)
    put(store, cube="c2")
    epoch = store.epoch("c1")
    assert store.drop("c1") == (1, MIB)
    assert (store.held("c1"), (store.root / "c1").exists(), found(store, cube="c2")) == ([], False, 100)
    late = store.put(Origin("c1", epoch, "prefix"), list(range(9)), payload(MIB))
    assert (late, found(store)) == (None, 0)


def test_folder_removed_by_another_process_is_forgotten_in_ram_too(store: States) -> None:
    put(store)
    assert (forget(store.root, "c1"), found(store), store.held("c1")) == (1, 0, [])
    put(store)
    assert found(store) == 100


def test_file_that_comes_back_from_before_a_forgetting_is_removed(tmp_path: Path) -> None:
    first = opened(tmp_path)
    put(first)
    old, name = file_of(first).read_bytes(), file_of(first).name
    first.drop("c1")
    first.epoch("c1")
    (tmp_path / "c1" / name).write_bytes(old)
    first.close()
    again = opened(tmp_path)
    assert (again.sums().damaged, found(again)) == ({"epoch": 1}, 0)
    again.close()


@pytest.mark.parametrize("name", ["", "..", "a/b", ".gone-1", "x" * 200])
def test_name_that_is_no_folder_of_ours_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError):
        forget(tmp_path, name)


def test_waiting_file_gives_way_to_a_newer_one(tmp_path: Path) -> None:
    store = States(tmp_path, Budgets(), settle_s=3600.0)
    store.open(COMPAT)
    origin = Origin("c1", store.epoch("c1"), "session", "s1")
    for count in (10, 20, 30):
        store.put(origin, list(range(count)), payload(MIB, count))
    assert list((tmp_path / "c1").glob("*.kv")) == []
    store.close()
    assert read_head(file_of(store))[0].count == 30


def test_state_that_is_forgotten_while_it_is_written_leaves_no_file(
    store: States, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go, whole = threading.Event(), threading.Event(), writing.write

    def slow(*given: Any) -> int:
        inside.set()
        assert go.wait(20)
        return whole(*given)

    monkeypatch.setattr(writing, "write", slow)
    store.put(Origin("c1", store.epoch("c1"), "session", "s"), list(range(9)), payload(MIB), at_once=True)
    assert inside.wait(20)
    store.drop("c1")
    store.epoch("c1")  # its next chat
    go.set()
    store.flush()
    assert not [*store.root.rglob("*.kv")]


def test_disk_that_fails_once_keeps_nothing_in_memory_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "read-only")

    store = opened(tmp_path, ram=2 * MIB)
    with monkeypatch.context() as patched:
        patched.setattr(writing, "write", broken)
        patched.setattr(Path, "unlink", broken)
        put(store, range(10), sort="session", session="s0")
    for number in range(1, 9):
        put(store, range(10 + number), sort="session", session=f"s{number}")
    assert store.sums().ram_bytes <= 2 * MIB
    assert len([*tmp_path.rglob("*.kv")]) == 8
    store.close()
