"""The command line, as a script uses it: one JSON object on standard output, a clear message and exit code 1 otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return lambda *words: CliRunner().invoke(main, [*words, "--data", str(tmp_path)])


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_keys_life(run: Run) -> None:
    made = answer(
        run("keys", "create", "--name", "mine", "--scope", "chat", "--model", "gpt-*", "--days", "1", "--json")
    )
    assert made["key"].startswith("sk-mem-")
    assert (made["name"], made["scopes"], made["models"], made["state"]) == ("mine", ["chat"], ["gpt-*"], "active")
    assert made["expires_at"] - made["created_at"] == pytest.approx(86_400, abs=5)
    more = answer(run("keys", "create", "--principal", made["principal"], "--json"))
    assert more["principal"] == made["principal"]
    rotated = answer(run("keys", "rotate", made["id"], "--grace", "60", "--json"))
    assert (rotated["replaces"], rotated["models"]) == (made["id"], ["gpt-*"])
    assert answer(run("keys", "revoke", rotated["id"], "--json")) == {"id": rotated["id"], "state": "revoked"}
    states = {key["id"]: key["state"] for key in answer(run("keys", "list", "--json"))["keys"]}
    assert states == {made["id"]: "active", more["id"]: "active", rotated["id"]: "revoked"}


def test_a_list_never_shows_a_secret(run: Run) -> None:
    secret = answer(run("keys", "create", "--json"))["key"]
    for result in (run("keys", "list"), run("keys", "list", "--json")):
        assert result.exit_code == 0
        assert secret not in result.output
        assert secret[12:-4] not in result.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["keys", "create", "--scope", "root"], "unknown scope 'root'"),
        (["keys", "create", "--principal", "pr_x"], "no principal pr_x"),
        (["keys", "rotate", "key_x"], "no usable key key_x"),
        (["keys", "revoke", "key_x"], "no key key_x"),
        (["cubes", "erase", "x"], "there is no cube x"),
        (["cubes", "archive", "x"], "there is no cube x"),
        (["cubes", "create", "--principal", "pr_x", "--name", "a"], "no principal pr_x"),
        (["check", "--config", "/nowhere.yaml"], "cannot read /nowhere.yaml"),
    ],
)
@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_a_mistake_is_said_on_standard_error(run: Run, words: list[str], says: str, json_too: list[str]) -> None:
    result = run(*words, *json_too)
    assert result.exit_code == 1
    assert says in result.stderr
    assert result.stdout == ""


def test_a_cubes_life(run: Run) -> None:
    mine, theirs = (answer(run("keys", "create", "--json"))["principal"] for _ in range(2))
    made, other = (
        answer(run("cubes", "create", "--principal", mine, "--name", name, "--quota", "9", "--json"))["id"]
        for name in ("Work", "Play")
    )
    assert answer(run("cubes", "grant", made, theirs, "--level", "write", "--json"))["level"] == "write"
    assert answer(run("cubes", "list", "--principal", theirs, "--json"))["cubes"][0]["level"] == "write"
    assert answer(run("cubes", "revoke", made, theirs, "--json"))["deleted"] is True
    assert answer(run("cubes", "list", "--principal", theirs, "--json"))["cubes"] == []
    assert answer(run("cubes", "fuse", made, other, "--archive-source", "--json"))["state"] == "done"
    states = {cube["id"]: cube["status"] for cube in answer(run("cubes", "list", "--json"))["cubes"]}
    assert states == {made: "active", other: "archived"}
    assert answer(run("cubes", "restore", other, "--json"))["status"] == "active"
    assert answer(run("cubes", "archive", made, "--json"))["status"] == "archived"
    assert answer(run("cubes", "erase", made, "--json"))["state"] == "pending"
    assert [cube["id"] for cube in answer(run("cubes", "list", "--json"))["cubes"]] == [other]
    assert run("cubes", "list").exit_code == 0


def test_check_says_what_the_configuration_means(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("upstreams: [{name: a, kind: openai, base_url: 'http://x/v1'}]\nhooks: ['tests.hooks:Bouncer']\n")
    body = answer(run("check", "--config", str(path), "--json"))
    assert body["ok"] is True
    assert body["upstreams"] == [{"name": "a", "kind": "openai", "models": ["*"]}]
    assert body["hooks"] == ["Bouncer"]


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["keys", "--help"], ["memories", "--help"], ["serve", "--help"], ["--version"]]
)
def test_help_is_there(words: list[str]) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code in (0, 2)
    assert "memrelay" in result.output or "Usage" in result.output
