"""Texts of tokens."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.app import credentials
from controlplane.domain.errors import CredentialError, Reason
from controlplane.domain.ids import JoinTokenId

IN_TOKENS = st.characters(codec="ascii", exclude_characters="\0")


@given(st.text(IN_TOKENS, min_size=1), st.text(IN_TOKENS), st.binary())
def test_a_join_token_is_read_back(token_id: str, secret: str, ca: bytes) -> None:
    token = credentials.JoinTokenText(id=JoinTokenId(token_id), secret=secret, ca_certificate_der=ca)
    text = credentials.encode_join_token(token)
    assert credentials.parse_join_token(text) == token
    assert credentials.parse_join_token(text.rstrip("=")) == token


@given(st.text())
def test_any_other_text_is_refused_and_never_crashes(text: str) -> None:
    for candidate in (text, "lsj1." + text):
        with pytest.raises(CredentialError) as refusal:
            credentials.parse_join_token(candidate)
        assert refusal.value.reason is Reason.JOIN_TOKEN_INVALID


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"id":"a","secret":"\\ud800","ca":""}', b'{"id":"a\\u0000","secret":"b","ca":""}', b"{}", b"1"],
)
def test_what_no_store_could_look_up_is_refused(content: bytes) -> None:
    with pytest.raises(CredentialError) as refusal:
        credentials.parse_join_token("lsj1." + base64.urlsafe_b64encode(content).decode())
    assert refusal.value.reason is Reason.JOIN_TOKEN_INVALID


@pytest.mark.parametrize("text", ["", "lso1.", "secret", "lsj1.secret"])
def test_a_text_that_is_no_operator_token_is_refused(text: str) -> None:
    with pytest.raises(CredentialError) as refusal:
        credentials.parse_operator_token(text)
    assert refusal.value.reason is Reason.OPERATOR_TOKEN_INVALID


def test_an_operator_token_is_read_back() -> None:
    assert credentials.parse_operator_token(credentials.encode_operator_token("s")) == "s"


def test_secrets_are_compared_by_their_digest() -> None:
    assert credentials.secrets_match("secret", credentials.hash_secret("secret"))
    assert not credentials.secrets_match("Secret", credentials.hash_secret("secret"))
