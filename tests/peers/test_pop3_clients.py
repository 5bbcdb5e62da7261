"""Programs that fetch mail, against our POP3; and one that works in the Maildir behind it."""

from __future__ import annotations

import os
import poplib
import pty
import select
import signal
import smtplib
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

Program = Callable[[str], str]
POP3 = """\
[pop3]
listen = ["127.0.0.1:0"]
listen_tls = ["127.0.0.1:0"]
apop = true
"""
TEXTS = [
    b"Subject: one\r\n\r\n.dot\r\n",
    "Subject: Grüße\r\n\r\nzwei\r\n".encode(),
    b"Subject: three\r\n\r\n3\r\n",
]


@pytest.fixture
def office(server_factory: Callable[..., Any]) -> Any:
    """A server with three messages for alice; the second has UTF-8 in its header."""
    base = (
        'hostname = "mail.example.test"\ndata_dir = "data"\n[smtp]\nlisten = ["127.0.0.1:0"]\n'
        f'{POP3}[log]\nformat = "json"\n'
    )
    server = server_factory(base=base)
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=20) as smtp:
        for text in TEXTS:
            smtp.sendmail("a@sender.test", ["alice@example.test"], text, ["BODY=8BITMIME", "SMTPUTF8"])
    return server


def run(*command: str, stdin: str = "", home: Path) -> bytes:
    """What a program prints; it must end well."""
    environment = {**os.environ, "HOME": str(home)}
    done = subprocess.run(
        command, input=stdin.encode(), capture_output=True, timeout=40, env=environment, check=False
    )
    assert done.returncode == 0, done
    return done.stdout


def mechanisms(server: Any) -> list[str]:
    return [event["mechanism"] for event in server.events() if event.get("event") == "logged-in"]


def logged_in(server: Any, count: int) -> list[str]:
    """The mechanisms of the first logins; the log is another process's work."""
    end = time.monotonic() + 20
    while len(found := mechanisms(server)) < count:
        assert time.monotonic() < end, found
        time.sleep(0.02)
    return found[:count]


def test_curl(office: Any, program: Program, tmp_path: Path) -> None:
    port, tls = office.ports["pop3"], 0
    tls = next(
        int(line.rsplit(":", 1)[1])
        for event in office.events() if event.get("event") == "ready"
        for line in event["listeners"] if line.startswith("pop3") and not line.endswith(f":{port}")
    )  # fmt: skip
    curl = [
        program("curl"),
        "--silent",
        "--show-error",
        "--insecure",
        "--user",
        "alice@example.test:wonderland",
    ]
    for options in (
        [f"pop3://127.0.0.1:{port}/1", "--ssl-reqd"],
        [f"pop3s://127.0.0.1:{tls}/1"],
        [f"pop3://127.0.0.1:{port}/1", "--login-options", "AUTH=+APOP"],
        [f"pop3://127.0.0.1:{port}/1", "--login-options", "AUTH=PLAIN"],
    ):
        assert run(*curl, *options, home=tmp_path).endswith(b"Subject: one\r\n\r\n.dot\r\n")
    assert logged_in(office, 4)[2:] == ["APOP", "PLAIN"]
    assert run(*curl, f"pop3://127.0.0.1:{port}/", home=tmp_path).count(b"\r\n") == 3
    # Not even in a program that has never heard of RFC 6858 does the text suffer.
    text = run(*curl, f"pop3://127.0.0.1:{port}/2", home=tmp_path)
    assert text.endswith(b"Subject: =?utf-8?B?R3LDvMOfZQ==?=\r\n\r\nzwei\r\n")


def test_mpop(office: Any, program: Program, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    for folder in ("new", "cur", "tmp"):
        (inbox / folder).mkdir(parents=True)
    command = [
        program("mpop"), "--host=127.0.0.1", f"--port={office.ports['pop3']}", "--user=alice@example.test",
        "--passwordeval=echo wonderland", "--tls=on", "--tls-starttls=on", "--tls-certcheck=off", "--pipelining=on",
        f"--delivery=maildir,{inbox}", f"--uidls-file={tmp_path}/uidls",
    ]  # fmt: skip
    for _ in range(2):  # the second time there is nothing new: unique-ids stay
        run(*command, "--keep=on", "--auth=on", home=tmp_path)
        assert len(list((inbox / "new").iterdir())) == 3
    run(*command, "--keep=on", "--auth=apop", home=tmp_path)
    assert logged_in(office, 3)[2] == "APOP"
    run(*command, "--keep=off", home=tmp_path)
    assert not list((office.maildir("alice") / "new").iterdir())


def test_fetchmail(office: Any, program: Program, tmp_path: Path) -> None:
    rc = tmp_path / "fetchmailrc"
    rc.write_text(
        f"poll 127.0.0.1 service {office.ports['pop3']} protocol POP3 uidl no envelope\n"
        f"user alice@example.test password wonderland sslproto 'TLS1.2+' no sslcertck fetchall no keep\n"
        f"mda '/bin/sh -c \"cat >>{tmp_path}/mail\"'\n"
    )
    rc.chmod(0o600)
    run(program("fetchmail"), "-f", str(rc), "--nosyslog", "--pidfile", f"{tmp_path}/pid", home=tmp_path)
    got = (tmp_path / "mail").read_bytes()
    assert got.count(b"Subject: ") == 3
    assert b"\n.dot\n" in got
    assert not list((office.maildir("alice") / "new").iterdir())


def drive_mutt(mutt: str, folder: Path, keys: str, home: Path, more: str = "") -> None:
    """mutt wants a terminal; it gets ``keys`` and ends by itself."""
    settings = f'set folder="{home}" mbox_type=Maildir move=no quit=yes delete=yes mark_old=no {more}'
    command = [mutt, "-n", "-F", "/dev/null", "-f", str(folder), "-e", settings, "-e", f'push "{keys}"']
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="vt100", HOME=str(home))
        os.execv(mutt, command)
    end, said = time.monotonic() + 30, b""
    with suppress(OSError):  # EIO: it has gone
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.2)[0]:
                said += os.read(terminal, 65536)
    with suppress(ProcessLookupError):
        if time.monotonic() >= end:
            os.kill(pid, signal.SIGKILL)
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0, said


def test_mutt_works_in_the_maildir_of_an_open_session(office: Any, program: Program, tmp_path: Path) -> None:
    mutt, folder = program("mutt"), office.maildir("alice")
    box = office.pop3()
    ids = box.uidl()[1]
    # It deletes the first, reads the second, marks the third as important.
    keys = "<first-entry><delete-message><toggle-new><flag-message><quit>"
    drive_mutt(mutt, folder, keys, tmp_path)
    found = sorted(f"{path.parent.name}:{path.name.rpartition(':')[2]}" for path in folder.glob("[nc]*/*"))
    assert found == ["cur:2,S", "new:2,F"]  # flags in new/, which maildir(5) does not have and mutt makes
    assert box.stat()[0] == 3  # the session's snapshot
    with pytest.raises(poplib.error_proto, match="another program has removed"):
        box.retr(1)
    for number, text in ((2, b"zwei"), (3, b"3")):
        assert box.retr(number)[1][-1] == text
    box.dele(1)
    box.dele(2)
    box.quit()
    later = office.pop3()
    assert later.uidl()[1] == [b"1 " + ids[2].split()[1]]
    later.quit()
    drive_mutt(mutt, folder, "<first-entry><delete-message><quit>", tmp_path)
    assert office.pop3().stat() == (0, 0)


def test_mutt_fetches_mail_over_tls_as_it_comes(
    server_factory: Callable[..., Any], program: Program, tmp_path: Path
) -> None:
    """It takes the first mechanism that is offered and gives up where that fails: SCRAM-SHA-256, not -PLUS."""
    mutt, home = program("mutt"), tmp_path / "home"
    home.mkdir()
    base = f'hostname = "mail.example.test"\n{POP3}[smtp]\nlisten = ["127.0.0.1:0"]\n[log]\nformat = "json"\n'
    server = server_factory(base=base.replace("apop = true\n", ""), users='[domains."example.test"]\n')
    added = server.run("user", "add", "carol@example.test", "--password-stdin", stdin="pencil\n")
    assert added.returncode == 0, added.stderr
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=20) as smtp:
        smtp.sendmail("a@sender.test", ["carol@example.test"], TEXTS[0])
    account = (
        f'spoolfile="{home}/in" pop_host="pops://carol@example.test@127.0.0.1:{server.ports["pop3-tls"]}" '
        f'pop_pass=pencil pop_delete=yes certificate_file="{tmp_path}/data/tls/certificate.pem" ssl_verify_host=no '
        "sleep_time=0"
    )
    for name in ("tmp", "new", "cur"):
        (home / "in" / name).mkdir(parents=True)
    drive_mutt(mutt, home / "in", "<fetch-mail><quit>", home, account)
    (mail,) = (home / "in" / "new").iterdir()
    assert b"\n.dot\n" in mail.read_bytes()
    assert logged_in(server, 1) == ["SCRAM-SHA-256"]
