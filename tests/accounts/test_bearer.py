"""OAUTHBEARER (RFC 7628), XOAUTH2 and EXTERNAL (RFC 4422 appendix A)."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.accounts.sasl import (
    Challenge,
    Channel,
    Dialogue,
    Proven,
    Refused,
    SaslError,
    TokenGiven,
    offered,
)

CHANNEL = Channel(bearer=True, scope="mail", configuration="https://id.example.test/.well-known/x")
TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
# RFC 7628 section 4.1
RFC = f"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer {TOKEN}\x01\x01"
OURS = f"user=user@example.com\x01auth=Bearer {TOKEN}\x01\x01"


def b64(data: bytes | str) -> bytes:
    return base64.b64encode(data.encode() if isinstance(data, str) else data)


@pytest.mark.parametrize(("name", "message"), [("OAUTHBEARER", RFC), ("XOAUTH2", OURS)])
def test_a_good_token(name: str, message: str) -> None:
    exchange = Dialogue(name, CHANNEL)
    assert exchange.step(b64(message)) == TokenGiven(TOKEN)
    assert exchange.answer("user@example.com") == Proven("user@example.com", "user@example.com")


def test_a_refused_token_is_told_in_json() -> None:
    """RFC 7628 section 3.2.2 and the dummy client response of 3.2.3."""
    exchange = Dialogue("OAUTHBEARER", CHANNEL)
    exchange.step(b64(RFC))
    challenge = exchange.answer(None)
    assert isinstance(challenge, Challenge)
    assert json.loads(challenge.data) == {
        "status": "invalid_token",
        "scope": "mail",
        "openid-configuration": "https://id.example.test/.well-known/x",
    }
    assert exchange.step(b64("\x01")) == Refused("user@example.com", "the token is not valid")


def test_xoauth2_says_so_its_own_way() -> None:
    exchange = Dialogue("XOAUTH2", CHANNEL)
    exchange.step(b64(OURS))
    challenge = exchange.answer(None)
    assert isinstance(challenge, Challenge)
    assert json.loads(challenge.data) == {"status": "401", "schemes": "bearer", "scope": "mail"}
    assert exchange.step(b"") == Refused("user@example.com", "the token is not valid")


@pytest.mark.parametrize("auth", ["", "auth=Basic abc\x01", "auth=Bearer \x01", "auth=Bearer a b\x01"])
def test_no_token_is_an_invalid_request(auth: str) -> None:
    exchange = Dialogue("OAUTHBEARER", CHANNEL)
    challenge = exchange.step(b64(f"n,,\x01{auth}\x01"))
    assert isinstance(challenge, Challenge)
    assert json.loads(challenge.data)["status"] == "invalid_request"
    assert isinstance(exchange.step(b64("\x01")), Refused)


@pytest.mark.parametrize(
    "message", ["", "p=x,,\x01\x01", "n,,", "n,,\x01auth=Bearer x\x01", "n,,\x01auth=Bearer x\x01\x01x"]
)
def test_malformed_messages(message: str) -> None:
    with pytest.raises(SaslError):
        Dialogue("OAUTHBEARER", CHANNEL).step(b64(message) or b"=")


@pytest.mark.parametrize("message", ["", "auth=Bearer x\x01\x01", "user=\x01auth=Bearer x\x01\x01", "user=a"])
def test_malformed_xoauth2_messages(message: str) -> None:
    with pytest.raises(SaslError):
        Dialogue("XOAUTH2", CHANNEL).step(b64(message) or b"=")


@given(
    st.sampled_from(["OAUTHBEARER", "XOAUTH2"]),
    st.lists(
        st.sampled_from(["n,", "a=u,", ",", "\x01", "\x01\x01", "auth=Bearer x", "user=u", "é", "\0"])
    ).map("".join),
)
def test_any_message_ends_in_an_answer(name: str, message: str) -> None:
    exchange = Dialogue(name, CHANNEL)
    try:
        answer = exchange.step(b64(message) or b"=")
    except SaslError:
        return
    assert isinstance(answer, Challenge | TokenGiven)


CERTIFICATE = ("alice@example.test", "info@example.test")


@pytest.mark.parametrize(
    ("identities", "authzid", "expected"),
    [
        (CERTIFICATE[:1], "", Proven("", "alice@example.test")),
        (CERTIFICATE, "Info@example.test", Proven("Info@example.test", "info@example.test")),
        (CERTIFICATE, "", Refused("", "the certificate names several accounts, the client none")),
        (CERTIFICATE, "bob@x.test", Refused("bob@x.test", "the certificate does not name this account")),
    ],
)
def test_external(identities: tuple[str, ...], authzid: str, expected: Proven | Refused) -> None:
    assert Dialogue("EXTERNAL", Channel(identities=identities)).step(b64(authzid) or b"=") == expected


def test_what_is_offered() -> None:
    assert offered(Channel()) == ("PLAIN", "LOGIN")
    assert offered(Channel(safe=False)) == ()
    assert offered(Channel(safe=False, scram=True, bearer=True)) == ("SCRAM-SHA-256", "SCRAM-SHA-1")
    everything = Channel(True, {"tls-server-end-point": b"x"}, ("a@b.test",), scram=True, bearer=True)
    assert offered(everything) == (
        "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "EXTERNAL", "OAUTHBEARER", "XOAUTH2", "PLAIN",
        "LOGIN",
    )  # fmt: skip
