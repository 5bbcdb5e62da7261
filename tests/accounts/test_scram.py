"""SCRAM: the vectors of RFC 5802 and RFC 7677, an independent client, and whatever an attacker may send."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import get_args

import pytest
import scramp
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.accounts import scram_keys
from mailserver.accounts.sasl import (
    Challenge,
    Channel,
    Dialogue,
    KeysWanted,
    Proven,
    Refused,
    SaslError,
    UnknownMechanism,
)
from mailserver.accounts.saslprep import saslprep
from mailserver.accounts.scram_keys import Digest, decoy, derive
from mailserver.accounts.steps import KeyRing

BINDING = hashlib.sha256(b"a certificate").digest()
PLAIN_TEXT = Channel(safe=False, scram=True)
TLS = Channel(scram=True, bindings={"tls-server-end-point": BINDING})
NAMES: dict[str, Digest] = {
    "SCRAM-SHA-256": "SHA-256",
    "SCRAM-SHA-1": "SHA-1",
    "SCRAM-SHA-256-PLUS": "SHA-256",
}


def b64(data: bytes | str) -> bytes:
    return base64.b64encode(data.encode() if isinstance(data, str) else data)


def ring(*passwords: str, digest: Digest = "SHA-256", salt: bytes = b"saltsaltsaltsalt") -> KeyRing:
    return KeyRing(tuple((f"app{n}" if n else "", derive(digest, p, salt)) for n, p in enumerate(passwords)))


def start(name: str, first: str, channel: Channel, keys: KeyRing) -> tuple[Dialogue, str]:
    """The exchange and what the server said to the first message."""
    exchange = Dialogue(name, channel)
    said = exchange.step(b64(first))
    if isinstance(said, KeysWanted):
        said = exchange.answer(keys)
    assert isinstance(said, Challenge)
    return exchange, said.data.decode()


VECTORS = [
    (  # RFC 5802 section 5
        "SCRAM-SHA-1", "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL", "3rfcNHYJY1ZVvWVs7j", "QSXCR+Q6sek8bf92",
        "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    (  # RFC 7677 section 3
        "SCRAM-SHA-256", "n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        "W22ZaJ0SNY7soEsUEjb6gQ==",
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "first", "nonce", "salt", "final", "verifier"), VECTORS)
def test_rfc_vectors(name: str, first: str, nonce: str, salt: str, final: str, verifier: str) -> None:
    keys = ring("pencil", digest=NAMES[name], salt=base64.b64decode(salt))
    exchange, said = start(name, first, PLAIN_TEXT._replace(nonce=lambda: nonce), keys)
    assert said == f"{first.partition('r=')[1]}{first.partition('r=')[2]}{nonce},s={salt},i=4096"
    assert exchange.step(b64(final)) == Challenge(verifier.encode())
    assert exchange.step(b"") == Proven("", "user", "")


def run_scramp(name: str, user: str, password: str, channel: Channel, keys: KeyRing) -> Proven | Refused:
    """A whole login by an independent client."""
    binding = ("tls-server-end-point", channel.bindings["tls-server-end-point"]) if channel.bindings else None
    client = scramp.ScramClient([name], user, password, channel_binding=binding)
    exchange, said = start(name, client.get_client_first(), channel, keys)
    client.set_server_first(said)
    verdict = exchange.step(b64(client.get_client_final()))
    if isinstance(verdict, Refused):
        return verdict
    assert isinstance(verdict, Challenge)
    client.set_server_final(verdict.data.decode())
    end = exchange.step(b"")
    assert isinstance(end, Proven | Refused)
    return end


@pytest.mark.parametrize("name", list(NAMES))
@pytest.mark.parametrize("password", ["pencil", "I\u00adX", "pässwörd ß", "\u2168", "a,b=c"])
def test_scramp_logs_in(name: str, password: str) -> None:
    keys = ring(password, digest=NAMES[name])
    channel = TLS if name.endswith("PLUS") else PLAIN_TEXT
    assert run_scramp(name, "us,er=1@x.test", password, channel, keys) == Proven("", "us,er=1@x.test")
    assert run_scramp(name, "user", password + "x", channel, keys) == Refused(
        "user", "wrong user or password"
    )


def test_keys_are_those_scramp_would_store() -> None:
    mechanism = scramp.ScramMechanism("SCRAM-SHA-256")
    _, stored, server, _ = mechanism.make_auth_info("pencil", salt=b"saltsaltsaltsalt", iteration_count=4096)
    keys = derive("SHA-256", "pencil", b"saltsaltsaltsalt")
    assert (keys.stored, keys.server) == (stored, server)
    assert scram_keys.parse(keys.form) == keys


def test_app_passwords_share_the_salt() -> None:
    keys = ring("main", "first", "second")
    assert run_scramp("SCRAM-SHA-256", "user", "second", PLAIN_TEXT, keys) == Proven("", "user", "app2")
    assert run_scramp("SCRAM-SHA-256", "user", "main", PLAIN_TEXT, keys) == Proven("", "user", "")


def test_nobody_learns_who_exists() -> None:
    """RFC 5802 section 9: the salt of an unknown name is always the same, of the same form, and depends on the
    secret."""
    secret = b"s" * 32
    assert decoy("SHA-256", "nobody@x.test", secret) == decoy("SHA-256", "nobody@x.test", secret)
    assert decoy("SHA-256", "nobody@x.test", secret).salt != decoy("SHA-256", "nobody@x.test", b"t").salt
    assert decoy("SHA-256", "other@x.test", secret).salt != decoy("SHA-256", "nobody@x.test", secret).salt
    assert len(decoy("SHA-256", "x", secret).salt) == scram_keys.SALT
    keys = KeyRing((("", decoy("SHA-256", "nobody", secret)),))
    assert run_scramp("SCRAM-SHA-256", "nobody", "x", PLAIN_TEXT, keys) == Refused(
        "nobody", "wrong user or password"
    )


@pytest.mark.parametrize(
    ("name", "first", "channel", "error"),
    [
        ("SCRAM-SHA-256", "y,,n=user,r=abc", TLS, "server-does-support-channel-binding"),
        ("SCRAM-SHA-256", "p=tls-server-end-point,,n=user,r=abc", TLS, "channel-binding-not-supported"),
        ("SCRAM-SHA-256-PLUS", "p=tls-exporter,,n=user,r=abc", TLS, "unsupported-channel-binding-type"),
        ("SCRAM-SHA-256-PLUS", "n,,n=user,r=abc", TLS, "invalid-encoding"),
        ("SCRAM-SHA-256", "n,,m=x,n=user,r=abc", PLAIN_TEXT, "extensions-not-supported"),
        ("SCRAM-SHA-256", "n,,n=us=er,r=abc", PLAIN_TEXT, "invalid-username-encoding"),
        ("SCRAM-SHA-256", "n,,n=us\u0007er,r=abc", PLAIN_TEXT, "invalid-username-encoding"),
        ("SCRAM-SHA-256", "n,,n=,r=abc", PLAIN_TEXT, "invalid-username-encoding"),
        ("SCRAM-SHA-256", "n,,n=user,r=", PLAIN_TEXT, "invalid-encoding"),
        ("SCRAM-SHA-256", "x,,n=user,r=abc", PLAIN_TEXT, "invalid-encoding"),
        ("SCRAM-SHA-256", "", PLAIN_TEXT, "invalid-encoding"),
    ],
)  # fmt: skip
def test_first_messages_that_are_refused(name: str, first: str, channel: Channel, error: str) -> None:
    exchange = Dialogue(name, channel)
    said = exchange.step(b64(first) or b"=")
    assert said == Challenge(b"e=" + error.encode())
    assert isinstance(exchange.step(b""), Refused)


def test_y_is_fine_where_we_offer_no_binding() -> None:
    """RFC 5802 section 6: it is wrong only where the server has it."""
    assert start("SCRAM-SHA-256", "y,,n=user,r=abc", PLAIN_TEXT, ring("x"))[1].startswith("r=abc")
    assert start("SCRAM-SHA-1", "y,,n=user,r=abc", TLS, ring("x", digest="SHA-1"))[1].startswith("r=abc")


def final_for(first: str, said: str, password: str, *, bound: bytes, nonce: str | None = None) -> str:
    """client-final-message by the formulas of RFC 5802 section 3, with faults where the test wants them."""
    fields = dict(part.split("=", 1) for part in said.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    without = f"c={b64(bound).decode()},r={nonce or fields['r']}"
    auth = f"{first[first.index('n=') :]},{said},{without}".encode()
    signature = hmac.digest(hashlib.sha256(client_key).digest(), auth, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    return f"{without},p={b64(proof).decode()}"


@pytest.mark.parametrize(
    ("bound", "nonce", "expected"),
    [
        (b"p=tls-server-end-point,," + BINDING, None, b"v="),
        (b"p=tls-server-end-point,," + BINDING[:-1], None, b"e=channel-bindings-dont-match"),
        (b"n,,", None, b"e=channel-bindings-dont-match"),
        (b"p=tls-server-end-point,a=x," + BINDING, None, b"e=channel-bindings-dont-match"),
        (b"p=tls-server-end-point,," + BINDING, "abc", b"e=other-error"),
    ],
)
def test_what_is_bound_must_match(bound: bytes, nonce: str | None, expected: bytes) -> None:
    first = "p=tls-server-end-point,,n=user,r=abc"
    exchange, said = start("SCRAM-SHA-256-PLUS", first, TLS, ring("pencil"))
    answer = exchange.step(b64(final_for(first, said, "pencil", bound=bound, nonce=nonce)))
    assert isinstance(answer, Challenge)
    assert answer.data.startswith(expected)


def test_authzid_comes_through() -> None:
    first = "n,a=other=2Cone,n=user,r=abc"
    exchange, said = start("SCRAM-SHA-256", first, PLAIN_TEXT, ring("pencil"))
    exchange.step(b64(final_for(first, said, "pencil", bound=b"n,a=other=2Cone,")))
    assert exchange.step(b"") == Proven("other,one", "user", "")


def test_what_is_not_offered_does_not_exist() -> None:
    for name, channel in (
        ("SCRAM-SHA-256-PLUS", PLAIN_TEXT),
        ("SCRAM-SHA-256", Channel()),
        ("PLAIN", PLAIN_TEXT),
    ):
        with pytest.raises(UnknownMechanism):
            Dialogue(name, channel)


def test_saslprep_examples() -> None:
    """RFC 4013 section 3."""
    assert [saslprep(t) for t in ("I\u00adX", "user", "USER", "\u00aa", "\u2168")] == [
        "IX",
        "user",
        "USER",
        "a",
        "IX",
    ]
    for wrong in ("\u0007", "\u0627\u0031"):
        with pytest.raises(ValueError):
            saslprep(wrong)
    assert saslprep("\u0221") == "\u0221"
    with pytest.raises(ValueError, match="unassigned"):
        saslprep("\u0221", stored=True)


_PIECES = st.lists(
    st.sampled_from(
        [
            "n",
            "y",
            "p=tls-server-end-point",
            ",",
            ",,",
            "n=user",
            "r=abc",
            "a=x",
            "m=1",
            "c=biws",
            "p=AAAA",
            "=",
            "\0",
            "é",
        ]
    )
).map("".join)


@settings(max_examples=300)
@given(
    st.sampled_from(list(NAMES)),
    st.lists(_PIECES.map(b64) | st.binary(max_size=80).map(b64) | st.binary(max_size=40)),
)
def test_any_input_ends_in_an_answer(name: str, lines: list[bytes]) -> None:
    exchange, keys = Dialogue(name, TLS), ring("pencil", digest=NAMES[name])
    for line in lines:
        try:
            answer = exchange.step(line)
            if isinstance(answer, KeysWanted):
                answer = exchange.answer(keys)
        except SaslError:
            return
        assert not isinstance(answer, Proven)
        if isinstance(answer, Refused):
            return


@given(st.text(), st.binary(min_size=1, max_size=20), st.integers(1, 8))
def test_forms_come_back(password: str, salt: bytes, iterations: int) -> None:
    for digest in get_args(scram_keys.Digest):
        keys = derive(digest, password, salt, iterations)
        assert scram_keys.parse(keys.form) == keys
        assert scram_keys.fits(password, keys)


@given(
    st.text()
    | st.tuples(st.sampled_from(["{SCRAM-SHA-256}1,", "{SCRAM-SHA-1}0,YQ==,"]), st.text()).map("".join)
)
def test_no_form_breaks_the_parser(form: str) -> None:
    scram_keys.parse(form)


def test_a_nonce_is_long_and_never_the_same() -> None:
    exchange_nonces = {start("SCRAM-SHA-256", "n,,n=u,r=abc", PLAIN_TEXT, ring("x"))[1] for _ in range(5)}
    assert len(exchange_nonces) == 5
    assert len(secrets.token_urlsafe(24)) == 32
