"""The queue as it is looked at: over HTTP by the one whose memory it is, by `memrelay jobs` for whoever runs the installation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy import cli
from scheduler.queue import DbosQueue
from tests.live import LiveProxy, wait_for
from tests.scheduler.test_queue import Office

GONE = [{"name": "gone", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"}]
LATER = 3600.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Path:
    made = tmp_path_factory.mktemp("jobs")
    (made / "models").symlink_to(models_dir)
    return made


@pytest.fixture(scope="module")
def office(folder: Path) -> Iterator[Office]:
    with Office(f"sqlite:///{folder}/queue.sqlite") as at_work:
        yield at_work


@pytest.fixture(scope="module")
def live(folder: Path, office: Office) -> Iterator[LiveProxy]:
    office.diary.gate.set()
    with LiveProxy(folder, upstreams=GONE) as running:
        yield running


@pytest.fixture
def key(live: LiveProxy) -> str:
    return live.key()


@pytest.fixture
def admin(live: LiveProxy) -> str:
    return live.key("admin")


@pytest.fixture
def cube(live: LiveProxy, key: str) -> str:
    """The key's own cube."""
    live.api(key, "POST", "/v1/memory/items", {"text": "I like tea."})
    return str(live.api(key, "GET", "/v1/cubes")[1]["data"][0]["id"])


def put(live: LiveProxy, task: str, cube: str, *, delay_s: float = 0.0, **arguments: str) -> str:
    async def work() -> str:
        queue = DbosQueue(live.config.queue_url)
        try:
            return await queue.put(task, cube, arguments, delay_s=delay_s)
        finally:
            await queue.close()

    return asyncio.run(work())


def jobs(live: LiveProxy, key: str, query: str = "", cube: str = "") -> Any:
    status, body = live.api(key, "GET", f"/v1/memory/jobs?{query}", cube=cube)
    assert status == 200, body
    return body


def ids(live: LiveProxy, key: str, query: str = "") -> list[str]:
    return [job["id"] for job in jobs(live, key, query)["data"]]


def run(live: LiveProxy, *words: str) -> Result:
    return CliRunner().invoke(cli.main, ["jobs", *words, "--json", "--data", str(live.config.folder)])


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# --- over HTTP ----------------------------------------------------------------------------------------------------------


def test_jobs_are_listed_newest_first_by_pages(live: LiveProxy, key: str, cube: str) -> None:
    put_in = [put(live, "note", cube, delay_s=LATER, n=str(n)) for n in range(5)]
    found, query = [], "task=note&limit=2"
    for _ in range(3):
        page = jobs(live, key, query)
        found += [job["id"] for job in page["data"]]
        query = f"task=note&limit=2&after={page['next']}"
    assert found == put_in[::-1]
    assert (page["object"], page["has_more"], page["next"]) == ("list", False, None)


def test_jobs_are_found_by_state_and_task(live: LiveProxy, key: str, cube: str) -> None:
    waits, ends = put(live, "note", cube, delay_s=LATER), put(live, "slow", cube)
    wait_for(lambda: ids(live, key, "state=done&task=slow") == [ends], "the job to end")
    assert ids(live, key, "state=waiting&task=note") == [waits]
    assert ids(live, key, "state=waiting&task=slow") == []
    assert set(ids(live, key, "state=waiting,done")) >= {waits, ends}


@pytest.mark.parametrize(
    ("query", "param"), [("state=lost", "state"), ("limit=0", "limit"), ("limit=x", "limit"), ("after=x", "after")]
)
def test_what_makes_no_sense_is_refused(live: LiveProxy, key: str, query: str, param: str) -> None:
    status, body = live.api(key, "GET", f"/v1/memory/jobs?{query}")
    assert (status, body["error"]["param"]) == (400, param)


def test_a_job_is_its_owners_affair(live: LiveProxy, key: str, cube: str) -> None:
    job = put(live, "note", cube, delay_s=LATER)
    other = live.key()
    assert jobs(live, other)["data"] == []
    assert live.api(other, "GET", f"/v1/memory/jobs/{job}")[0] == 404
    assert live.api(other, "POST", f"/v1/memory/jobs/{job}/cancel")[0] == 404
    assert live.api(other, "GET", f"/v1/memory/jobs?after={job}")[0] == 400
    for asked in (cube, "all"):
        assert live.api(other, "GET", f"/v1/memory/jobs?cube={asked}")[0] == 403
    assert live.api(key, "GET", f"/v1/memory/jobs/{job}")[1]["state"] == "waiting"
    assert ids(live, key, f"cube={cube}&task=note") == [job]


def test_an_admin_sees_everybodys(live: LiveProxy, admin: str, cube: str) -> None:
    mine, theirs = put(live, "note", cube, delay_s=LATER), put(live, "note", "another", delay_s=LATER)
    assert ids(live, admin, "cube=another&limit=1") == [theirs]
    assert {mine, theirs} <= set(ids(live, admin, "cube=all"))
    assert live.api(admin, "POST", f"/v1/memory/jobs/{theirs}/cancel")[0] == 200


def test_a_job_is_taken_out_and_put_in_again(live: LiveProxy, key: str, cube: str) -> None:
    job = put(live, "note", cube, delay_s=LATER, n="7")
    path = f"/v1/memory/jobs/{job}"
    assert live.api(key, "POST", f"{path}/retry")[0] == 409
    assert live.api(key, "POST", f"{path}/cancel")[1] == {"id": job, "state": "cancelled"}
    assert live.api(key, "POST", f"{path}/cancel")[0] == 409
    status, again = live.api(key, "POST", f"{path}/retry")
    assert (status, again["state"]) == (200, "waiting")
    wait_for(lambda: live.api(key, "GET", f"/v1/memory/jobs/{again['id']}")[1]["result"], "the job to run")
    assert live.api(key, "GET", f"/v1/memory/jobs/{again['id']}")[1]["result"] == {"seen": "7"}
    assert live.api(key, "POST", f"{path}/dance")[0] == 404


def test_without_a_queue_the_api_says_so_and_memory_goes_on(tmp_path: Path, models_dir: Path) -> None:
    (tmp_path / "models").symlink_to(models_dir)
    with LiveProxy(tmp_path, upstreams=GONE, queue="sqlite:////nowhere/queue.db") as alone:
        key = alone.key()
        assert alone.api(key, "GET", "/v1/memory/jobs")[0] == 503
        assert alone.api(key, "GET", "/v1/memory/jobs/x")[0] == 503
        assert alone.api(key, "POST", "/v1/memory/items", {"text": "I like tea."})[0] == 201


# --- from the command line ------------------------------------------------------------------------------------------------


def test_the_command_shows_takes_out_and_puts_in_again(live: LiveProxy, cube: str) -> None:
    job = put(live, "note", cube, delay_s=LATER)
    listed = answer(run(live, "list", "--cube", cube, "--state", "waiting", "--task", "note"))["jobs"]
    assert [one["id"] for one in listed] == [job]
    assert answer(run(live, "show", job))["cube"] == cube
    assert answer(run(live, "cancel", job))["state"] == "cancelled"
    (again,) = answer(run(live, "retry", job))["retried"]
    assert again["id"] == job != again["again"]
    for words, told in (
        (["cancel", job], "no waiting job"),
        (["show", "x"], "no job x"),
        (["retry", "x"], "no failed"),
    ):
        result = run(live, *words)
        assert result.exit_code == 1
        assert told in result.stderr


def test_the_command_counts_and_gives_pages(live: LiveProxy, cube: str) -> None:
    for n in range(3):
        put(live, "note", cube, delay_s=LATER, n=str(n))
    first = answer(run(live, "list", "--cube", cube, "--task", "note", "--limit", "2"))
    rest = answer(run(live, "list", "--cube", cube, "--task", "note", "--after", first["next"]))
    assert (len(first["jobs"]), len(rest["jobs"]), rest["next"]) == (2, 1, None)
    assert any(count["task"] == "note" and count["number"] >= 3 for count in first["counts"])
    shown = CliRunner().invoke(cli.main, ["jobs", "list", "--data", str(live.config.folder)])
    assert shown.exit_code == 0
    assert "note" in shown.output


def test_all_dead_letters_are_put_in_again_and_purged_when_asked(
    live: LiveProxy, office: Office, key: str, cube: str
) -> None:
    office.diary.broken = 2
    job = put(live, "breaks", cube)
    wait_for(lambda: job in ids(live, key, "state=failed"), "the job to fail")
    retried = answer(run(live, "retry", "--all-failed", "--task", "breaks"))["retried"]
    assert [one["id"] for one in retried] == [job]
    wait_for(lambda: retried[0]["again"] in ids(live, key, "state=done"), "the job to run well")
    assert answer(run(live, "purge", "--days", "0", "--failed"))["purged"] >= 1
    assert ids(live, key, "state=done,failed") == []
