"""Configuration: small files work, and what is wrong with one is said with its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import Config, ConfigError, load


def written(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_without_a_file_everything_has_a_default(tmp_path: Path) -> None:
    config = load(None, data=str(tmp_path), environment={})
    assert config.folder == tmp_path
    assert [upstream.kind for upstream in config.upstreams] == ["llama"]
    assert config.server.host == "127.0.0.1"


def test_the_environment_is_put_in(tmp_path: Path) -> None:
    text = "upstreams: [{name: a, kind: openai, base_url: 'http://${HOST}/v1', api_key: '${KEY:-none}', models: ['${M:-}x']}]"
    (upstream,) = load(written(tmp_path, text), environment={"HOST": "h"}).upstreams
    assert (upstream.base_url, upstream.api_key, upstream.models) == ("http://h/v1", "none", ("x",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sever: {port: 1}", "sever"),
        ("server: {prt: 1}", "prt.*server"),
        ("server: {port: high}", "int.*server.port"),
        ("memory: {deadline_ms: 1.5}", "int.*memory.deadline_ms"),
        ("upstreams: {name: a}", "upstreams"),
        ("upstreams: [{kind: openai}]", "name.*upstreams"),
        ("upstreams: [{name: a, kind: opnai}]", "opnai.*upstreams"),
        ("upstreams: [{name: a, kind: openai}]", "upstreams.a.base_url"),
        ("upstreams: [{name: a, kind: openai, base_url: api.openai.com}]", "upstreams.a.base_url"),
        ("upstreams: [{name: a, kind: openai, base_url: 'http://x', models: gpt}]", "array.*models"),
        ("upstreams: [{name: a, kind: litellm}]", "upstreams.a.provider"),
        ("upstreams: [{name: a, kind: llama}, {name: a, kind: llama}]", "once"),
        ("upstreams: [{name: a, kind: llama}, {name: b, kind: llama}]", "one upstream of kind llama"),
        (
            "upstreams: [{name: a, kind: openai, base_url: 'http://x', api_key: '${ABSENT}'}]",
            r"upstreams\[0\].api_key.*ABSENT",
        ),
        ("logging: {level: loud}", "loud"),
        ("responses: {keep_days: -1}", "responses.keep_days"),
        ("a: [", "not YAML"),
        ("- a", "mapping"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(written(tmp_path, text), environment={})


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent"):
        load(str(tmp_path / "absent.yaml"), environment={})


@pytest.mark.parametrize(
    ("named", "spoken"),
    [
        ("postgresql://a@b/c", "postgresql+psycopg://a@b/c"),
        ("postgresql+psycopg://a@b/c", "postgresql+psycopg://a@b/c"),
    ],
)
def test_postgresql_is_spoken_to_by_the_driver_that_is_there(named: str, spoken: str) -> None:
    assert Config(database=named).database_url == spoken
