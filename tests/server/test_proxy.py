"""The PROXY protocol on every kind of listener of a running server, switched on and off by reloads."""

from __future__ import annotations

import poplib
import smtplib
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

V1 = b"PROXY TCP4 192.0.2.9 198.51.100.1 40000 25\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes((192, 0, 2, 9, 198, 51, 100, 1)) + b"\x9c\x40\0\x19"
LISTENERS = """
[submission]
listen = ["127.0.0.1:0"]
listen_tls = ["127.0.0.1:0"]
[pop3]
listen = ["127.0.0.1:0"]
listen_tls = ["127.0.0.1:0"]
"""
BASE = 'hostname = "mail.example.test"\ndata_dir = "data"\n[smtp]\nlisten = ["127.0.0.1:0"]\n[log]\nformat = "json"\n'
PROXY = '[proxy]\ntrusted = ["127.0.0.1"]\ntimeout = "500ms"\n'


def careless() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def behind(header: bytes, port: int, timeout: float) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout)
    sock.sendall(header)
    return sock


class Smtp(smtplib.SMTP):
    """Through a proxy; with TLS from the first octet behind the header if ``secret``."""

    header, secret = b"", False

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        sock = behind(self.header, port, timeout)
        return careless().wrap_socket(sock) if self.secret else sock


class Pop3(poplib.POP3):
    header, secret = b"", False

    def _create_socket(self, timeout: float) -> socket.socket:
        sock = behind(self.header, self.port, timeout)
        return careless().wrap_socket(sock) if self.secret else sock


@pytest.fixture
def proxied(server_factory: Callable[..., Any]) -> Any:
    return server_factory(LISTENERS + PROXY, base=BASE)


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_both_versions_on_all_listeners_in_clear_and_behind_tls(proxied: Any, header: bytes) -> None:
    for secret in (False, True):
        smtp_class = type("S", (Smtp,), {"header": header, "secret": secret})
        with smtp_class(
            "127.0.0.1", proxied.ports["submission-tls" if secret else "submission"], timeout=20
        ) as smtp:
            smtp.ehlo()
            assert ("PLAIN" in smtp.esmtp_features["auth"].split()) == secret  # no loopback any more
            if secret:
                assert smtp.login("alice@example.test", "wonderland")[0] == 235
        pop3_class = type("P", (Pop3,), {"header": header, "secret": secret})
        box = pop3_class("127.0.0.1", proxied.ports["pop3-tls" if secret else "pop3"], timeout=20)
        assert ("USER" in box.capa()) == secret
        if secret:
            box.user("alice@example.test")
            assert box.pass_("wonderland").startswith(b"+OK")
        box.quit()
    assert proxied.stop() == 0
    opened = [
        (e["service"], bool(e.get("tls")), e["client"], e["port"])
        for e in proxied.events()
        if e["event"] == "session-opened"
    ]
    assert opened == [(s, t, "192.0.2.9", 40000) for t in (False, True) for s in ("submission", "pop3")]
    assert {e["client"] for e in proxied.events() if e["event"] == "logged-in"} == {"192.0.2.9"}


def test_tls_before_the_header_is_turned_away(proxied: Any) -> None:
    sock = socket.create_connection(("127.0.0.1", proxied.ports["submission-tls"]), 20)
    with sock, pytest.raises(OSError):
        careless().wrap_socket(sock)
    assert proxied.stop() == 0
    (refused,) = [e for e in proxied.events() if e["event"] == "session-refused"]
    assert "neither version 1 nor version 2" in refused["reply"]


def test_headers_are_looked_at_after_a_reload_says_so_and_no_longer_after_the_next(
    server_factory: Callable[..., Any],
) -> None:
    server = server_factory(LISTENERS, base=BASE)
    text = server.config_file.read_text()
    proxied_smtp = type("S", (Smtp,), {"header": V1})

    def client_seen(make: Callable[..., smtplib.SMTP]) -> None:
        with make("127.0.0.1", server.ports["smtp"], timeout=20) as smtp:
            assert smtp.ehlo()[0] == 250

    client_seen(smtplib.SMTP)
    kept = smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=20)
    server.config_file.write_text(text.replace("[log]", PROXY + "[log]"))
    done = server.run("reload")
    assert done.returncode == 0, done.stderr
    client_seen(proxied_smtp)
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
        client_seen(smtplib.SMTP)  # a trusted proxy must send its header
    assert kept.noop()[0] == 250  # sessions stay
    assert server.run("health").returncode == 0
    server.config_file.write_text(text)
    assert server.run("reload").returncode == 0
    client_seen(smtplib.SMTP)
    assert kept.noop()[0] == 250
    kept.quit()
    assert server.stop() == 0
    opened = [e["client"] for e in server.events() if e["event"] == "session-opened"]
    assert opened.count("192.0.2.9") == 1
    assert not [e for e in server.events() if e["event"] == "problem"]
