"""What the documents say exists, exists; what exists is in the documents."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import yaml
from click.testing import CliRunner

from memory.types import Memory
from proxy import app, cli
from proxy.config import Config, UpstreamConfig, load

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "config.example.yaml").read_text(encoding="utf-8")


def verbs(group: click.Group, before: str = "memrelay") -> set[str]:
    """Every command of the program, in full."""
    found: set[str] = set()
    for name, command in group.commands.items():
        full = f"{before} {name}"
        found |= verbs(command, full) if isinstance(command, click.Group) else {full}
    return found


def documented_verbs() -> set[str]:
    """Those of the README's table; "`memrelay keys create`, `list`" means both."""
    found: set[str] = set()
    for cell in re.findall(r"^\| (`memrelay [^|]*) \|", README, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", cell)
        found.add(first)
        found |= {f"{first.rpartition(' ')[0]} {other}" for other in others}
    return found


def test_the_readme_names_every_command() -> None:
    assert documented_verbs() == verbs(cli.main)


@pytest.mark.parametrize("verb", sorted(verbs(cli.main)))
def test_every_command_explains_itself_and_takes_the_common_options(verb: str) -> None:
    shown = CliRunner().invoke(cli.main, [*verb.split()[1:], "--help"])
    assert shown.exit_code == 0
    assert {"--config", "--data", "--json"} <= set(re.findall(r"--[a-z-]+", shown.output))


def test_the_readme_names_every_route() -> None:
    documented = set(re.findall(r"`(GET|POST|PATCH|DELETE) (/[^`]*)`", README))
    served: set[tuple[str, str]] = set()
    for route in app.Front(lambda: 0.0).routes():
        path = re.sub(r"{model:path}", "{id}", re.sub(r"{id:path}", "{id}", route.path))
        for method in (route.methods or {"POST"}) - {"HEAD"}:
            served.add((method, path))
    assert ("POST", "/v1/{path:path}") in served
    assert "| every other `/v1/…` |" in README
    served -= {("POST", "/v1/memory/jobs/{id}"), ("POST", "/v1/{path:path}")}
    served |= {("POST", "/v1/memory/jobs/{id}/retry"), ("POST", "/v1/memory/jobs/{id}/cancel")}
    assert documented == served


def test_make_targets_in_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in {"run", "test", *re.findall(r"`make ([a-z]+)", README)}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_example_configuration_has_every_key_with_its_default() -> None:
    example = yaml.safe_load(EXAMPLE)
    defaults = msgspec.to_builtins(Config())
    assert set(example) == set(defaults)
    for section in set(defaults) - {"upstreams"}:
        assert example[section] == _plain(defaults[section]), section
    known = {name for entry in example["upstreams"] for name in entry}
    assert known == set(UpstreamConfig.__struct_fields__)
    usual = msgspec.to_builtins(UpstreamConfig(name="x", kind="llama"))
    for entry in example["upstreams"]:
        for name in set(entry) - {"name", "kind", "models", "base_url", "api_key", "provider"}:
            assert entry[name] == _plain(usual[name]), name


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple | list) else value


def test_the_example_configuration_loads() -> None:
    assert [upstream.kind for upstream in load(str(ROOT / "config.example.yaml"), environment={}).upstreams] == [
        "openai",
        "anthropic",
        "litellm",
        "llama_server",
        "llama",
    ]


def test_every_field_of_a_memory_is_explained() -> None:
    text = (ROOT / "docs" / "MEMORY.md").read_text(encoding="utf-8")
    table = set(re.findall(r"`([a-z_]+)`", text.partition("## Fields")[2].partition("## ")[0]))
    assert set(Memory.__dataclass_fields__) - {"rev"} <= table


def test_links_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "deploy" / "README.md"]:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert link.startswith("http") or (document.parent / link).exists(), f"{document.name}: {link}"


def test_nothing_speaks_of_this_machine() -> None:
    for path in [*ROOT.glob("*.*"), *ROOT.glob("docs/*"), ROOT / "Makefile"]:
        if path.is_file() and path.name != ".git":  # a file where the checkout is one of several
            assert not re.search(r"/work/|/opt/wheels|/root/", path.read_text(encoding="utf-8", errors="replace")), (
                path.name
            )
