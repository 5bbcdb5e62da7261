"""Opportunistic TLS: taken when offered, never a reason not to deliver (RFC 3207, RFC 7435, RFC 8314)."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from peer import DROP, SILENT, STANDARD, Peer
from sending import sender

from mailserver.message.envelope import Deferred, Delivered

EHLO = "250-peer.test\r\n250 STARTTLS"
pytestmark = pytest.mark.both_loops


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    """Signed by an authority nobody trusts, for another name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("some.other.test").configure_cert(context)
    return context


async def test_starttls_with_whatever_certificate(tmp_path: Path, tls: ssl.SSLContext) -> None:
    async with Peer(tls=tls) as peer, sender(tmp_path) as our:
        for _ in range(2):
            assert isinstance((await our.send(peer.route))[0], Delivered)
        assert [line.split()[0] for line in peer.said[:4]] == ["EHLO", "STARTTLS", "EHLO", "MAIL"]
        assert peer.connections == 1
        assert not our.events


@pytest.mark.parametrize(
    "script",
    [
        {"TLS": "broken"}, {"STARTTLS": "220 go\r\n250 injected"}, {"EHLO": [EHLO, DROP, EHLO]},
        {"STARTTLS": DROP}, {"STARTTLS": SILENT},
    ],
)  # fmt: skip
async def test_a_failed_handshake_is_tried_again_without(
    tmp_path: Path, tls: ssl.SSLContext, script: dict[str, Any]
) -> None:
    async with Peer(script, tls=tls) as peer, sender(tmp_path) as our:
        assert isinstance((await our.send(peer.route))[0], Delivered)
        assert peer.connections == 2
        assert "going on without TLS" in our.events[0].text  # type: ignore[attr-defined]


async def test_starttls_refused_goes_on_as_it_is(tmp_path: Path, tls: ssl.SSLContext) -> None:
    async with Peer({"STARTTLS": "454 4.7.0 not now"}, tls=tls) as peer, sender(tmp_path) as our:
        assert isinstance((await our.send(peer.route))[0], Delivered)
        assert peer.connections == 1


async def test_tls_from_the_start(tmp_path: Path, tls: ssl.SSLContext) -> None:
    async with Peer(tls=tls, implicit_tls=True) as peer, sender(tmp_path) as our:
        assert isinstance((await our.send(peer.route))[0], Delivered)
        assert "STARTTLS" not in peer.said


async def test_no_fallback_where_tls_was_asked_for(tmp_path: Path) -> None:
    async with Peer(offers=STANDARD) as peer, sender(tmp_path) as our:
        (result,) = await our.send(f"smtps://127.0.0.1:{peer.port}")
        assert type(result) is Deferred
        assert result.status in {"4.7.5", "4.4.1"}
        assert not peer.messages


async def test_large_content_through_tls(tmp_path: Path, tls: ssl.SSLContext) -> None:
    data = b"Subject: large\n\n" + b"0123456789\n" * 200_000
    async with Peer(tls=tls, offers=("PIPELINING", "8BITMIME")) as peer, sender(tmp_path) as our:
        assert isinstance((await our.send(peer.route, data=data))[0], Delivered)
        assert peer.messages[0].content == data.replace(b"\n", b"\r\n")
