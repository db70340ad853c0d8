"""`memrelay bench proxy`: every side answers, every figure is there, and the picture shows them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from proxy.config import Config
from proxy.evaluation import edge, edge_drawing, sides
from proxy.evaluation.load import Connection, LoadFailed
from proxy.evaluation.mock import ANSWER, FRAMES

FIGURES = {
    "added_p50_ms",
    "added_p99_ms",
    "rps",
    "streamed_rps",
    "cpu_ms_per_request",
    "cpu_ms_per_chunk",
    "added_first_token_ms",
    "rss_mb",
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("edge")
    (folder / "models").symlink_to(models_dir)
    options = edge.Options(memories=20, turns=1, alone=6, together_s=0.2, streams=4)
    return asyncio.run(edge.measure(Config(data=str(folder)), options, lambda *_: None))


def test_every_side_has_every_figure(measured: dict[str, Any]) -> None:
    for side in ("direct", "off", "on"):
        assert measured[side].keys() >= FIGURES
        assert measured[side]["rps"] > 0
        assert measured[side]["streamed_rps"] > 0


def test_memory_costs_something_and_nothing_is_added_to_asking_directly(measured: dict[str, Any]) -> None:
    assert measured["direct"]["added_p50_ms"] == 0
    assert measured["on"]["cpu_ms_per_request"] > measured["off"]["cpu_ms_per_request"]


def test_no_frame_of_the_held_streams_is_lost(measured: dict[str, Any]) -> None:
    assert measured["streams"]["off"]["frames"] == 4 * FRAMES
    assert measured["streams"]["off"]["lost"] == 0


def test_the_picture_shows_every_side(measured: dict[str, Any]) -> None:
    picture = ElementTree.fromstring(edge_drawing.draw(measured))
    assert {element.get("class") for element in picture.iter()} >= {"direct", "off", "on"}


async def test_the_client_sees_frames_as_the_server_cut_them() -> None:
    async with sides.mock() as server:
        connection = Connection(server.port, {})
        got = await connection.ask(b'{"model":"paced","stream":true}')
        again = await connection.ask(b'{"model":"quick"}')
        connection.close()
    frames = [re.findall(rb"<(\d+)>", chunk) for _, chunk in got.chunks]
    assert [int(number) for found in frames for number in found] == list(range(FRAMES))
    assert ANSWER.encode() in again.body


async def test_a_server_that_hangs_up_is_noticed() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        with pytest.raises(LoadFailed):
            await Connection(server.sockets[0].getsockname()[1], {}).ask(b"{}")
