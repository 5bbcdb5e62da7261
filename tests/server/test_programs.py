"""Accounts that programs of the administrator's know, through running services: tokens, and a domain of its own."""

from __future__ import annotations

import base64
import json
import shutil
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ALICE = "alice@example.test"
TOKENS = """#!/bin/sh
[ -e "$0.down" ] && exit 111
case $(cat <&3) in
good) echo alice@example.test;; strange) echo ghost@example.test;; odd) echo nonsense;; *) exit 1;;
esac
"""
CHECK = """#!/bin/sh
[ -e "$0.down" ] && exit 111
[ "$(tr '\\0' '\\n' <&3 | head -n 2)" = "alice@prog.test
secret" ] || exit 1
exec "$@"
"""
EXISTS = """#!/bin/sh
[ -e "${0%exists}check.down" ] && exit 111
case $ADDRESS in alice@prog.test|bob@prog.test) exit 0;; *) exit 1;; esac
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, text in (("tokens", TOKENS), ("check", CHECK), ("exists", EXISTS)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def server(server_factory: Callable[..., Any], programs: Path) -> Any:
    return server_factory(
        f"""
[submission]
listen = ["127.0.0.1:0"]
[bearer]
program = "{programs}/tokens"
scope = "mail"
discovery = "https://id.example.test/.well-known/openid-configuration"
[domains."prog.test"]
[backends.programs]
type = "checkpassword"
domains = "prog.test"
program = ["{programs}/check", "/bin/true"]
exists = ["{programs}/exists"]
"""
    )


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def oauthbearer(token: str) -> str:
    return "AUTH OAUTHBEARER " + b64(f"n,a={ALICE},\x01auth=Bearer {token}\x01\x01")


def xoauth2(token: str) -> str:
    return "AUTH XOAUTH2 " + b64(f"user={ALICE}\x01auth=Bearer {token}\x01\x01")


def submission(server: Any) -> smtplib.SMTP:
    smtp = smtplib.SMTP("127.0.0.1", server.ports["submission"], "client.test", timeout=20)
    smtp.starttls(context=ssl._create_unverified_context())
    smtp.ehlo()
    return smtp


def pop3(server: Any, *commands: str) -> list[str]:
    """The first lines of the answers."""
    with (
        socket.create_connection(("127.0.0.1", server.ports["pop3"]), 20) as sock,
        sock.makefile("rwb") as file,
    ):
        file.readline()
        said = []
        for command in commands:
            file.write(command.encode() + b"\r\n")
            file.flush()
            said.append(file.readline().decode().rstrip())
    return said


@pytest.mark.parametrize("message", [oauthbearer, xoauth2])
def test_a_token_over_smtp(server: Any, programs: Path, message: Callable[[str], str]) -> None:
    with submission(server) as smtp:
        assert {"OAUTHBEARER", "XOAUTH2"} <= set(smtp.esmtp_features["auth"].split())
        code, challenge = smtp.docmd(message("bad"))
        assert code == 334
        told = json.loads(base64.b64decode(challenge))
        assert (told["status"], told["scope"]) == ("401" if message is xoauth2 else "invalid_token", "mail")
        assert smtp.docmd("AQ==") == (535, b"5.7.8 Authentication credentials invalid")
        assert smtp.docmd(message("strange"))[0] == 535  # whoever that is, it is no account
        assert smtp.docmd(message("odd")) == (454, b"4.7.0 Temporary authentication failure")
        (programs / "tokens.down").touch()
        assert smtp.docmd(message("good")) == (454, b"4.7.0 Temporary authentication failure")
        (programs / "tokens.down").unlink()
        assert smtp.docmd(message("good"))[0] == 235
        assert smtp.mail(ALICE)[0] == 250
    assert server.stop() == 0
    assert [(e["account"], e["mechanism"]) for e in server.events() if e["event"] == "logged-in"] == [
        (ALICE, message("x").split()[1])
    ]
    failures = [e["reason"] for e in server.events() if e["event"] == "login-failed"]
    assert [
        word in reason
        for word, reason in zip(("not valid", "", "printed no address", "111"), failures, strict=True)
    ]
    log = server.log_file.read_text()
    assert "Bearer" not in log
    assert not [form for form in ("bad", "strange", "good", "odd") if message(form).split()[2] in log]


@pytest.mark.parametrize("message", [oauthbearer, xoauth2])
def test_a_token_over_pop3(server: Any, programs: Path, message: Callable[[str], str]) -> None:
    challenge, refused, good = pop3(server, message("bad"), "AQ==", message("good"))
    assert challenge.startswith("+ ey")  # {"
    assert refused.startswith("-ERR [AUTH] ")
    assert good == "+OK 0 messages"
    (programs / "tokens.down").touch()
    assert pop3(server, message("good"))[0].startswith("-ERR [SYS/TEMP] ")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_logs_in_with_a_token(server: Any) -> None:
    with server.smtp() as smtp:
        smtp.sendmail("a@remote.test", [ALICE], "Subject: by token\r\n\r\nText\r\n")
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "20", "--oauth2-bearer", "good", "-u", ALICE,
         f"pop3://127.0.0.1:{server.ports['pop3']}/1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Subject: by token" in done.stdout
    assert server.stop() == 0
    (login,) = [e for e in server.events() if e["event"] == "logged-in"]
    assert login["mechanism"] in ("OAUTHBEARER", "XOAUTH2")


def test_tokens_are_asked_for_and_no_longer_by_a_reload(server: Any) -> None:
    text = server.config_file.read_text()
    server.config_file.write_text(text.replace("[bearer]\nprogram", "[bearer]\n#"))
    assert server.run("reload").returncode == 0
    with submission(server) as smtp:
        assert "OAUTHBEARER" not in smtp.esmtp_features["auth"]
        assert smtp.docmd(oauthbearer("good"))[0] == 504
    server.config_file.write_text(text)
    assert server.run("reload").returncode == 0
    with submission(server) as smtp:
        assert smtp.docmd(oauthbearer("good"))[0] == 235


def test_a_domain_whose_program_cannot_say_gets_451_and_never_550(server: Any, programs: Path) -> None:
    down = programs / "check.down"

    def rcpt(*users: str) -> list[tuple[int, bytes]]:
        with server.smtp() as smtp:
            smtp.ehlo()
            smtp.mail("a@remote.test")
            return [(code, text[:5]) for code, text in (smtp.rcpt(f"{user}@prog.test") for user in users)]

    assert rcpt("alice", "ghost") == [(250, b"2.1.5"), (550, b"5.1.1")]
    down.touch()
    assert rcpt("alice") == [(250, b"2.1.5")]  # known lately
    assert [code for code, _ in rcpt("bob", "anybody")] == [451, 451]
    assert pop3(server, "USER alice@prog.test", "PASS secret")[1].startswith("-ERR [SYS/TEMP] ")
    with submission(server) as smtp, pytest.raises(smtplib.SMTPAuthenticationError) as refused:
        smtp.login("alice@prog.test", "secret")
    assert (refused.value.smtp_code, refused.value.smtp_error[:5]) == (454, b"4.7.0")
    down.unlink()
    assert pop3(server, "USER alice@prog.test", "PASS secret")[1] == "+OK 0 messages"
    assert pop3(server, "USER alice@prog.test", "PASS wrong")[1].startswith("-ERR [AUTH] ")
    with submission(server) as smtp:
        assert smtp.login("alice@prog.test", "secret")[0] == 235
    assert [code for code, _ in rcpt("anybody")] in ([451], [550])  # asked again within some seconds
