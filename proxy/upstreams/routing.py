"""Which upstream serves a model: the first whose patterns match the name."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from memory.sql import Database
from proxy.config import Config, UpstreamConfig
from proxy.errors import ApiError, BadRequest, ModelNotFound, NotFound
from proxy.upstreams.fallback import Breaker, Choice, Falling, Renamed, Told
from proxy.upstreams.litellm_adapter import LitellmUpstream
from proxy.upstreams.llama_server import LlamaServer
from proxy.upstreams.port import Upstream
from proxy.upstreams.slot_files import SlotFiles
from proxy.upstreams.slot_states import SlotStates
from proxy.upstreams.slot_table import SlotTable
from proxy.upstreams.slots import Server
from proxy.upstreams.states import EngineStates, Forgotten, KeepsStates
from proxy.upstreams.translate import Translating
from proxy.upstreams.wire import LocalUpstream, WireUpstream

KV_FOLDER = "kv"  # of the data folder: the local engine's states
log = logging.getLogger(__name__)
# where the configuration does not say; None: whatever the server turns out to have
_SPEAKS: dict[str, frozenset[str] | None] = {
    "openai": None,
    "anthropic": frozenset({"messages"}),
    "litellm": frozenset({"chat"}),
    "llama": frozenset({"chat"}),
    "llama_server": frozenset({"chat"}),  # it may speak others too, but only there its slots can be named
}


class Routes:
    """All configured upstreams in their order."""

    def __init__(
        self,
        upstreams: Sequence[tuple[Upstream, tuple[str, ...]]],
        keepers: Sequence[KeepsStates] = (),
        aliases: Mapping[str, Upstream] | None = None,
    ) -> None:
        """`keepers`: who keeps KV states, by the names of their upstreams. `aliases`: names that one of them serves by
        another name."""
        self._upstreams = list(upstreams)
        self._aliases = dict(aliases or {})
        self._keepers = {keeper.name: keeper for keeper in keepers}

    def of(self, model: Any) -> Upstream:
        """The upstream for a request's `model`. Raises BadRequest, ModelNotFound."""
        if not isinstance(model, str) or not model:
            raise BadRequest("you must give a model", param="model", code="missing_required_parameter")
        if model in self._aliases:
            return self._aliases[model]
        for upstream, patterns in self._upstreams:
            if any(fnmatchcase(model, pattern) for pattern in patterns):
                return upstream
        raise ModelNotFound(f"the model {model[:200]!r} is served by no upstream", param="model")

    def named(self, name: str) -> Upstream | None:
        """The upstream with this name in the configuration."""
        return next((upstream for upstream, _ in self._upstreams if upstream.name == name), None)

    def states_of(self, model: Any) -> KeepsStates | None:
        """Who keeps KV states for a model, if anybody does. Raises BadRequest, ModelNotFound."""
        return self._keepers.get(self.of(model).name)

    def keepers(self) -> list[KeepsStates]:
        """All who keep KV states."""
        return list(self._keepers.values())

    async def forget(self, cube: str) -> Forgotten:
        """Drop every KV state of a cube, whoever keeps it."""
        found = Forgotten()
        for keeper in self._keepers.values():
            found = found.plus(await keeper.forget(cube))
        if not found.sure:
            log.warning("states of cube %s could not be reached", cube)
        return found

    @staticmethod
    def alone(upstream: Upstream) -> Upstream:
        """The upstream without those that would be asked in its stead: for what names an object that only it has."""
        if isinstance(upstream, Renamed):
            return Renamed(Routes.alone(upstream.upstream), upstream.model)
        return upstream.first if isinstance(upstream, Falling) else upstream

    def first(self, kind: str = "openai") -> Upstream:
        """The first of a kind: where that goes for which no model is named. Raises NotFound."""
        for upstream, _ in self._upstreams:
            if upstream.kind == kind:
                return upstream
        raise NotFound("there is no such route, and no upstream to pass it on to")

    async def models(self) -> list[dict[str, Any]]:
        """What all upstreams offer, as far as requests for it would reach them; one that cannot be asked is left out."""
        listed = await asyncio.gather(*(self._ask(upstream) for upstream, _ in self._upstreams))
        out: dict[str, dict[str, Any]] = {}
        for (upstream, _), models in zip(self._upstreams, listed, strict=True):
            for model in models:
                name = str(model["id"])
                if name not in out and self._reaches(name, upstream):
                    out[name] = model
        for alias, upstream in self._aliases.items():
            out[alias] = {"id": alias, "object": "model", "created": 0, "owned_by": upstream.name}
        return list(out.values())

    def _reaches(self, model: str, upstream: Upstream) -> bool:
        try:
            return self.of(model) is upstream
        except ApiError:
            return False

    @staticmethod
    async def _ask(upstream: Upstream) -> list[dict[str, Any]]:
        try:
            return list(await upstream.models())
        except ApiError as error:
            log.warning("upstream %s: %s", upstream.name, error.code)
            return []

    async def close(self) -> None:
        """Close every upstream."""
        for upstream, _ in self._upstreams:
            await upstream.close()


def make(
    config: Config, engine_port: int, database: Database | None = None, fell: Told = lambda before, after: None
) -> Routes:
    """The upstreams of the configuration. `database`: where it is written down what a llama-server saves for us; None: it saves
    nothing. `fell` is told when one is asked in another's stead."""
    plain: dict[str, Upstream] = {}
    keepers: list[KeepsStates] = []
    for entry in config.upstreams:
        if entry.kind == "llama_server":
            server, states = _llama_server(entry, database)
            keepers.append(states)
            plain[entry.name] = Translating(server, server, frozenset(entry.speaks) or _SPEAKS[entry.kind])
        else:
            plain[entry.name] = _upstream(entry, engine_port)
        if entry.kind == "llama":
            keepers.append(EngineStates(plain[entry.name], config.folder / KV_FOLDER))
    breakers = {name: Breaker() for name in plain}
    asked = {entry.name: _with_others(entry, plain, breakers, fell) for entry in config.upstreams}
    targets = {alias: target.partition("/") for alias, target in config.aliases.items()}
    aliases = {alias: Renamed(asked[name], model) for alias, (name, _, model) in targets.items()}
    return Routes([(asked[entry.name], entry.models) for entry in config.upstreams], keepers, aliases)


def _with_others(
    entry: UpstreamConfig, plain: Mapping[str, Upstream], breakers: Mapping[str, Breaker], fell: Told
) -> Upstream:
    """An upstream with those that are asked in its stead."""
    named = [other.partition("/") for other in entry.fallback]
    others = [Choice(plain[name], model) for name, _, model in named]
    first = plain[entry.name]
    return Falling(first, others, breakers, entry.first_byte_s, fell) if others else first


def _llama_server(entry: UpstreamConfig, database: Database | None) -> tuple[LlamaServer, SlotStates]:
    """A llama-server: its OpenAI surface below /v1, its slots below its root."""
    root = entry.base_url.rstrip("/").removesuffix("/v1")
    wires = [
        WireUpstream(
            entry.name,
            url,
            api_key=entry.api_key,
            headers={name.lower(): value for name, value in entry.headers.items()},
            kind=entry.kind,
            connect_timeout_s=entry.connect_timeout_s,
            timeout_s=entry.timeout_s,
            ca_file=entry.ca_file,
        )
        for url in (f"{root}/v1", root)
    ]
    saves = database is not None and entry.slots_mb > 0
    table = SlotTable(
        entry.name,
        Server(wires[1], files=saves),
        SlotFiles(database, entry.name, time.time) if database is not None and saves else None,
        folder=Path(entry.slots_folder).expanduser() if entry.slots_folder else None,
        budget=entry.slots_mb << 20,
    )
    return LlamaServer(wires[0], table), SlotStates(wires[0], table)


def _upstream(entry: UpstreamConfig, engine_port: int) -> Upstream:
    """One upstream, which is asked in the surfaces it speaks and translated to in the others."""
    speaks = frozenset(entry.speaks) or _SPEAKS[entry.kind]
    if entry.kind == "litellm":
        asked = _litellm(entry, entry.provider, entry.base_url)
        return Translating(asked, asked, speaks)
    if entry.kind == "llama":
        base_url = f"http://127.0.0.1:{engine_port}/v1"
        local = LocalUpstream(
            entry.name, base_url, connect_timeout_s=entry.connect_timeout_s, timeout_s=entry.timeout_s
        )
        return Translating(local, local, speaks)
    root = entry.base_url.rstrip("/")
    if entry.kind == "anthropic":
        root = (root or "https://api.anthropic.com").removesuffix("/v1")
    wire = WireUpstream(
        entry.name,
        f"{root}/v1" if entry.kind == "anthropic" else root,
        api_key=entry.api_key,
        headers={name.lower(): value for name, value in entry.headers.items()},
        kind=entry.kind,
        connect_timeout_s=entry.connect_timeout_s,
        timeout_s=entry.timeout_s,
        ca_file=entry.ca_file,
    )
    chats = speaks is None or "chat" in speaks
    chat = wire if chats else _litellm(entry, "anthropic", root.removesuffix("/v1"))
    return Translating(wire, chat, speaks, to_openai=urlsplit(root).hostname == "api.openai.com")


def _litellm(entry: UpstreamConfig, provider: str, base_url: str) -> LitellmUpstream:
    return LitellmUpstream(
        name=entry.name,
        provider=provider,
        api_key=entry.api_key or None,
        base_url=base_url or None,
        extra=entry.options,
        model_names=[pattern for pattern in entry.models if "*" not in pattern],
        timeout_s=entry.timeout_s,
    )
