"""langchain-tests' chat-model suites for ChatOpenAI, over chat completions and over responses; run by the clients' environment."""

import os

import httpx
import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

HEADERS = {"X-Memory": "off"} if os.environ.get("OUTSIDE_OFF") else {}
GIVEN = {
    "model": "m",
    "base_url": os.environ["OUTSIDE_URL"],
    "api_key": os.environ["OUTSIDE_KEY"],
    "default_headers": HEADERS,
    "stream_usage": True,
    "max_retries": 0,
}


@pytest.fixture(autouse=True)
def no_web(monkeypatch):
    """Pictures, documents and sounds that the suite fetches from the web are some bytes."""
    monkeypatch.setattr(httpx, "get", lambda url, **_: httpx.Response(200, content=b"\x89PNG some bytes" * 20))


class TestUnits(ChatModelUnitTests):
    chat_model_class = ChatOpenAI
    chat_model_params = GIVEN


class TestOverChat(ChatModelIntegrationTests):
    chat_model_class = ChatOpenAI
    chat_model_params = GIVEN
    supports_image_inputs = True
    supports_image_urls = True
    supports_pdf_inputs = True
    supports_audio_inputs = True
    supports_image_tool_message = True
    supports_anthropic_inputs = True
    supports_json_mode = True
    supports_model_override = True
    model_override_value = "other"


class TestOverResponses(TestOverChat):
    chat_model_params = GIVEN | {"use_responses_api": True}
    supports_audio_inputs = False
