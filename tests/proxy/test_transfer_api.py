"""Export and import over HTTP and from the command line: the same cube elsewhere, and clear words when it cannot be."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from proxy.cli import main
from tests.live import LiveProxy

GONE = [{"name": "gone", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"}]
CAP = 200_000
DATA = Path(__file__).parents[1] / "memory" / "data"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[LiveProxy]:
    folder = tmp_path_factory.mktemp("transfer")
    (folder / "models").symlink_to(models_dir)
    with LiveProxy(folder, upstreams=GONE, limits={"import_bytes": CAP}) as running:
        yield running


@pytest.fixture
def key(live: LiveProxy) -> str:
    return live.key()


def call(live: LiveProxy, key: str, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    named = ({"authorization": f"Bearer {key}"} if key else {}) | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return httpx.request(method, f"{live.url}/v1/memory/{path}", content=body, headers=named, timeout=60)


def add(live: LiveProxy, key: str, text: str, **more: Any) -> None:
    assert live.api(key, "POST", "/v1/memory/items", {"text": text, **more})[0] == 201


def export(live: LiveProxy, key: str, query: str = "") -> bytes:
    answer = call(live, key, "GET", f"export{query}")
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    return answer.content


def take_in(live: LiveProxy, key: str, body: bytes, query: str = "") -> dict[str, Any]:
    answer = call(live, key, "POST", f"import{query}", body)
    assert answer.status_code == 200, answer.text
    done: dict[str, Any] = answer.json()
    return done


def counts(done: dict[str, Any]) -> dict[str, int]:
    return {name: value for name, value in done.items() if isinstance(value, int) and value}


def test_a_cube_moves_to_another_key(live: LiveProxy, key: str) -> None:
    add(live, key, "My dog is Rex.", tags=["pets"])
    add(live, key, "I prefer tea.", kind="preference", pinned=True)
    other = live.key()
    done = take_in(live, other, export(live, key))
    assert (done["format"], counts(done)) == ("memrelay", {"memories": 2})
    assert {(m["id"], m["text"], m["pinned"]) for m in live.items(other)} == {
        (m["id"], m["text"], m["pinned"]) for m in live.items(key)
    }
    assert live.search(other, "what is my dog called?")[0]["text"] == "My dog is Rex."
    assert counts(take_in(live, other, export(live, key))) == {"skipped": 2}


def test_other_forms_that_were_imported_go_with_everything(live: LiveProxy, key: str) -> None:
    add(live, key, "Likes tea.")
    blobs = live.config.cubes / live.items(key)[0]["cube"] / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "note.bin").write_bytes(b"tea")
    theirs = live.key()
    take_in(live, theirs, export(live, key))
    folder = live.config.cubes / live.items(theirs)[0]["cube"]
    assert (folder / "blobs" / "note.bin").read_bytes() == b"tea"
    (folder / "blobs" / ".unfinished").write_bytes(b"tea")
    assert live.api(theirs, "DELETE", "/v1/memory")[0] in (200, 202)
    assert not folder.exists()
    add(live, theirs, "New.")
    with zipfile.ZipFile(io.BytesIO(export(live, theirs))) as archive:
        assert not [name for name in archive.namelist() if name.startswith("blobs")]
    assert (blobs / "note.bin").exists()


def test_an_archive_has_a_name_and_a_type(live: LiveProxy, key: str) -> None:
    answer = call(live, key, "GET", "export")
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"].startswith('attachment; filename="memrelay-')
    assert zipfile.ZipFile(io.BytesIO(answer.content)).namelist()[0] == "manifest.json"


def test_the_document_can_be_read(live: LiveProxy, key: str) -> None:
    add(live, key, "I prefer *strong* tea.", kind="preference")
    answer = call(live, key, "GET", "export?format=markdown&turns=yes")
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    assert "### Preferences\n\n- I prefer \\*strong\\* tea. (" in answer.text


def test_nothing_of_another_key_is_exported(live: LiveProxy, key: str) -> None:
    add(live, live.key(), "My secret is zq.")
    add(live, key, "My dog is Rex.")
    with zipfile.ZipFile(io.BytesIO(export(live, key))) as archive:
        assert not [name for name in archive.namelist() if b"zq" in archive.read(name)]


@pytest.mark.parametrize(
    ("method", "path", "scope"), [("GET", "export", "memory:read"), ("POST", "import", "memory:write")]
)
def test_every_route_asks_for_its_scope(live: LiveProxy, method: str, path: str, scope: str) -> None:
    without = live.key(*{"chat", "memory:read", "memory:write", "act_as_user"} - {scope})
    assert call(live, without, method, path, b"x" if method == "POST" else None).status_code == 403
    assert call(live, "", method, path, b"x" if method == "POST" else None).status_code == 401


def test_a_cube_that_was_granted_for_reading_can_be_exported_only(live: LiveProxy, key: str) -> None:
    add(live, key, "My dog is Rex.")
    cube = live.items(key)[0]["cube"]
    reader = live.key()
    whose = live.api(reader, "POST", "/v1/cubes", {"name": "mine"})[1]["owner"]
    assert call(live, reader, "GET", "export", X_Memory_Cube=cube).status_code == 404
    assert live.api(key, "POST", f"/v1/cubes/{cube}/grants", {"principal": whose, "level": "read"})[0] == 201
    archive = call(live, reader, "GET", "export", X_Memory_Cube=cube).content
    assert call(live, reader, "POST", "import", archive, X_Memory_Cube=cube).status_code == 403


@pytest.mark.parametrize(
    ("body", "query", "headers", "status", "says"),
    [
        (b"", "", {}, 400, "empty"),
        (b"nonsense", "", {}, 400, "neither"),
        (b"[]", "", {}, 400, "neither"),
        (b"PK\x03\x04 nonsense", "", {}, 400, "damaged"),
        (b"{}", "?format=rival", {}, 400, "format"),
        (b"{}", "?erased=maybe", {}, 400, "erased"),
        (b"x" * (CAP + 1), "", {}, 413, "limits.import_bytes"),
        (gzip.compress(b"x"), "", {"content_encoding": "gzip"}, 415, "Content-Encoding"),
        (b"--x", "", {"content_type": "multipart/form-data; boundary=x"}, 415, "not a form"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    live: LiveProxy, key: str, body: bytes, query: str, headers: Any, status: int, says: str
) -> None:
    answer = call(live, key, "POST", f"import{query}", body, **headers)
    assert (answer.status_code, says in answer.json()["error"]["message"]) == (status, True), answer.text
    assert live.items(key) == []


def test_a_body_without_a_length_has_the_same_limit(live: LiveProxy, key: str) -> None:
    answer = call(live, key, "POST", "import", (b"x" * 50_000 for _ in range(5)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("query", ["?format=pdf", "?vectors=maybe", "?turns=2"])
def test_an_unknown_wish_is_refused(live: LiveProxy, key: str, query: str) -> None:
    assert call(live, key, "GET", f"export{query}").status_code == 400


def test_no_temporary_file_stays_behind(live: LiveProxy, key: str) -> None:
    add(live, key, "My dog is Rex.")
    take_in(live, key, export(live, key))
    call(live, key, "POST", "import", b"nonsense")
    left = live.config.folder / "transfer"
    assert list(left.iterdir()) == []


def test_a_dump_with_memories_of_two_users_needs_a_name(live: LiveProxy, key: str) -> None:
    dump = json.dumps([{"id": n, "memory": f"Likes {n}.", "user_id": n} for n in ("ann", "bob")]).encode()
    answer = call(live, key, "POST", "import", dump)
    assert "2 users" in answer.json()["error"]["message"]
    assert counts(take_in(live, key, dump, "?user=bob")) == {"memories": 1}
    assert [m["text"] for m in live.items(key)] == ["Likes bob."]


# --- the command line -----------------------------------------------------------------------------------------------------


def run(data: Path, *words: str) -> Any:
    return CliRunner().invoke(main, [*words, "--data", str(data)])


def answer(data: Path, *words: str) -> Any:
    result = run(data, *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_command_line_moves_a_cube_into_an_empty_installation(data: Path, tmp_path: Path) -> None:
    answer(data, "keys", "create")
    done = answer(data, "import", str(DATA / "cube_v0.zip"))
    assert counts(done) == {"turns": 2, "memories": 4}
    file = tmp_path / "mine.zip"
    made = answer(data, "export", str(file), "--cube", done["cube"])
    assert (made["bytes"], made["counts"]["memories"]) == (file.stat().st_size, 4)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob(".mine*")] == []
    assert counts(answer(data, "import", str(file))) == {"skipped": 6}


def test_the_command_line_writes_a_document(data: Path, tmp_path: Path) -> None:
    answer(data, "keys", "create")
    answer(data, "import", str(DATA / "cube_v0.zip"))
    assert run(data, "export", str(tmp_path / "mine.md"), "--markdown", "--turns").exit_code == 0
    text = (tmp_path / "mine.md").read_text(encoding="utf-8")
    assert "~~Lives in Milan.~~ until" in text
    assert "> I moved to Turin." in text
    assert run(data, "export", "-", "--markdown").output.startswith("# Memory")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["import", str(DATA / "cube_v0.zip")], "memrelay keys create"),
        (["import", str(DATA / "cube_v0.zip"), "--cube", "x"], "no cube x"),
        (["import", str(DATA / "cube_v0.zip"), "--principal", "x"], "no principal x"),
        (["import", "/nowhere.zip"], "does not exist"),
        (["export", "--turns"], "--markdown"),
        (["export", "-", "--json"], "name a file"),
    ],
)
def test_a_mistake_is_said(data: Path, words: list[str], says: str) -> None:
    result = run(data, *words)
    assert result.exit_code != 0
    assert says in result.output
    assert "Traceback" not in result.output


def test_a_file_that_is_no_archive_is_said_to_be_none(data: Path, tmp_path: Path) -> None:
    answer(data, "keys", "create")
    (tmp_path / "x.zip").write_bytes(b"nonsense")
    result = run(data, "import", str(tmp_path / "x.zip"))
    assert (result.exit_code, "neither a memrelay archive" in result.stderr) == (1, True)
