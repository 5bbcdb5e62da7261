"""SASL as SMTP (RFC 4954) and POP3 (RFC 5034) carry it."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.accounts.sasl import (
    LINE_MAX,
    PASSWORDS,
    Challenge,
    Channel,
    Credentials,
    Dialogue,
    SaslError,
    UnknownMechanism,
)


def b64(data: bytes) -> bytes:
    return base64.b64encode(data)


def test_plain_with_an_initial_response() -> None:
    """The example of RFC 4616 section 4, carried as in RFC 4954 section 4.3."""
    assert Dialogue("PLAIN", Channel()).step(b64(b"\0tim\0tanstaaftanstaaf")) == Credentials(
        "", "tim", b"tanstaaftanstaaf"
    )


def test_plain_without_an_initial_response() -> None:
    exchange = Dialogue("plain", Channel())
    challenge = exchange.step(b"")
    assert isinstance(challenge, Challenge)
    assert challenge.line == b""
    assert exchange.step(b64(b"Ursel\0Kurt\0xipj3plmq")) == Credentials("Ursel", "Kurt", b"xipj3plmq")


@pytest.mark.parametrize("initial", [None, b64(b"kurt@example.test")])
def test_login(initial: bytes | None) -> None:
    exchange = Dialogue("LOGIN", Channel())
    challenge = exchange.step(initial)
    if initial is None:
        assert challenge == Challenge(b"Username:")
        challenge = exchange.step(b64(b"kurt@example.test"))
    assert isinstance(challenge, Challenge)
    assert challenge.line == b"UGFzc3dvcmQ6"
    assert exchange.step(b64(b"geheim \xff")) == Credentials("", "kurt@example.test", b"geheim \xff")


@pytest.mark.parametrize("name", list(PASSWORDS))
@pytest.mark.parametrize("first", [None, b"*"])
def test_an_asterisk_cancels(name: str, first: bytes | None) -> None:
    exchange = Dialogue(name, Channel())
    with pytest.raises(SaslError) as caught:
        exchange.step(first)
        exchange.step(b"*")
    assert caught.value.cancelled


@pytest.mark.parametrize(
    "line",
    [
        b"AHRpbQB0YW5zdGFhZnRhbnN0YWFm=",  # too much padding
        b"AHRpbQB0YW5z dGFhZg==",  # a foreign character
        b"AGEAYR==",  # stray bits
        b"=",  # an empty initial response says nothing
        b64(b"no nul"),
        b64(b"\0user\0"),
        b64(b"\0\0password"),
        b64(b"a\0b\0c\0d"),
        b64(b"\0\xff\0password"),
        b"A" * (LINE_MAX + 4),
    ],
)
def test_what_is_malformed_is_refused(line: bytes) -> None:
    with pytest.raises(SaslError) as caught:
        Dialogue("PLAIN", Channel()).step(line)
    assert not caught.value.cancelled


def test_unknown_mechanism() -> None:
    with pytest.raises(UnknownMechanism):
        Dialogue("CRAM-MD5", Channel())


@given(st.sampled_from(list(PASSWORDS)), st.lists(st.binary(max_size=80) | st.binary(max_size=60).map(b64)))
def test_any_input_ends_in_an_answer(name: str, lines: list[bytes]) -> None:
    exchange = Dialogue(name, Channel())
    for line in lines:
        try:
            answer = exchange.step(line)
        except SaslError:
            return
        if isinstance(answer, Credentials):
            assert answer.user
            assert answer.password
            return


_name = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1)


@given(_name, st.binary(min_size=1).filter(lambda p: b"\0" not in p))
def test_what_goes_in_comes_out(user: str, password: bytes) -> None:
    assert Dialogue("PLAIN", Channel()).step(b64(b"\0" + user.encode() + b"\0" + password)) == (
        "",
        user,
        password,
    )
    exchange = Dialogue("LOGIN", Channel())
    exchange.step(b64(user.encode()))
    assert exchange.step(b64(password)) == ("", user, password)
