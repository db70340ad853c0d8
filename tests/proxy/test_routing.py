"""Which upstream serves a model, and what the list of models shows."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config import Config, UpstreamConfig
from proxy.errors import BadRequest, ModelNotFound, UpstreamTimeout
from proxy.upstreams.routing import Routes, make


class Offering:
    """An upstream that offers these models, or cannot be asked."""

    kind = "openai"

    def __init__(self, name: str, *models: str, down: bool = False) -> None:
        self.name = name
        self._models = models
        self._down = down
        self.closed = False

    async def send(self, call: Any) -> Any:
        raise NotImplementedError

    async def models(self) -> list[dict[str, object]]:
        if self._down:
            raise UpstreamTimeout("slow")
        return [{"id": name, "owner": self.name} for name in self._models]

    async def close(self) -> None:
        self.closed = True


CLOUD, LOCAL, DOWN = Offering("cloud", "gpt-5", "qwen"), Offering("local", "qwen", "gpt-5"), Offering("down", down=True)
ROUTES = Routes([(CLOUD, ("gpt-*", "o1")), (DOWN, ("down-*",)), (LOCAL, ("*",))])


@pytest.mark.parametrize(
    ("model", "upstream"), [("gpt-5", CLOUD), ("o1", CLOUD), ("o1-mini", LOCAL), ("GPT-5", LOCAL), ("down-1", DOWN)]
)
def test_the_first_that_matches_serves(model: str, upstream: Offering) -> None:
    assert ROUTES.of(model) is upstream


@pytest.mark.parametrize("model", [None, "", 7, ["gpt-5"], {}])
def test_a_model_must_be_named(model: Any) -> None:
    with pytest.raises(BadRequest):
        ROUTES.of(model)


def test_a_model_that_nobody_serves_is_not_found() -> None:
    with pytest.raises(ModelNotFound):
        Routes([(CLOUD, ("gpt-*",))]).of("qwen")


async def test_the_list_shows_what_requests_would_reach() -> None:
    assert await ROUTES.models() == [{"id": "gpt-5", "owner": "cloud"}, {"id": "qwen", "owner": "local"}]


async def test_closing_closes_all() -> None:
    await ROUTES.close()
    assert all(upstream.closed for upstream in (CLOUD, LOCAL, DOWN))


async def test_each_kind_gets_its_adapter() -> None:
    config = Config(
        upstreams=(
            UpstreamConfig(name="a", kind="openai", base_url="http://x/v1"),
            UpstreamConfig(name="b", kind="litellm", provider="anthropic"),
            UpstreamConfig(name="c", kind="llama"),
        )
    )
    routes = make(config, 1234)
    assert [upstream.kind for upstream, _ in routes._upstreams] == ["openai", "litellm", "llama"]
    await routes.close()
