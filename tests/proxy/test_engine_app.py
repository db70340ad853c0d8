"""The engine's HTTP face: the real small model behind real uvicorn, asked by the real openai client."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest
import uvicorn

from memory.activation.states import Budgets, Held
from memory.activation.store import States
from memory.engine.engine import Engine
from memory.engine.errors import NoModel
from memory.engine.settings import EngineSettings, bundled_model
from proxy.engine_app import build, serve
from proxy.engine_states import worth

SYSTEM = "You are a helpful assistant. " + " ".join(f"Item {i} costs {i * 7} coins." for i in range(12))
ENDLESS: dict[str, Any] = {"max_tokens": 3000, "logit_bias": {"2": -100}}  # 2 would end the answer
CHINESE = "窗前明月光，疑是地上霜。举头望明月，低头思故乡。"


def ask(question: str = "Tell me about cats.", **body: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    return {"model": "small", "messages": messages, "temperature": 0, "seed": 1, "max_tokens": 24} | body


@contextmanager
def listening(engine: Engine) -> Iterator[str]:
    """The app on a free port, in a thread with its own event loop."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        config = uvicorn.Config(
            build(engine), http="httptools", loop="uvloop", ws="none", lifespan="off", log_level="error"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([sock],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(EngineSettings(bundled_model(), "small"))
    engine.start()
    asyncio.run(engine.ready())
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def url(engine: Engine) -> Iterator[str]:
    with listening(engine) as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def raw(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, timeout=30) as raw:
        yield raw


async def streamed(client: openai.AsyncOpenAI, body: dict[str, Any]) -> list[Any]:
    return [chunk async for chunk in await client.chat.completions.create(**body, stream=True)]


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def test_streamed_text_is_the_text(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(**ask())
    chunks = await streamed(client, ask())
    assert text_of(chunks) == whole.choices[0].message.content != ""


async def test_stream_has_the_shape_clients_know(raw: httpx.AsyncClient) -> None:
    body = ask("Say hi.", max_tokens=3, stream=True, stream_options={"include_usage": True})
    reply = await raw.post("/v1/chat/completions", json=body)
    events = reply.text.split("\n\n")
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [msgspec.json.decode(event.removeprefix("data: ")) for event in events[:-2]]
    assert {(chunk["id"], chunk["object"], chunk["model"]) for chunk in chunks} == {
        (chunks[0]["id"], "chat.completion.chunk", "small")
    }
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert chunks[-2]["choices"][0]["delta"] == {}
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 3
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


async def test_no_usage_chunk_unless_asked_for(client: openai.AsyncOpenAI) -> None:
    chunks = await streamed(client, ask(max_tokens=2))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_four_users_get_what_each_gets_alone(client: openai.AsyncOpenAI) -> None:
    bodies = [ask(f"Tell me about {it}.", max_tokens=40) for it in ("the sea", "a dog", "old trains", "tea")]
    together = await asyncio.gather(*(streamed(client, body) for body in bodies))
    alone = [await streamed(client, body) for body in bodies]
    assert [text_of(chunks) for chunks in together] == [text_of(chunks) for chunks in alone]


async def test_same_prefix_is_cached_and_gives_the_same_text(client: openai.AsyncOpenAI) -> None:
    body = ask("What is never asked elsewhere? " * 5)
    body["messages"][0] = {"role": "system", "content": "Only here. " * 30}
    cold = await client.chat.completions.create(**body)
    warm = await client.chat.completions.create(**body)
    assert warm.usage.prompt_tokens_details.cached_tokens > cold.usage.prompt_tokens_details.cached_tokens
    assert warm.usage.prompt_tokens_details.cached_tokens == warm.usage.prompt_tokens - 2
    assert warm.choices[0].message.content == cold.choices[0].message.content


async def test_stop_and_max_tokens(client: openai.AsyncOpenAI) -> None:
    whole = (await client.chat.completions.create(**ask())).choices[0]
    stop = whole.message.content[10:14]
    cut = (await client.chat.completions.create(**ask(stop=stop))).choices[0]
    assert (whole.finish_reason, cut.finish_reason) == ("length", "stop")
    assert cut.message.content == whole.message.content.split(stop)[0]


async def test_chinese_streams_as_whole_characters(client: openai.AsyncOpenAI) -> None:
    # a grammar leaves the model no choice but to say these words; its vocabulary splits their characters
    schema = {"type": "object", "properties": {"poem": {"const": CHINESE}}, "required": ["poem"]}
    form = {"type": "json_schema", "json_schema": {"name": "poem", "schema": schema}}
    chunks = await streamed(client, ask("写诗", response_format=form, max_tokens=300))
    assert msgspec.json.decode(text_of(chunks)) == {"poem": CHINESE}
    assert "\ufffd" not in text_of(chunks)
    assert len(chunks) > 20


async def test_logprobs_stand_beside_the_text(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(**ask(max_tokens=4, logprobs=True, top_logprobs=2))
    tokens = reply.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == reply.choices[0].message.content
    assert all(token.logprob == token.top_logprobs[0].logprob <= 0 for token in tokens)


async def test_tools_that_the_template_does_not_know_are_ignored(client: openai.AsyncOpenAI) -> None:
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    with_tools = await client.chat.completions.create(**ask(max_tokens=4), tools=tools)
    without = await client.chat.completions.create(**ask(max_tokens=4))
    assert with_tools.choices[0].message.content == without.choices[0].message.content


async def test_embeddings_that_the_model_does_not_offer_are_a_clear_400(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.embeddings.create(model="small", input="Hello.")
    assert refused.value.code == "embeddings_not_offered"


@pytest.mark.parametrize("given", [[], ["a", 1], {"a": 1}])
async def test_embeddings_of_no_text_are_a_clear_400(raw: httpx.AsyncClient, given: Any) -> None:
    reply = await raw.post("/v1/embeddings", json={"model": "small", "input": given})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_value")


async def test_models_and_health(client: openai.AsyncOpenAI, raw: httpx.AsyncClient) -> None:
    assert [model.id async for model in client.models.list()] == ["small"]
    health = await raw.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "ok")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (ask("word " * 5000), "context_length_exceeded", "messages"),
        (ask(n=2), "invalid_value", "n"),
        (ask(tool_choice="required"), "invalid_value", "tool_choice"),
        (ask(stream=True, logit_bias={"999999": 1}), "invalid_value", "logit_bias"),
        (
            ask(messages=[{"role": "user", "content": [{"type": "input_audio"}]}]),
            "invalid_value",
            "messages.[0].content",
        ),
    ],
)
async def test_what_cannot_be_done_is_a_clear_400(
    client: openai.AsyncOpenAI, body: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(**body)
    assert (refused.value.code, refused.value.param) == (code, param)


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code"),
    [
        ("POST", "/v1/chat/completions", b'{"messages": [', 400, "invalid_json"),
        ("POST", "/v1/chat/completions", b'"\xff"', 400, "invalid_json"),
        ("POST", "/v1/chat/completions", b"[]", 400, "invalid_value"),
        ("GET", "/v1/chat/completions", b"", 405, "method_not_allowed"),
        ("GET", "/v1/nothing", b"", 404, "not_found"),
    ],
)
async def test_errors_have_openais_shape(
    raw: httpx.AsyncClient, method: str, path: str, content: bytes, status: int, code: str
) -> None:
    reply = await raw.request(method, path, content=content)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


async def test_hanging_up_a_stream_frees_its_slot(client: openai.AsyncOpenAI, engine: Engine) -> None:
    before = engine.state
    stream = await client.chat.completions.create(**ask(**ENDLESS), stream=True)
    await anext(stream)
    assert engine.state.busy == 1
    await stream.close()
    assert await asyncio.to_thread(engine.drain, 5)
    assert engine.state.cancelled == before.cancelled + 1


async def test_hanging_up_while_working_or_waiting_frees_everything(raw: httpx.AsyncClient, engine: Engine) -> None:
    before = engine.state
    calls = [asyncio.create_task(raw.post("/v1/chat/completions", json=ask(**ENDLESS))) for _ in range(6)]
    async with asyncio.timeout(10):
        while (engine.state.busy, engine.state.waiting) != (4, 2):  # noqa: ASYNC110 - the state is another thread's
            await asyncio.sleep(0.005)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert await asyncio.to_thread(engine.drain, 5)
    assert (engine.state.busy, engine.state.waiting) == (0, 0)
    assert engine.state.cancelled == before.cancelled + 6


async def test_a_loading_model_is_503() -> None:
    with listening(Engine(EngineSettings(bundled_model(), "small"))) as url:
        async with httpx.AsyncClient(base_url=url) as raw:
            health = await raw.get("/health")
            assert (health.status_code, health.json()["status"]) == (503, "loading")
            reply = await raw.post("/v1/chat/completions", json=ask())
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_loading")


async def test_serving_ends_when_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(NoModel):
        await serve(EngineSettings(tmp_path / "none.gguf", "small"), "127.0.0.1", 0)


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An engine with saved states; its URL."""
    states = States(tmp_path_factory.mktemp("kv"), Budgets(), worth=worth, settle_s=0.0)
    engine = Engine(EngineSettings(bundled_model(), "small", slots=2, context=1024), states)
    engine.start()
    asyncio.run(engine.ready())
    with listening(engine) as url:
        yield url
    engine.close()
    states.close()


@pytest.fixture
async def kv(keeping: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=keeping, timeout=30) as kv:
        yield kv


def whose(cube: str, session: str = "s1") -> dict[str, str]:
    return {"x-memory-cube": cube, "x-memory-session": session}


async def test_prefix_built_over_http_is_what_a_chat_begins_with(kv: httpx.AsyncClient) -> None:
    asked = {"cube": "ann", "messages": ask()["messages"][:1]}
    built, again = [(await kv.post("/v1/kv/states", json=asked)).json() for _ in range(2)]
    assert (built["state"], again["state"], again["key"]) == ("built", "present", built["key"])
    reply = await kv.post("/v1/chat/completions", json=ask(max_tokens=2), headers=whose("ann"))
    assert reply.headers["x-memory-kv"] == f"restored:{built['tokens']}"
    assert reply.headers["x-memory-kv-source"] == "ram"
    streamed = await kv.post("/v1/chat/completions", json=ask(max_tokens=2, stream=True), headers=whose("ann"))
    assert streamed.headers["x-memory-kv-source"] == "slot"
    stranger = await kv.post("/v1/chat/completions", json=ask(max_tokens=2), headers=whose("bob"))
    assert (stranger.headers["x-memory-kv"], "x-memory-kv-source" in stranger.headers) == ("cold", False)


async def test_states_are_listed_and_counted(kv: httpx.AsyncClient) -> None:
    built = (await kv.post("/v1/kv/states", json={"cube": "eve", "messages": ask()["messages"][:1]})).json()
    [state] = (await kv.get("/v1/kv/states", params={"cube": "eve"})).json()["data"]
    assert {name: state[name] for name in ("key", "tokens", "bytes")} == {
        n: built[n] for n in ("key", "tokens", "bytes")
    }
    assert (state["cube"], state["sort"], state["ram"], state["uses"]) == ("eve", "prefix", True, 0)
    told = (await kv.get("/v1/kv")).json()
    assert (told["status"], told["enabled"], told["ram_budget"]) == ("ready", True, 512 * 2**20)
    assert told["ram_bytes"] >= built["bytes"]
    assert told["counts"]["saved"] >= 1


async def test_forgetting_a_cube_over_http(kv: httpx.AsyncClient) -> None:
    await kv.post("/v1/chat/completions", json=ask(max_tokens=2), headers=whose("joe"))
    await kv.post("/v1/kv/states", json={"cube": "joe", "messages": ask()["messages"][:1]})
    forgotten = (await kv.delete("/v1/kv/cubes/joe")).json()
    assert (forgotten["cube"], forgotten["states"], forgotten["slots"]) == ("joe", 1, 1)
    assert (await kv.get("/v1/kv/states", params={"cube": "joe"})).json()["data"] == []
    reply = await kv.post("/v1/chat/completions", json=ask(max_tokens=2), headers=whose("joe"))
    assert reply.headers["x-memory-kv"] == "cold"


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "code"),
    [
        ("POST", "/v1/kv/states", {"cube": "../x", "messages": []}, {}, "invalid_value"),
        ("POST", "/v1/kv/states", {"cube": "ann"}, {}, "invalid_json"),
        ("POST", "/v1/kv/states", {"cube": "ann", "messages": [{"role": "wizard"}]}, {}, "invalid_value"),
        ("POST", "/v1/chat/completions", ask(), {"x-memory-cube": "../x"}, "invalid_value"),
        ("DELETE", "/v1/kv/cubes/..%00", None, {}, "invalid_value"),
    ],
)
async def test_what_is_no_cube_and_no_prefix_is_refused(
    kv: httpx.AsyncClient, method: str, path: str, body: Any, headers: dict[str, str], code: str
) -> None:
    reply = await kv.request(method, path, json=body, headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, code)


async def test_engine_without_states_says_so(raw: httpx.AsyncClient) -> None:
    assert (await raw.get("/v1/kv")).json()["enabled"] is False
    reply = await raw.post("/v1/kv/states", json={"cube": "ann", "messages": ask()["messages"][:1]})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_value")
    assert (await raw.delete("/v1/kv/cubes/ann")).json()["states"] == 0


def test_a_much_used_state_and_one_made_ahead_are_worth_more() -> None:
    def held(sort: str, uses: int) -> Held:
        return Held("k", "c", sort, "", 10, 10, True, True, uses, 1000.0, 1000.0, "")

    assert worth(held("session", 0), 2000.0) < worth(held("prefix", 0), 2000.0) < worth(held("session", 5), 2000.0)
