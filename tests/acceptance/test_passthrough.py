"""Every other /v1 route: bytes out, bytes back, no memory; and nobody gets at what another key made."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import io
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from proxy import db
from proxy.keys import Keys
from tests.fakes import Received, RecordingUpstream, Reply, completion, response
from tests.live import LiveProxy, wait_for


@pytest.fixture(scope="module")
def upstream() -> Iterator[RecordingUpstream]:
    with RecordingUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def second() -> Iterator[RecordingUpstream]:
    with RecordingUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, upstream: RecordingUpstream, second: RecordingUpstream
) -> Iterator[LiveProxy]:
    folder = tmp_path_factory.mktemp("passthrough")
    (folder / "models").symlink_to(models_dir)
    upstreams = [
        {
            "name": "main",
            "kind": "openai",
            "base_url": upstream.url,
            "api_key": "sk-theirs",
            "models": ["m", "whisper*"],
        },
        {"name": "second", "kind": "openai", "base_url": second.url, "models": ["*"]},
    ]
    limits = {"body_bytes": 1_000_000, "upload_bytes": 8_000_000}
    server = {"cors_origins": ["https://chat.example.org"]}
    with LiveProxy(folder, upstreams=upstreams, limits=limits, server=server) as running:
        yield running


@pytest.fixture(autouse=True)
def quiet(upstream: RecordingUpstream, second: RecordingUpstream) -> None:
    for running in (upstream, second):
        running.requests.clear()
        running.cancelled = 0
        running.answer = lambda _: Reply(chunks=[b'{"object": "thing", "n": 1.0}'])


def ask(live: LiveProxy, key: str, method: str, path: str, **more: Any) -> httpx.Response:
    named = {"authorization": f"Bearer {key}", **more.pop("headers", {})}
    return httpx.request(method, f"{live.url}{path}", headers=named, timeout=30, **more)


def limited(live: LiveProxy, *models: str) -> str:
    """A key that may use these models only."""

    async def make() -> str:
        database = db.open_database(live.config)
        try:
            return (await Keys(database).create("limited", models=models)).secret
        finally:
            await database.close()

    return asyncio.run(make())


def listing(*ids: str) -> Reply:
    entries = ", ".join(f'{{"id": "{name}", "n": 1.0}}' for name in ids)
    return Reply(chunks=[f'{{"object": "list", "data": [ {entries} ], "has_more": false}}'.encode()])


# --- bytes ----------------------------------------------------------------------------------------------------------------


def test_embeddings_and_completions_come_through_the_sdk(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = live.key()
    vector = {"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}
    told = {"object": "list", "data": [vector], "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    upstream.answer = lambda _: Reply(chunks=[json.dumps(told).encode()])
    with live.client(key) as client:
        assert client.embeddings.create(model="m", input="hi", encoding_format="float").data[0].embedding == [0.5, 1.0]
    sent = upstream.last.headers
    assert (sent["authorization"], upstream.last.path) == ("Bearer sk-theirs", "/v1/embeddings")
    chunk = b'data: {"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"ab","x":1.0}]}\n\n'
    upstream.answer = lambda _: Reply(
        content_type="text/event-stream", chunks=[b": hi\n\n", chunk, b"data: [DONE]\n\n"]
    )
    with live.client(key) as client:
        stream = client.completions.create(model="m", prompt="a", stream=True)
        assert [part.choices[0].text for part in stream] == ["ab"]
    raw = ask(live, key, "POST", "/v1/completions", json={"model": "m", "prompt": "a", "stream": True})
    assert raw.content == b": hi\n\n" + chunk + b"data: [DONE]\n\n"
    assert live.items(key) == []


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/v1/a%2Fb/c?x=%20y&z=1", "/v1/messages/count_tokens", "/v1/rerank"]
)
def test_a_request_goes_out_as_it_came(live: LiveProxy, upstream: RecordingUpstream, path: str) -> None:
    raw = b'{ "model":"m", "n":1.00, "x":"\\u0041" }'
    answer = ask(
        live, live.key(), "POST", path, content=raw, headers={"content-type": "application/json", "x-odd": "1"}
    )
    assert answer.content == b'{"object": "thing", "n": 1.0}'
    assert upstream.last.raw == raw
    assert upstream.last.headers["x-odd"] == "1"
    assert upstream.last.target == path


def test_answers_that_are_no_json_pass_too(live: LiveProxy, upstream: RecordingUpstream) -> None:
    sound = bytes(range(256)) * 100
    upstream.answer = lambda _: Reply(content_type="audio/mpeg", chunks=[sound[:9], sound[9:]])
    with live.client(live.key()) as client:
        assert client.audio.speech.create(model="m", voice="alloy", input="hi").read() == sound


def test_an_upstreams_error_arrives_as_it_was(live: LiveProxy, upstream: RecordingUpstream) -> None:
    upstream.answer = lambda _: Reply(404, content_type="text/plain", chunks=[b"no such thing"])
    answer = ask(live, live.key(), "GET", "/v1/whatever/x")
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (404, "no such thing", "text/plain")


def test_a_packed_body_is_unpacked(live: LiveProxy, upstream: RecordingUpstream) -> None:
    raw = b'{"model": "m"}'
    named = {"content-encoding": "gzip", "content-type": "application/json"}
    assert ask(live, live.key(), "POST", "/v1/embeddings", content=gzip.compress(raw), headers=named).status_code == 200
    assert upstream.last.raw == raw


# --- large bodies -----------------------------------------------------------------------------------------------------------


def test_an_upload_goes_to_the_upstream_of_its_model(
    live: LiveProxy, upstream: RecordingUpstream, second: RecordingUpstream
) -> None:
    upstream.answer = second.answer = lambda _: Reply(chunks=[b'{"text": "hello"}'])
    sound = b"RIFF" + b"\x00" * 3_000_000
    with live.client(live.key()) as client:
        assert client.audio.transcriptions.create(model="whisper-1", file=("a.wav", io.BytesIO(sound))).text == "hello"
        assert client.audio.transcriptions.create(model="other", file=("a.wav", io.BytesIO(sound))).text == "hello"
    assert [len(running.requests) for running in (upstream, second)] == [1, 1]
    assert sound in upstream.last.raw
    assert upstream.last.headers["content-length"] == str(len(upstream.last.raw))


def test_an_upload_begins_to_go_out_before_it_has_come(live: LiveProxy, upstream: RecordingUpstream) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", live.port)
    connection.putrequest("POST", "/v1/files")
    for name, value in (
        ("authorization", f"Bearer {live.key()}"),
        ("content-type", "audio/wav"),
        ("content-length", "400000"),
    ):
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(b"x" * 200_000)
    wait_for(lambda: upstream.begun > 0, "the upstream to see the beginning")
    connection.send(b"x" * 200_000)
    assert connection.getresponse().status == 200
    connection.close()
    assert upstream.last.raw == b"x" * 400_000


@pytest.mark.parametrize("told", [True, False])
def test_too_large_an_upload_is_refused(live: LiveProxy, told: bool) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(9):
            yield b"x" * 1_000_000

    content: Any = b"x" * 9_000_000 if told else parts()
    answer = ask(live, live.key(), "POST", "/v1/files", content=content, headers={"content-type": "audio/wav"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    answer = ask(live, live.key(), "POST", "/v1/embeddings", json={"model": "m", "input": "x" * 1_000_001})
    assert answer.status_code == 413


def test_hanging_up_cancels_the_upstream(live: LiveProxy, upstream: RecordingUpstream) -> None:
    upstream.answer = lambda _: Reply(wait_s=20)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{live.url}/v1/embeddings", json={"model": "m"}, headers={"x-api-key": live.key()}, timeout=0.5)
    wait_for(lambda: upstream.cancelled == 1, "the upstream to see the hang-up", 3)


# --- whose ------------------------------------------------------------------------------------------------------------------


def test_what_a_key_made_is_not_there_for_another(live: LiveProxy, upstream: RecordingUpstream) -> None:
    mine, theirs = live.key(), live.key()
    upstream.answer = lambda _: Reply(chunks=[b'{"id": "file-mine0001", "object": "file"}'])
    assert ask(live, mine, "POST", "/v1/files", content=b"x", headers={"content-type": "audio/wav"}).status_code == 200
    upstream.answer = lambda _: listing("file-mine0001", "file-older001")
    assert [entry["id"] for entry in ask(live, mine, "GET", "/v1/files").json()["data"]] == [
        "file-mine0001",
        "file-older001",
    ]
    seen = ask(live, theirs, "GET", "/v1/files")
    assert seen.content == b'{"object": "list", "data": [{"id": "file-older001", "n": 1.0}], "has_more": false}'
    before = len(upstream.requests)
    for method, path, body in (
        ("GET", "/v1/files/file-mine0001/content", None),
        ("DELETE", "/v1/files/file-mine0001", None),
        ("GET", "/v1/files?after=file-mine0001", None),
        ("POST", "/v1/batches", {"input_file_id": "file-mine0001"}),
        ("POST", "/v1/responses", {"model": "m", "input": [{"role": "user", "content": [
            {"type": "input_file", "file_id": "file-mine0001"}, {"type": "input_text", "text": "?"}]}]}),
    ):  # fmt: skip
        answer = ask(live, theirs, method, path, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
    assert len(upstream.requests) == before
    assert ask(live, mine, "DELETE", "/v1/files/file-mine0001").status_code == 200


def made_by(live: LiveProxy, upstream: RecordingUpstream, key: str, name: str) -> None:
    """Something with this id at the upstream that the key has made."""
    upstream.answer = lambda _: Reply(chunks=[json.dumps({"id": name}).encode()])
    assert ask(live, key, "POST", "/v1/things", json={}).status_code == 200
    upstream.answer = lambda _: Reply(chunks=[b'{"object": "thing", "n": 1.0}'])
    upstream.requests.clear()


FIELD = b'--b\r\ncontent-disposition: form-data; name="file_id"\r\n\r\nfile-NAME\r\n'
UPLOAD = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(300_000) + b"\r\n"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=b", FIELD + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", FIELD + UPLOAD + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", UPLOAD + FIELD + b"--b--\r\n"),
        ("application/x-www-form-urlencoded", b"x=1&file_id=file%2DNAME"),
        ("Application/JSON", json.dumps({"x": "y" * 900_000, "file_id": "file-NAME"}).encode()),
    ],
)
def test_a_form_cannot_name_what_another_key_made(
    live: LiveProxy, upstream: RecordingUpstream, kind: str, body: bytes
) -> None:
    mine, theirs, path = live.key(), live.key(), "/v1/containers/cntr_of_all/files"
    name = uuid.uuid4().hex
    body = body.replace(b"NAME", name.encode())
    made_by(live, upstream, mine, f"file-{name}")
    answer = ask(live, theirs, "POST", path, content=body, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, f"there is no 'file-{name}'")
    assert upstream.requests == []
    assert ask(live, mine, "POST", path, content=body, headers={"content-type": kind}).status_code == 200
    assert upstream.last.raw == body


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/fine_tuning/jobs", {"training_files": [{"file_id": "NAME"}]}),
        ("/v1/fine_tuning/jobs", {"training_file": "NAME"}),
        ("/v1/vector_stores", {"file_ids": ["unknown-to-all", "NAME"]}),
        ("/v1/responses", {"model": "m", "input": "Hi", "previous_response_id": "NAME"}),
        ("/v1/responses", {"model": "m", "input": "Hi", "conversation": {"id": "NAME"}}),
    ],
)
def test_an_id_of_an_upstreams_own_shape_is_its_makers_too(
    live: LiveProxy, upstream: RecordingUpstream, path: str, body: dict[str, Any]
) -> None:
    mine, theirs = live.key(), live.key()
    name = str(uuid.uuid4())
    made_by(live, upstream, mine, name)
    answer = ask(live, theirs, "POST", path, content=json.dumps(body).replace("NAME", name))
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, f"there is no {name!r}")
    assert upstream.requests == []


def test_an_id_that_a_client_gives_itself_is_its_own(live: LiveProxy, upstream: RecordingUpstream) -> None:
    mine, theirs = live.key(), live.key()
    upstream.answer = lambda _: Reply(chunks=[b'{"id": "my-own-name"}'])
    assert ask(live, mine, "POST", "/v1/things", json={"id": "my-own-name"}).status_code == 200
    assert ask(live, theirs, "GET", "/v1/things/my-own-name").status_code == 404


def test_what_was_there_before_stays_everybodys(live: LiveProxy, upstream: RecordingUpstream) -> None:
    mine, theirs, path = live.key(), live.key(), "/v1/vector_stores/vs_of_the_account"
    upstream.answer = lambda _: Reply(chunks=[b'{"id": "vs_of_the_account"}'])
    for method, key in (("GET", mine), ("POST", mine), ("GET", theirs), ("POST", theirs)):
        assert ask(live, key, method, path, json={"name": "ours"}).status_code == 200
        flushed(live)


def flushed(live: LiveProxy) -> None:
    wait_for(lambda: not live.parts.background.tasks, "what is written behind requests")


def test_an_upstream_without_a_path_is_not_left_for_another_host(data: Path, upstream: RecordingUpstream) -> None:
    entry = {"name": "root", "kind": "openai", "base_url": upstream.url.removesuffix("/v1"), "headers": {"x-key": "s"}}
    with RecordingUpstream() as elsewhere, LiveProxy(data, upstreams=[entry]) as live:
        connection = http.client.HTTPConnection("127.0.0.1", live.port)
        path = f"/v1%2f@127.0.0.1:{elsewhere.port}/v1/x"
        connection.request("GET", path, headers={"authorization": f"Bearer {live.key()}"})
        assert connection.getresponse().status == 404
        connection.close()
        assert elsewhere.requests == []


def test_a_stored_response_is_had_again_from_where_it_lies(
    live: LiveProxy, upstream: RecordingUpstream, second: RecordingUpstream
) -> None:
    key = live.key()
    made: list[dict[str, Any]] = []

    def answer(received: Received) -> Reply:
        if received.method == "POST" and received.path == "/v1/responses":
            made.append(response("Noted."))
        return Reply(chunks=[json.dumps(made[-1]).encode()])

    second.answer = answer
    with live.client(key) as client:
        first = client.responses.create(model="elsewhere", input="My stoat is called Ned.", background=True)
        assert client.responses.retrieve(first.id).id == first.id
        client.responses.cancel(first.id)
        client.responses.delete(first.id)
        client.responses.input_items.list(first.id)
    ways = [
        (received.method, received.path.removeprefix(f"/v1/responses/{first.id}")) for received in second.requests[1:]
    ]
    assert ways == [("GET", ""), ("POST", "/cancel"), ("DELETE", ""), ("GET", "/input_items")]
    assert upstream.requests == []
    with live.client(live.key()) as other, pytest.raises(openai.NotFoundError):
        other.responses.retrieve(first.id)


def test_stored_completions_are_listed_without_those_of_others(live: LiveProxy, upstream: RecordingUpstream) -> None:
    mine, theirs = live.key(), live.key()
    said = json.loads(completion("Noted."))
    upstream.answer = lambda _: Reply(chunks=[json.dumps({**said, "id": "chatcmpl-mine0001"}).encode()])
    with live.client(mine) as client:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], store=True)
    upstream.answer = lambda _: listing("chatcmpl-mine0001", "chatcmpl-older001")
    for key, count in ((mine, 2), (theirs, 1)):
        with live.client(key) as client:
            assert len(client.chat.completions.list(model="m").data) == count
    assert upstream.last.target == "/v1/chat/completions?model=m"


@pytest.mark.parametrize("body", [{"input": "Hi"}, {"model": "m"}, {}, {"input": None, "model": None}])
def test_what_a_response_need_not_name_is_the_upstreams_affair(
    live: LiveProxy, upstream: RecordingUpstream, body: dict[str, Any]
) -> None:
    assert ask(live, live.key(), "POST", "/v1/responses", json=body).status_code == 200
    assert upstream.last.body == body
    refused = ask(live, limited(live, "m"), "POST", "/v1/responses", json={"input": "Hi"})
    assert refused.json()["error"]["param"] == "model"


def test_a_keys_models_hold_on_every_surface(live: LiveProxy, upstream: RecordingUpstream) -> None:
    key = limited(live, "m")
    assert ask(live, key, "POST", "/v1/embeddings", json={"model": "m", "input": "x"}).status_code == 200
    field = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n'
    two = field % b"m" + field % b"whisper-1" + b"--b--\r\n"
    for path, more, status in (
        ("/v1/embeddings", {"json": {"model": "other", "input": "x"}}, 404),
        ("/v1/responses", {"json": {"model": "other", "input": "x"}}, 404),
        ("/v1/messages", {"json": {"model": "other", "messages": []}}, 404),
        ("/v1/audio/transcriptions", {"data": {"model": "whisper-1"}, "files": {"file": b"x"}}, 404),
        ("/v1/audio/transcriptions", {"content": two, "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400),
        ("/v1/batches", {"json": {"input_file_id": "file-x"}}, 403),
        ("/v1/things", {"content": b"[1]"}, 403),
    ):  # fmt: skip
        assert ask(live, key, "POST", path, **more).status_code == status, path
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("embeddings?model=m", "application/json", b'{"model": "other", "input": "x", "seed": NaN}'),
        ("embeddings?model=m", "application/json", b'\xef\xbb\xbf{"model": "other", "input": "x"}'),
        ("embeddings?model=m", "application/json", '{"model": "other", "input": "x"}'.encode("utf-16")),
        ("embeddings?model=m&model=other", "application/json", b'{"model": "m", "input": "x"}'),
        ("embeddings?model=m", "application/json", b'{"input": "x"}'),
        ("embeddings?model=m", "multipart/form-data; boundary=b", b'{"model": "other", "input": "x"}'),
        ("completions?model=m", "application/x-www-form-urlencoded", b"model=other"),
        ("embeddings", "application/json", b'{"model": "other", "input": "x", "model": "m"}'),
        ("embeddings", "application/json", b'{"model": "m", "input": "x", "Model": "other"}'),
        ("embeddings", "application/json", b'{"model": "m", "input": "x", "mod\\u0065l": "other"}'),
        ("chat/completions", "application/json", b'{"model": "other", "messages": [], "model": "m"}'),
        ("chat/completions", "application/json", b'{"model": "m", "messages": [], "MODEL": "other"}'),
        ("chat/completions", "application/json", b'{"model": "m", "messages": [], "models": ["other"]}'),
        ("responses", "application/json", '{"model": "m", "input": "x"}'.encode("utf-16")),
        ("messages", "application/json", b'{"model": "m", "messages": [], "fallbacks": [{"model": "other"}]}'),
        (
            "messages/batches?model=m",
            "application/json",
            b'{"model": "m", "requests": [{"params": {"model": "other"}}]}',
        ),
    ],
)
def test_a_keys_models_hold_in_every_spelling(
    live: LiveProxy, upstream: RecordingUpstream, second: RecordingUpstream, path: str, kind: str, body: bytes
) -> None:
    answer = ask(live, limited(live, "m"), "POST", f"/v1/{path}", content=body, headers={"content-type": kind})
    assert answer.status_code in (400, 403, 404)
    assert upstream.requests == second.requests == []


def test_a_key_with_a_list_of_models_uses_what_it_made_but_starts_nothing_with_it(
    live: LiveProxy, upstream: RecordingUpstream
) -> None:
    key = limited(live, "m")
    upstream.answer = lambda _: Reply(chunks=[json.dumps(response("Noted.", id="resp_made_by_m")).encode()])
    assert ask(live, key, "POST", "/v1/responses", json={"model": "m", "input": "Hi"}).status_code == 200
    for path, body in (
        ("/v1/batches", {"input_file_id": "resp_made_by_m"}),
        ("/v1/messages/batches", {"requests": [], "x": "resp_made_by_m"}),
        ("/v1/embeddings?x=resp_made_by_m", {"input": "x"}),
        ("/v1/threads/resp_made_by_m/runs", {"assistant_id": "asst_12345678"}),
    ):
        assert ask(live, key, "POST", path, json=body).status_code == 403, path
    assert ask(live, key, "POST", "/v1/responses/resp_made_by_m/cancel").status_code == 200
    assert len(upstream.requests) == 2


def test_without_the_scope_nothing_passes(live: LiveProxy, upstream: RecordingUpstream) -> None:
    for key, status in ((live.key("memory:read"), 403), ("sk-mem-none", 401)):
        for path in ("/v1/embeddings", "/v1/files", "/v1/responses", "/v1/messages"):
            assert ask(live, key, "POST", path, json={"model": "m"}).status_code == status
    assert upstream.requests == []


# --- the edge ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../admin",
        "/v1/%2e%2e/admin",
        "/v1/files/..%2f..%2fadmin",
        "/v1/files/%5c..%5cadmin",
        "/v1/./x",
        "/v1%2f@127.0.0.1:1/x",
        "/%76%31/x",
    ],
)
def test_no_path_climbs_out_of_the_upstreams_api(live: LiveProxy, upstream: RecordingUpstream, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", live.port)
    connection.request("GET", path, headers={"authorization": f"Bearer {live.key()}"})
    assert connection.getresponse().status == 404
    connection.close()
    assert upstream.requests == []


@pytest.mark.parametrize("path", ["/v1/realtime?model=m", "/v1/responses"])
def test_websockets_are_refused_clearly(live: LiveProxy, upstream: RecordingUpstream, path: str) -> None:
    named = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": "x" * 22 + "==",
        "sec-websocket-version": "13",
    }
    answer = ask(live, live.key(), "GET", path, headers=named)
    assert (answer.status_code, answer.json()["error"]["code"]) == (426, "websocket_not_supported")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/memory/items"]
)
def test_pages_of_known_origins_may_call(live: LiveProxy, path: str) -> None:
    wanted = "authorization,content-type,x-stainless-lang,x-memory-session"
    named = {"origin": "https://chat.example.org", "access-control-request-method": "POST",
             "access-control-request-headers": wanted}  # fmt: skip
    preflight = httpx.options(f"{live.url}{path}", headers=named)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://chat.example.org"
    assert preflight.headers["access-control-allow-headers"] == wanted
    refused = httpx.options(f"{live.url}{path}", headers={**named, "origin": "https://evil.example.org"})
    assert "access-control-allow-origin" not in refused.headers
    answer = httpx.post(f"{live.url}{path}", headers={"origin": "https://chat.example.org"})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == "https://chat.example.org"


def test_models_are_listed_with_their_slashes(live: LiveProxy) -> None:
    key = live.key()
    with live.client(key) as client:
        assert "org/fake-2" in [model.id for model in client.models.list()]
        assert client.models.retrieve("org/fake-2").id == "org/fake-2"
    assert ask(live, key, "HEAD", "/v1/models").status_code == 200


def test_anthropics_client_lists_models_too(live: LiveProxy) -> None:
    with live.anthropic(live.key()) as client:
        page = client.models.list()
        assert [(model.id, model.display_name) for model in page] == [(name, name) for name in ("fake", "org/fake-2")]
        assert not page.has_more


def test_counting_tokens_is_the_upstreams_affair(live: LiveProxy, upstream: RecordingUpstream) -> None:
    upstream.answer = lambda _: Reply(chunks=[b'{"input_tokens": 7}'])
    with live.anthropic(live.key()) as client:
        asked: Any = [{"role": "user", "content": "Hello"}]
        assert client.messages.count_tokens(model="m", messages=asked).input_tokens == 7
    assert upstream.last.body["messages"] == asked


def test_metrics_count_each_family(live: LiveProxy) -> None:
    ask(live, live.key(), "POST", "/v1/embeddings", json={"model": "m"})
    assert 'memrelay_requests_total{route="embeddings",status="200"}' in httpx.get(f"{live.url}/metrics").text
