"""Tokens of pages: read back as they were made, and any other text refused."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.app.paging import decode_page_token, encode_page_token
from controlplane.domain.errors import FieldInvalidError, Reason

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
NUMBERS = st.integers(min_value=-(1 << 63), max_value=(1 << 63) - 1)


@given(TEXTS, NUMBERS)
def test_a_token_is_read_back(text: str, number: int) -> None:
    assert decode_page_token(encode_page_token(text, number), str, int) == (text, number)


def test_no_token_is_the_first_page() -> None:
    assert decode_page_token("", str) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b"[1]",
        b"[true]",
        b'["a","b"]',
        b'["a\\u0000"]',
        b'["\\ud800"]',
        b"[" * 100_000,
    ],
)
def test_any_other_text_is_refused(content: bytes) -> None:
    token = base64.urlsafe_b64encode(content).decode() or "x"
    with pytest.raises(FieldInvalidError) as refusal:
        decode_page_token(token, str)
    assert refusal.value.reason is Reason.PAGE_TOKEN_INVALID
    assert refusal.value.field == "page_token"


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1, 10**4000])
def test_a_number_that_no_database_holds_is_refused(number: int) -> None:
    with pytest.raises(FieldInvalidError):
        decode_page_token(encode_page_token(number), int)


@given(st.text())
def test_no_text_crashes_it(text: str) -> None:
    try:
        decode_page_token(text, str)
    except FieldInvalidError:
        return
