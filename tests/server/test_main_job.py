"""The main job from outside: in by SMTP, kept, out by POP3."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"
MESSAGE = (
    "From: a@sender.test\r\nTo: alice@example.test\r\nSubject: hello\r\n\r\n"
    "Hello Alice,\r\n.dot\r\n..dots\r\n.\r\nend\r\n"
)


def after_trace_headers(lines: list[bytes]) -> bytes:
    """The message as the client sent it: without our Return-Path, Delivered-To and Received in front."""
    ours = (b"Return-Path:", b"Delivered-To:", b"Received:", b"\t")
    start = 0
    seen_received = False
    while lines[start].startswith(ours) and not (seen_received and not lines[start].startswith(b"\t")):
        seen_received = seen_received or lines[start].startswith(b"Received:")
        start += 1
    return b"\r\n".join(lines[start:]) + b"\r\n"


def test_a_message_sent_is_the_message_fetched(server: Any) -> None:
    with server.smtp() as smtp:
        smtp.sendmail("a@sender.test", ["alice@example.test"], MESSAGE)
    box = server.pop3()
    assert box.stat()[0] == 1
    _, lines, _ = box.retr(1)
    assert after_trace_headers(lines) == MESSAGE.encode()
    assert lines[0] == b"Return-Path: <a@sender.test>"
    assert int(box.list(1).split()[2]) == sum(
        len(line) + 2 for line in lines
    )  # RFC 1939 11: octets with CRLF
    box.dele(1)
    box.quit()
    assert server.pop3().stat() == (0, 0)


def test_a_dropped_pop3_connection_deletes_nothing(server: Any) -> None:
    with server.smtp() as smtp:
        smtp.sendmail("a@sender.test", ["alice@example.test"], MESSAGE)
    box = server.pop3()
    box.dele(1)
    box.close()
    assert server.pop3().stat()[0] == 1


def test_many_mailboxes_share_one_file(server: Any) -> None:
    with server.smtp() as smtp:
        smtp.sendmail("a@sender.test", ["alice@example.test", "bob@example.test"], MESSAGE)
    (alice,) = (server.maildir("alice") / "new").iterdir()
    (bob,) = (server.maildir("bob") / "new").iterdir()
    assert alice.stat().st_ino == bob.stat().st_ino
    assert b"Delivered-To" not in alice.read_bytes()  # one file for two readers names neither
    size = alice.stat().st_size
    assert f",S={size}," in alice.name
    lines = alice.read_bytes().count(b"\n")
    assert alice.name.endswith(f",W={size + lines}")
    assert not list((server.maildir("alice") / "tmp").iterdir())


def test_uidl_survives_a_restart_and_flags_set_by_another_program(server: Any) -> None:
    with server.smtp() as smtp:
        smtp.sendmail("a@sender.test", ["alice@example.test"], MESSAGE)
    before = server.pop3().uidl()[1]
    (file,) = (server.maildir("alice") / "new").iterdir()
    file.rename(server.maildir("alice") / "cur" / f"{file.name}:2,S")  # what mutt or Dovecot do
    assert server.pop3().uidl()[1] == before
    assert server.stop() == 0
    server.start()
    assert server.pop3().uidl()[1] == before


def test_mail_put_into_the_maildir_by_another_program_appears(server: Any) -> None:
    assert server.pop3().stat() == (0, 0)
    new = server.maildir("alice") / "new"
    new.mkdir(parents=True, exist_ok=True)
    (new / "1700000000.1.elsewhere").write_bytes(b"Subject: x\n\nbody\n")
    assert server.pop3().stat() == (1, len(b"Subject: x\r\n\r\nbody\r\n"))


def test_role_addresses_exist_on_a_fresh_install(server: Any) -> None:
    with server.smtp() as smtp:
        smtp.ehlo()
        for role in ("postmaster", "abuse", "root", "mailer-daemon", "hostmaster", "POSTMASTER"):
            smtp.mail("a@sender.test")
            assert smtp.rcpt(f"{role}@example.test")[0] == 250, role
            if role.lower() == "postmaster":
                assert smtp.rcpt(role)[0] == 250  # RFC 5321 4.5.1: without a domain
            smtp.rset()


def test_relay_is_closed_and_unknown_users_are_refused_at_rcpt(server: Any) -> None:
    with server.smtp() as smtp:
        smtp.ehlo()
        smtp.mail("a@sender.test")
        assert smtp.rcpt("nobody@example.test")[0] == 550
        code, text = smtp.rcpt("someone@elsewhere.test")
        assert (code, text[:5]) == (550, b"5.7.1")


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus of real mail lies beside the project, not in it")
def test_the_corpus_comes_back_byte_for_byte(server: Any) -> None:
    sent = []
    with server.smtp() as smtp:
        smtp.ehlo()
        for file in sorted(CORPUS.rglob("*.eml")):
            content = file.read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
            content += b"" if content.endswith(b"\r\n") else b"\r\n"
            smtp.mail("a@sender.test", ["BODY=8BITMIME"])
            smtp.rcpt("alice@example.test")
            code, reply = smtp.data(content)
            assert code == 250, (file.name, reply)
            sent.append(content)
    box = server.pop3()
    assert box.stat()[0] == len(sent) > 100
    for number, content in enumerate(sent, 1):
        assert after_trace_headers(box.retr(number)[1]) == content


def test_the_control_socket_and_the_data_are_the_owners_alone(server: Any) -> None:
    assert stat.S_IMODE((server.folder / "data" / "control.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE(server.maildir("alice").parent.parent.parent.stat().st_mode) & 0o077 == 0


def test_commands_take_effect_at_once(server: Any) -> None:
    assert (
        server.run("user", "add", "carol@example.test", "--password-stdin", stdin="secret\n").returncode == 0
    )
    with server.smtp() as smtp:
        smtp.sendmail("a@sender.test", ["carol@example.test"], MESSAGE)
    assert server.pop3("carol@example.test", "secret").stat()[0] == 1
    assert server.run("alias", "set", "info@example.test", "carol@example.test").returncode == 0
    with server.smtp() as smtp:
        smtp.sendmail("a@sender.test", ["info@example.test"], MESSAGE)
    assert server.pop3("carol@example.test", "secret").stat()[0] == 2
    assert server.run("health").returncode == 0
    assert server.run("status").returncode == 0


def test_stop_drains_and_status_says_stopped(server: Any) -> None:
    assert server.run("stop").returncode == 0
    assert server.process.wait(20) == 0
    assert server.run("status").returncode == 1
    assert server.run("health").returncode == 1


def test_a_draining_server_says_so_and_takes_what_was_begun(server: Any) -> None:
    smtp = server.smtp()
    smtp.ehlo()
    smtp.mail("a@sender.test")
    smtp.rcpt("alice@example.test")
    assert smtp.docmd("DATA")[0] == 354
    server.process.terminate()
    with pytest.raises(ConnectionRefusedError):
        while True:
            with suppress(ConnectionResetError):  # it was closed with us in its backlog
                socket.create_connection(("127.0.0.1", server.ports["smtp"])).close()
    done = server.run("health")
    assert (done.returncode, done.stderr) == (1, "mailserver: the server is draining\n")
    assert json.loads(server.run("status", "--json").stdout)["listeners"] == []
    smtp.send(b"Subject: last\r\n\r\n.\r\n")
    assert smtp.getreply()[0] == 250
    smtp.close()
    assert server.process.wait(20) == 0


def test_root_needs_a_user_to_become_before_it_faces_the_network(server_factory: Callable[..., Any]) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can show that root is refused")
    with pytest.raises(AssertionError, match="run_as"):
        server_factory(base='data_dir = "data"\npop3.listen = []\n[smtp]\nlisten = ["0.0.0.0:0"]\n')


def test_a_reload_that_fails_changes_nothing_and_says_so(server: Any) -> None:
    text = server.config_file.read_text()
    pem = server.folder / "broken.pem"
    pem.write_text("nonsense")
    more = f'\n[users."carol@example.test"]\npassword = "{{PLAIN}}x"\n[tls]\ncertificate = "{pem}"\nkey = "{pem}"\n'
    server.config_file.write_text(
        text.replace('format = "json"', 'format = "text"\ntarget = "new.log"') + more
    )
    answer = server.run("reload")
    assert (answer.returncode, "broken.pem" in answer.stderr) == (1, True)
    assert "carol" not in server.run("user", "list").stdout
    assert not (server.folder / "data" / "new.log").exists()
    server.config_file.write_text(text + more.partition("[tls]")[0])
    assert server.run("reload").returncode == 0
    assert "carol" in server.run("user", "list").stdout
