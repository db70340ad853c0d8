"""A pytest plugin for suites that are not ours, run in a process of their own; it changes nothing in them but whom they ask.

`OUTSIDE_KEY` takes the place of the API key in the suite's conftest, `OUTSIDE_HEADERS` (JSON) are sent by its clients as
headers of theirs, and what became of each test is written to `OUTSIDE_RESULTS` (JSON, test → outcome).
"""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path

import pytest

_outcomes: dict[str, str] = {}


def pytest_collection_finish(session: pytest.Session) -> None:
    conftest = sys.modules.get("tests.conftest")
    if conftest is not None and "OUTSIDE_KEY" in os.environ:
        conftest.api_key = conftest.admin_api_key = os.environ["OUTSIDE_KEY"]  # type: ignore[attr-defined]
        headers = json.loads(os.environ.get("OUTSIDE_HEADERS", "{}"))
        for name in ("OpenAI", "AsyncOpenAI"):
            setattr(conftest, name, functools.partial(getattr(conftest, name), default_headers=headers, max_retries=0))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        _outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish() -> None:
    if "OUTSIDE_RESULTS" in os.environ:
        Path(os.environ["OUTSIDE_RESULTS"]).write_text(json.dumps(_outcomes), encoding="utf-8")
