"""How much of a prompt is an unchanged prefix of the one before it, which is what caches of prompts can keep: for no memory, for
ours, and for the habit of writing what was found into the system prompt, each over the real proxy to an upstream that records.

In: nothing but a configuration with a folder of its own. Out: shares of tokens, per kind of client and request. Tokens are words
and signs of the prompt as a chat template would put it; the ratio is what matters, and it hardly depends on the tokenizer.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from proxy import app, db
from proxy.config import Config, UpstreamConfig
from proxy.evaluation.clients import CLIENTS, KNOWN, QUESTIONS, Client, Message, Talking, answer
from proxy.evaluation.recorder import Upstream, serving
from proxy.keys import Keys

ARMS = ("none", "ours", "system_prompt")
FORGOTTEN = "forgotten"  # the kind of session in which something that it was shown is erased
_TOKEN = re.compile(r"\s?[^\W_]+|\s+|.", re.DOTALL)
_FOUND = 8  # memories that the habit puts into its system prompt
_ADDED = (
    (3, "fact", "The user's sister Amara has moved to a flat near the harbour of Tallinn."),
    (7, "preference", "The user prefers hotels with a kitchen."),
    (11, "fact", "The user's budget for the journey has grown by 200 euros."),
    (16, "goal", "The user wants to learn to greet people in Estonian."),
)
_CHANGED_AT, _FORGET_AT = 9, 13

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Tally:
    """A session's requests: (tokens, tokens that are an unchanged prefix of the request before, tokens of that request)."""

    requests: list[tuple[int, int, int]] = field(default_factory=list)
    before: list[str] = field(default_factory=list)

    def add(self, body: Mapping[str, Any]) -> None:
        """Count one more request."""
        now = _TOKEN.findall(prompt(body))
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(self.before, now, strict=False)))
        if self.before:
            self.requests.append((len(now), same, len(self.before)))
        self.before = now


async def measure(config: Config, progress: Progress) -> dict[str, Any]:
    """Every kind of client by every arm. `config.data` is a folder for this alone; see run.temporary."""
    numbers = itertools.count()
    upstream = Upstream(lambda body: _say(body, next(numbers)))
    kinds: dict[str, Client] = {**CLIENTS, FORGOTTEN: CLIENTS["plain"]}
    tallies: dict[tuple[str, str], Tally] = {}
    async with serving(upstream.app) as behind:
        recorder = UpstreamConfig(name="recorder", kind="openai", base_url=f"{behind}/v1")
        settings = msgspec.structs.replace(config.memory, deadline_ms=30_000)
        alone = msgspec.structs.replace(config, upstreams=(recorder,), memory=settings)
        db.upgrade(alone)
        async with serving(app.build(alone, alone=True)) as front, aiohttp.ClientSession() as http:
            for place, (kind, arm) in enumerate(itertools.product(kinds, ARMS)):
                progress(f"{kind}, {arm}", place, len(kinds) * len(ARMS))
                walk = _Walk(http, front, await _key(alone), arm, upstream, forgets_shown=kind == FORGOTTEN)
                tallies[kind, arm] = await walk.session(kinds[kind])
    return _figures(tallies, list(kinds))


class _Walk:
    """One session of one client, and the other sessions that change memory beside it."""

    def __init__(
        self, http: aiohttp.ClientSession, url: str, key: str, arm: str, upstream: Upstream, *, forgets_shown: bool
    ) -> None:
        self._http = http
        self._url = url
        self._named = {"authorization": f"Bearer {key}"}
        self._arm = arm
        self._upstream = upstream
        self._forgets_shown = forgets_shown
        self._shown: list[str] = []  # ids of memories that this session has had in its prompts
        self._ids: list[str] = []  # of what earlier sessions have left, as in KNOWN

    async def session(self, client: Client) -> Tally:
        for kind, text in KNOWN:
            made = await self._api("POST", "/v1/memory/items", {"kind": kind, "text": text})
            self._ids.append(str(made["id"]))
        talk, tally = Talking(), Tally()
        mode = {"none": "off", "ours": "on", "system_prompt": "write"}[self._arm]
        turn = 0
        for body in client(talk):
            if body is None:
                await self._others(turn)
                turn += 1
                continue
            if self._arm == "system_prompt":
                body = await self._habit(body)
            headers = {**self._named, **talk.headers, "x-memory": mode}
            async with self._http.post(f"{self._url}/v1/chat/completions", json=body, headers=headers) as reply:
                said = await reply.json()
                self._shown += [one for one in reply.headers.get("x-memory-ids", "").split(",") if one]
            tally.add(self._upstream.bodies[-1])
            talk.hear(said["choices"][0]["message"])
        return tally

    async def _habit(self, body: Message) -> Message:
        """What most memory layers do: search for the newest question, and write what is found into the system prompt."""
        asked = next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user")
        found = await self._api("POST", "/v1/memory/search", {"query": asked, "limit": _FOUND})
        self._shown += [str(hit["id"]) for hit in found["data"]]
        lines = "\n".join(f"- {hit['text']}" for hit in found["data"])
        first, *rest = body["messages"]
        told = f"{first['content']}\n\nRelevant memories of this user:\n{lines}" if lines else first["content"]
        return {**body, "messages": [{**first, "content": told}, *rest]}

    async def _others(self, turn: int) -> None:
        """What other sessions of the same user do between this turn and the next."""
        for at, kind, text in _ADDED:
            if at == turn:
                await self._api("POST", "/v1/memory/items", {"kind": kind, "text": text})
        if turn == _CHANGED_AT:
            text = "The user prefers night trains to planes, and planes to buses."
            await self._api("PATCH", f"/v1/memory/items/{self._ids[1]}", {"text": text})
        if turn == _FORGET_AT:
            facts = [one for one, (kind, _) in zip(self._ids, KNOWN, strict=True) if kind == "fact"]
            known = [one for one in facts if one in self._shown]
            unknown = [one for one in facts if one not in self._shown]
            for one in (known[len(known) // 2 :] if self._forgets_shown else unknown)[:1]:
                await self._api("DELETE", f"/v1/memory/items/{one}")

    async def _api(self, method: str, path: str, body: Any = None) -> Any:
        async with self._http.request(method, f"{self._url}{path}", json=body, headers=self._named) as reply:
            reply.raise_for_status()
            return await reply.json()


def prompt(body: Mapping[str, Any]) -> str:
    """The request's words in the order in which chat templates put them: tools, then the messages with their roles."""
    parts = [json.dumps(body.get("tools") or "", ensure_ascii=False)]
    for message in body["messages"]:
        calls = json.dumps(message["tool_calls"]) if message.get("tool_calls") else ""
        parts.append(f"<|{message['role']}|>{message.get('content') or ''}{calls}")
    return "\n".join(parts)


def _say(body: Mapping[str, Any], number: int) -> Message:
    """A tool call where tools are there and every third question asks for one, else words."""
    asked = [m["content"] for m in body["messages"] if m["role"] == "user"][-1]
    turn = next((place for place, question in enumerate(QUESTIONS) if asked.endswith(question)), 0)
    if body.get("tools") and turn % 3 == 1 and body["messages"][-1]["role"] == "user":
        call = {"id": f"call_{turn}", "type": "function", "function": {"name": "timetable", "arguments": "{}"}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"role": "assistant", "content": answer(turn)}


async def _key(config: Config) -> str:
    database = db.open_database(config)
    try:
        return (await Keys(database).create("bench")).secret
    finally:
        await database.close()


def _figures(tallies: Mapping[tuple[str, str], Tally], kinds: Sequence[str]) -> dict[str, Any]:
    def share(chosen: Sequence[Tally]) -> float:
        requests = [one for tally in chosen for one in tally.requests]
        return round(sum(same for _, same, _ in requests) / max(sum(all_ for all_, _, _ in requests), 1), 4)

    def lost(chosen: Sequence[Tally]) -> int:
        return sum(before - same for tally in chosen for _, same, before in tally.requests)

    by_arm = {arm: [tallies[kind, arm] for kind in kinds] for arm in ARMS}
    return {
        **{arm: share(by_arm[arm]) for arm in ARMS},
        "turns": len(QUESTIONS),
        "per_client": {kind: {arm: share([tallies[kind, arm]]) for arm in ARMS} for kind in kinds},
        "tokens": {arm: sum(all_ for tally in by_arm[arm] for all_, _, _ in tally.requests) for arm in ARMS},
        "tokens_no_longer_prefix": {arm: lost(by_arm[arm]) for arm in ARMS},
        "per_request": {
            kind: {arm: [round(same / all_, 4) for all_, same, _ in tallies[kind, arm].requests] for arm in ARMS}
            for kind in kinds
        },
    }
