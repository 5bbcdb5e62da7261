"""Programs that people send mail with, each the way its manual says."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

ALICE, BOB = "alice@example.test", "bob@example.test"
SUBMISSION = '[submission]\nlisten = ["127.0.0.1:0"]\nlisten_tls = ["127.0.0.1:0"]\n'


@pytest.fixture
def office(server_factory: Callable[..., Any]) -> Any:
    return server_factory(SUBMISSION)


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not installed")


def delivered(server: Any) -> str:
    (mail,) = (server.maildir("bob") / "new").iterdir()
    return mail.read_text()


def login_of(server: Any) -> tuple[str, str, str]:
    assert server.stop() == 0
    (login,) = [e for e in server.events() if e["event"] == "logged-in"]
    (opened,) = [
        e for e in server.events() if e["event"] == "session-opened" and e["session"] == login["session"]
    ]
    return login["account"], login["mechanism"], opened.get("tls", "")


@needs("msmtp")
@pytest.mark.parametrize("method", ["plain", "login", "scram-sha-256", "on"])
def test_msmtp_with_starttls(office: Any, method: str) -> None:
    done = subprocess.run(
        ["msmtp", "--host=127.0.0.1", f"--port={office.ports['submission']}", "--tls=on", "--tls-starttls=on",
         f"--tls-trust-file={office.folder}/data/tls/certificate.pem", "--tls-host-override=mail.example.test",
         f"--auth={method}", f"--user={ALICE}", "--passwordeval=echo wonderland", f"--from={ALICE}", BOB],
        input="Subject: msmtp\n\n.a line that begins with a dot\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = delivered(office)
    assert "with ESMTPSA id " in text
    assert text.endswith("Subject: msmtp\n\n.a line that begins with a dot\n")
    account, mechanism, _ = login_of(office)
    assert account == ALICE
    assert mechanism == method.upper() or method == "on"


@needs("msmtp")
def test_msmtp_is_told_that_its_password_is_wrong(office: Any) -> None:
    done = subprocess.run(
        ["msmtp", "--host=127.0.0.1", f"--port={office.ports['submission-tls']}", "--tls=on", "--tls-starttls=off",
         "--tls-certcheck=off", "--auth=plain", f"--user={ALICE}", "--passwordeval=echo wrong", f"--from={ALICE}", BOB],
        input="Subject: x\n\ny\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 77, done.stderr  # EX_NOPERM: it will not try again with the same
    assert "535 5.7.8" in done.stderr


@needs("swaks")
@pytest.mark.parametrize(("tls", "auth"), [("--tlsc", "PLAIN"), ("--tlsc", "LOGIN"), ("--tls", "PLAIN")])
def test_swaks(office: Any, tls: str, auth: str) -> None:
    listener = "submission-tls" if tls == "--tlsc" else "submission"
    done = subprocess.run(
        ["swaks", "--server", "127.0.0.1", "--port", str(office.ports[listener]), tls, "--auth", auth,
         "--auth-user", ALICE, "--auth-password", "wonderland", "--from", ALICE, "--to", BOB,
         "--header", "Subject: swaks", "--body", "hello", "--timeout", "20"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "TLS not available" in done.stderr or "not available" in done.stdout:
        pytest.skip("this swaks was installed without TLS (Net::SSLeay)")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Subject: swaks" in delivered(office)
    account, mechanism, version = login_of(office)
    assert (account, mechanism) == (ALICE, auth)
    assert bool(version) == (tls == "--tlsc")


@needs("curl")
def test_curl_with_app_passwords_and_a_yescrypt_hash(server_factory: Callable[..., Any]) -> None:
    """An app password opens what it is for, over TLS; the account's own password, here a $y$ hash, opens all."""
    server = server_factory(SUBMISSION, users='[domains."example.test"]\n')
    hashed = server.run(
        "user", "hash", "--scheme", "yescrypt", "--password-stdin", stdin="wonderland\n"
    ).stdout
    assert hashed.startswith("$y$")
    assert server.run("user", "passwd", ALICE, "--hashed", "--password-stdin", stdin=hashed).returncode == 0
    passwords = {"own": "wonderland"}
    for scope in ("smtp", "pop3"):
        made = server.run("user", "app-password", "add", ALICE, scope, "--scope", scope, "--json")
        passwords[scope] = json.loads(made.stdout)["password"]
    for name, password in passwords.items():
        for url in (
            f"smtp://127.0.0.1:{server.ports['submission']}",
            f"pop3://127.0.0.1:{server.ports['pop3']}",
        ):
            mail = (
                ["--mail-from", ALICE, "--mail-rcpt", ALICE, "--crlf", "-T", "-"]
                if url.startswith("smtp")
                else []
            )
            done = subprocess.run(
                ["curl", "-sSk", "--ssl-reqd", "-u", f"{ALICE}:{password}", url, *mail],
                input="Subject: x\n\ny\n", capture_output=True, text=True, check=False, timeout=30,
            )  # fmt: skip
            opens = name == "own" or url.startswith("pop3") == (name == "pop3")
            assert done.returncode == (0 if opens else 67), (name, url, done.stderr)  # 67: login denied
