"""A real Postfix on both sides of us."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(120)
MESSAGE = (
    b"From: a@sender.test\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@sender.test>\r\n"
    b"Subject: through\r\n\r\n.dot\r\nT\xc3\xa9xt\r\n"
)
RULE = '[[relay]]\nfrom = "127.0.0.1"\naction = "relay"\n'


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Poll another program's state; what it answers when it is truthy."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)  # another program's work cannot be awaited
    return value


def connect(port: int) -> smtplib.SMTP:
    def attempt() -> smtplib.SMTP | None:
        try:
            return smtplib.SMTP("127.0.0.1", port, timeout=20)
        except OSError:
            return None

    return wait_for(attempt)


def routes(port: int) -> str:
    return f'{RULE}[routes]\n"sink.test" = "smtp://127.0.0.1:{port}"\n[queue]\nretry = "1s"\n'


def test_postfix_is_our_next_hop(
    server_factory: Callable[..., Any], postfix: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    port = free_port()
    server = server_factory(routes(port))
    peer = postfix(port, server.ports["smtp"])
    connect(port).quit()
    with server.smtp() as smtp:
        smtp.ehlo()
        smtp.sendmail("alice@example.test", ["ok@sink.test", "other@sink.test"], MESSAGE, ["BODY=8BITMIME"])

    def arrived() -> list[Path]:
        return [f for box in ("ok", "other") for f in (peer.mail / box / "new").glob("*")]

    wait_for(lambda: len(arrived()) == 2)
    for file in arrived():
        assert file.read_bytes().endswith(MESSAGE.replace(b"\r\n", b"\n"))
    wait_for(lambda: server.run("queue", "list", "--json").stdout.strip() == "[]")


def test_what_postfix_refuses_comes_back_as_a_delivery_report(
    server_factory: Callable[..., Any], postfix: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    port = free_port()
    server = server_factory(routes(port))
    postfix(port, server.ports["smtp"])
    connect(port).quit()
    with server.smtp() as smtp:
        smtp.sendmail("alice@example.test", ["unknown@sink.test"], MESSAGE)
    wait_for(lambda: server.pop3().stat()[0] == 1)
    report = b"\n".join(server.pop3().retr(1)[1])
    assert b"Return-Path: <>" in report
    assert b"Content-Type: multipart/report; report-type=delivery-status" in report.replace(b"\n\t", b" ")
    assert b"Final-Recipient: rfc822; unknown@sink.test" in report
    assert b"Status: 5.1.1" in report


def test_postfix_is_our_client(
    server_factory: Callable[..., Any], postfix: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    server = server_factory()
    port = free_port()
    postfix(port, server.ports["smtp"])
    with connect(port) as smtp:
        for n in range(20):
            smtp.sendmail(f"s{n}@sender.test", ["alice@example.test", "bob@example.test"], MESSAGE)
    wait_for(lambda: server.pop3().stat()[0] == 20)
    assert server.pop3("bob@example.test", "builder").stat()[0] == 20
