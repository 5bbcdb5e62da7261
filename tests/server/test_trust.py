"""Trust from outside: mechanisms, certificates, confinement and slow guessers, with real clients."""

from __future__ import annotations

import base64
import json
import smtplib
import socket
import sqlite3
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scramp import ScramClient

SUBMISSION = '[submission]\nlisten = ["127.0.0.1:0"]\n'
BINDING = "[accounts]\nchannel_binding = true\n"
NO_USERS = '[domains."example.test"]\n'


def test_new_connections_are_counted_over_all_services(server_factory: Callable[..., Any]) -> None:
    """[rates] connections_per_minute, one count for SMTP and POP3 together."""
    server = server_factory("[rates]\nconnections_per_minute = 3\n[guard]\ntrusted = []\n")
    greetings = []
    for service in ("smtp", "pop3", "smtp", "pop3", "smtp"):
        with socket.create_connection(("127.0.0.1", server.ports[service]), timeout=20) as client:
            greetings.append(client.makefile("rb").readline().split()[0:2])
    assert [code for code, _ in greetings] == [b"220", b"+OK", b"220", b"-ERR", b"421"]
    assert greetings[3][1] == b"[SYS/TEMP]"
    assert server.stop() == 0
    refused = [e for e in server.events() if e["event"] == "session-refused"]
    assert [e["service"] for e in refused] == ["pop3", "smtp"]
    assert refused[0]["rule"] == "[rates] connections_per_minute = 3"


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def with_carol(server_factory: Callable[..., Any], extra: str = "") -> Any:
    """Keys for SCRAM are made when a password is set."""
    server = server_factory(SUBMISSION + BINDING + extra, users=NO_USERS)
    done = server.run("user", "add", "carol@example.test", "--password-stdin", stdin="pencil\n")
    assert done.returncode == 0, done.stderr
    return server


def scram(mechanism: str, binding: tuple[str, bytes] | None, send: Callable[[str], str]) -> str:
    """Runs an exchange; ``send`` gives the server's next challenge. The answer to the last response."""
    client = ScramClient([mechanism], "carol@example.test", "pencil", channel_binding=binding)
    client.set_server_first(base64.b64decode(send(b64(client.get_client_first()))).decode())
    last = send(b64(client.get_client_final()))
    client.set_server_final(base64.b64decode(last).decode())
    return send("")


def certificate_hash(der: bytes, folder: Path) -> bytes:
    (folder / "shown.der").write_bytes(der)
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-binary", str(folder / "shown.der")], capture_output=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS"])
def test_scram_over_smtp(server_factory: Callable[..., Any], mechanism: str) -> None:
    server = with_carol(server_factory)
    smtp = smtplib.SMTP("127.0.0.1", server.ports["submission"], "client.test", timeout=20)
    smtp.starttls(context=trusting())
    smtp.ehlo()
    assert smtp.esmtp_features["auth"].split()[:2] == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]
    assert isinstance(smtp.sock, ssl.SSLSocket)
    der = smtp.sock.getpeercert(binary_form=True)
    binding = ("tls-server-end-point", certificate_hash(der or b"", server.folder))
    replies: list[int] = []

    def send(line: str) -> str:
        code, text = smtp.docmd(line if replies else f"AUTH {mechanism} {line}")
        replies.append(code)
        return text.decode()

    scram(mechanism, binding if mechanism.endswith("PLUS") else None, send)
    assert replies == [334, 334, 235]
    smtp.quit()


def test_scram_over_pop3(server_factory: Callable[..., Any]) -> None:
    server = with_carol(server_factory)
    with (
        socket.create_connection(("127.0.0.1", server.ports["pop3"]), 20) as sock,
        sock.makefile("rwb") as file,
    ):
        file.readline()
        first = ["AUTH SCRAM-SHA-256 "]

        def send(line: str) -> str:
            file.write(f"{first.pop() if first else ''}{line}\r\n".encode())
            file.flush()
            return file.readline().decode().strip().removeprefix("+ ")

        assert scram("SCRAM-SHA-256", None, send) == "+OK 0 messages"


class Abroad:
    """A client that is not on this machine, as a proxy says, talking in clear."""

    def __init__(self, server: Any, service: str) -> None:
        self._sock = socket.create_connection(("127.0.0.1", server.ports[service]), 20)
        self._file = self._sock.makefile("rwb")
        self._sock.sendall(b"PROXY TCP4 192.0.2.9 198.51.100.1 40000 25\r\n")
        self.line()

    def line(self) -> str:
        return self._file.readline().decode().strip()

    def say(self, command: str) -> str:
        """The last line of the answer of one or several, as SMTP has them."""
        self._file.write(f"{command}\r\n".encode())
        self._file.flush()
        while (answer := self.line())[3:4] == "-" and answer[:3].isdigit():
            pass
        return answer

    def close(self) -> None:
        self._file.close()
        self._sock.close()


def test_in_clear_only_what_shows_no_password_and_binds_no_channel(
    server_factory: Callable[..., Any],
) -> None:
    """RFC 4954 4 and 9, RFC 5802 6: SCRAM needs no TLS, its -PLUS variant and passwords do."""
    server = with_carol(server_factory, '[proxy]\ntrusted = ["127.0.0.1"]\n')
    smtp, pop3 = Abroad(server, "submission"), Abroad(server, "pop3")
    assert smtp.say("EHLO client.test") == "250 AUTH SCRAM-SHA-256 SCRAM-SHA-1"
    assert pop3.say("AUTH") == "+OK mechanisms follow"
    assert [pop3.line() for _ in range(3)] == ["SCRAM-SHA-256", "SCRAM-SHA-1", "."]
    for mechanism in ("PLAIN", "LOGIN", "SCRAM-SHA-256-PLUS", "XOAUTH2"):
        assert smtp.say(f"AUTH {mechanism} " + b64("\0carol@example.test\0pencil")).startswith("538 5.7.11 ")
        assert pop3.say(f"AUTH {mechanism} " + b64("\0carol@example.test\0pencil")).startswith("-ERR ")
    assert smtp.say("AUTH GSSAPI").startswith("504 5.5.4 ")  # TLS would not help
    assert pop3.say("USER carol@example.test").startswith("-ERR ")
    for client, begin, end in (
        (smtp, "334 ", "235 2.7.0 Authentication succeeded"),
        (pop3, "+ ", "+OK 0 messages"),
    ):
        first = ["AUTH SCRAM-SHA-256 "]

        def send(line: str, client: Abroad = client, begin: str = begin, first: list[str] = first) -> str:
            return client.say((first.pop() if first else "") + line).removeprefix(begin)

        assert scram("SCRAM-SHA-256", None, send) == end
        client.close()


@pytest.mark.parametrize("flag", ["y", "p=tls-server-end-point"])
def test_somebody_between_us_is_noticed(server_factory: Callable[..., Any], flag: str) -> None:
    """RFC 5802 6: -PLUS was struck from the list, or the client saw another certificate."""
    server = with_carol(server_factory)
    with smtplib.SMTP("127.0.0.1", server.ports["submission"], "client.test", timeout=20) as smtp:
        smtp.starttls(context=trusting())
        smtp.ehlo()
        mechanism = "SCRAM-SHA-256" if flag == "y" else "SCRAM-SHA-256-PLUS"
        code, text = smtp.docmd(f"AUTH {mechanism} " + b64(f"{flag},,n=carol@example.test,r=abc"))
        if flag != "y":
            nonce = base64.b64decode(text).decode().partition(",")[0]
            bound = b64(f"{flag},,".encode() + b"x" * 32)
            code, text = smtp.docmd(b64(f"c={bound},{nonce},p=" + b64(b"y" * 32)))
        told = {"y": b"e=server-does-support-channel-binding"}.get(flag, b"e=channel-bindings-dont-match")
        assert (code, base64.b64decode(text)) == (334, told)
        assert smtp.docmd("")[0] == 535


def test_a_renewed_certificate_shows_without_a_restart(server: Any) -> None:
    def shown() -> bytes:
        with server.smtp() as smtp:
            smtp.starttls(context=trusting())
            assert isinstance(smtp.sock, ssl.SSLSocket)
            return smtp.sock.getpeercert(binary_form=True) or b""

    before = shown()
    folder = server.folder / "data" / "tls"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90",
         "-subj", "/CN=mail.example.test", "-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    assert server.run("reload").returncode == 0
    assert shown() != before
    (certificate,) = json.loads(server.run("status", "--json").stdout)["certificates"]
    assert certificate["not_after"]


def test_who_guesses_is_slowed_down_until_an_administrator_forgets_it(
    server_factory: Callable[..., Any],
) -> None:
    server = server_factory(
        '[guard]\ntrusted = []\nfree_failures = 0\nfirst_delay = "1h"\nlongest_delay = "1h"\n'
    )
    with server.smtp() as smtp:
        smtp.ehlo()
        assert smtp.docmd("AUTH PLAIN " + b64("\0alice@example.test\0wrong"))[0] == 535
    listed = server.run("guard", "list").stdout
    assert "127.0.0.1" in listed
    assert "alice" in listed
    assert server.run("guard", "clear").stdout.endswith("forgotten\n")
    assert "alice" not in server.run("guard", "list").stdout
    with server.smtp() as smtp:
        assert smtp.login("alice@example.test", "wonderland")[0] == 235


def test_confinement_and_open_secrets_are_told(server: Any) -> None:
    said = [event for event in server.events() if event.get("component") in ("confine", "secrets")]
    assert any("onfined" in event["text"] for event in said)


def test_a_confined_server_starts_with_a_great_many_accounts(server_factory: Callable[..., Any]) -> None:
    """SQLite sorts what is larger than its cache in files of its own, in folders where the server may not write."""
    server = with_carol(server_factory)
    assert server.stop() == 0
    with sqlite3.connect(server.folder / "data" / "accounts.sqlite") as db:
        rows = ((f"alias{number}@example.test", '["carol@example.test"]', 1.0) for number in range(100_000))
        db.executemany("INSERT INTO aliases VALUES (?, ?, ?)", rows)
    db.close()
    server.start()
    with server.smtp() as smtp:
        smtp.sendmail("a@remote.test", ["alias99999@example.test"], "Subject: many\r\n\r\nText\r\n")


def test_a_user_database_that_others_may_read_is_a_mistake(server_factory: Callable[..., Any]) -> None:
    server = with_carol(server_factory)
    assert server.run("check").returncode == 0
    database = server.folder / "data" / "accounts.sqlite"
    database.chmod(0o640)
    answer = server.run("check")
    assert (answer.returncode, "accounts.sqlite" in answer.stderr) == (2, True)
