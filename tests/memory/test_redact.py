"""Secrets go, numbers of other kinds stay, and no text makes it slow."""

from __future__ import annotations

import pytest

from memory.redact import GONE, redact
from tests.linear import assert_linear

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9"


@pytest.mark.parametrize(
    "secret",
    [
        "sk-mem-abcdefghijklmnop0123456789",
        "sk-proj-AbC_dEf-0123456789abcdef",
        "sk-proj-zqzqzqzqzqzqzqzq",
        "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "a1" * 18,
        "github_pat_" + "a1_" * 15,
        "glpat-" + "a1B2c3D4e5F6g7H8i9J0",
        "hf_" + "a1B2" * 9,
        "xoxb-1234567890-abcdef",
        "AIza" + "a" * 35,
        JWT,
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----",
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "5555 5555 5555 4444",
        "2223 0031 2200 3222",
        "3782 822463 10005",
        "6011111111111117",
        "6240 0086 3140 1148",
        "3530111333300000",
    ],
)
@pytest.mark.parametrize("around", ["{}", "It is {}.", "密钥{}，谢谢", "卡号{}卡", "({})", "x={}\n"])
def test_secrets_go(secret: str, around: str) -> None:
    assert redact(around.format(secret)) == around.format(GONE)


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1111 12/27",
        "4111 1111 1111 1111 123",
        "4111 1111 1111 1111, CVV 123",
        "4111-1111-1111-1111-123",
        "1 4111 1111 1111 1111",
    ],
)
def test_a_card_goes_whatever_stands_beside_it(text: str) -> None:
    assert "1111 1111" not in redact(text)
    assert "1111-1111" not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "order 4111111111111112",
        "order 1234567890123452",
        "call +49 151 12345678 or 0049 151 1234 5678",
        "4915112345675",
        "at 1700000000000 ms",
        "20240515123044",
        "2024-05-15 12:30:45.123456",
        "4f9c1c9e-4111-4111-8111-411111111111",
        "sha a4111111111111111b",
        "3.4111111111111111",
        "IBAN DE89 3704 0044 0532 0130 00",
        "scikit sk-learn",
        "10 20 30 40 50 60 70 80 90 100",
        "",
    ],
)
def test_other_numbers_stay(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "unit",
    [
        "eyJ-",
        "eyJaaaaaaaaaaaa.",
        "sk-",
        "4 ",
        "4",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "xoxb-",
        "4111 ",
        "ghp_",
    ],
)
def test_a_long_text_takes_no_longer_than_its_length(unit: str) -> None:
    assert_linear(redact, unit * (1_000_000 // len(unit)))


def test_a_key_that_breaks_off_goes_to_its_end() -> None:
    assert redact("my key: -----BEGIN PRIVATE KEY-----\nMIIE") == f"my key: {GONE}"


def test_half_an_emoji_is_made_storable() -> None:
    assert redact("tea \ud83d, 🙂") == "tea ?, 🙂"


def test_redacting_twice_changes_nothing_more() -> None:
    once = redact(f"{JWT} and 4111 1111 1111 1111")
    assert redact(once) == once == f"{GONE} and {GONE}"
