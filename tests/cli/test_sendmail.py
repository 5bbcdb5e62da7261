"""The sendmail interface: options as programs write them, headers as RFC 5322 has them, mail over real
SMTP."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from aiosmtpd.controller import Controller
from hypothesis import given
from hypothesis import strategies as st

from mailserver.cli.sendmail import Options, parse
from mailserver.cli.sendmail_message import addresses, completed, read, recipients


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["-t", "-i"], Options(from_header=True, dot_ends=False)),
        (["-ti"], Options(from_header=True, dot_ends=False)),
        (["-oi", "-fme@x.test", "a@b.test"], Options(["a@b.test"], dot_ends=False, sender="me@x.test")),
        (["-f", "<>", "--", "-odd@b.test"], Options(["-odd@b.test"], sender="<>")),
        (["-f", "", "a"], Options(["a"], sender="")),
        (["-oem", "-odb", "-bm", "-F", "Full Name", "a"], Options(["a"], name="Full Name")),
        (
            ["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"],
            Options(["root"], dot_ends=False, name="CronDaemon"),
        ),
        (
            ["-em", "-v", "-U", "-h", "3", "-O", "DeliveryMode=b", "-o", "i", "a"],
            Options(["a"], dot_ends=False),
        ),
        (
            ["a", "-N", "never", "-Rhdrs", "-V", "q+1", "-Cx.toml"],
            Options(["a"], config="x.toml", notify="NEVER", ret="HDRS", envelope_id="q+1"),
        ),
        (["-bs"], Options(mode="s")),
        (["-bp"], Options(mode="p")),
        (["-q15m"], Options(mode="q")),
        (["-bi"], Options(mode="i")),
        (["-I"], Options(mode="i")),
        (["a", "--config", "x.toml"], Options(["a"], config="x.toml")),
    ],
)
def test_options_as_programs_write_them(line: list[str], expected: Options) -> None:
    assert parse(line) == expected


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (["alice@x.test\nmallory@x.test"], "line break or another control character in the recipient"),
        (["-f", "a@x.test\nRCPT TO:<b@x.test>", "c"], "-f: a line break"),
        (["-F", "Name\nBcc: b@x.test", "c"], "-F: a line break"),
        (["-bd"], "-bd is not offered here"),
        (["-N", "sometimes", "c"], "success,failure,delay"),
        (["-R", "half", "c"], "full or hdrs"),
        (["-f"], "-f needs a value"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    line: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught:
        parse(line)
    assert caught.value.exit_code == 2
    assert complaint in capsys.readouterr().err


def test_recipients_are_taken_from_the_header_and_bcc_goes() -> None:
    text = (
        b"To: Alice <a@x.test>,\n \"B, Bob\" <b@x.test>\nCC: team: c@x.test, d@x.test;\nBcc: secret@x.test\n"
        b"\tmore@x.test\nSubject: Bcc: not\n\nBcc: body\n"
    )  # fmt: skip
    text = text.replace(b"secret@x.test\n", b"secret@x.test,\n")
    message = read(text.splitlines(keepends=True), dot_ends=True)
    assert recipients(message) == [f"{n}@x.test" for n in ("a", "b", "c", "d", "secret", "more")]
    done = completed(message, sender="me@x.test", name="Me, Myself", now=0.0, message_id="<1@x.test>")
    content = done.content()
    assert b"secret" not in content
    assert b"more@" not in content
    assert content.endswith(b"\r\n\r\nBcc: body\r\n")
    assert b'From: "Me, Myself" <me@x.test>\r\n' in content
    assert b"Message-ID: <1@x.test>\r\n" in content


def test_resent_fields_count_alone() -> None:
    message = read([b"To: a@x.test\n", b"Resent-To: b@x.test\n"], dot_ends=False)
    assert recipients(message) == ["b@x.test"]


def test_what_is_there_stays_as_it_is() -> None:
    fields = b"From: a@x.test\r\nDate: today\r\nMessage-ID: <2@x.test>\r\nX: \xff\r\n\r\nbody \xfe\r\n"
    message = read(fields.splitlines(keepends=True), dot_ends=False)
    assert completed(message, sender="b@x.test", name=None, now=0.0, message_id="<1>").content() == fields


@pytest.mark.parametrize(("dot_ends", "body"), [(True, b"one\n"), (False, b"one\n.\ntwo\n")])
def test_the_single_dot(dot_ends: bool, body: bytes) -> None:
    assert read([b"\n", b"one\n", b".\n", b"two"], dot_ends=dot_ends).body == body


def test_text_without_a_header_is_all_body() -> None:
    assert read([b"hello there\n", b"\n", b"To: x\n"], dot_ends=True) == ((), b"hello there\n\nTo: x\n")
    assert read([b"From x@y Mon\n", b"A: b\n"], dot_ends=True) == ((b"A: b\n",), b"")
    assert addresses(["a@x.test, b@x.test", "a@x.test"]) == ["a@x.test", "b@x.test"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a@[192.0.2.1], Bob <b@[IPv6:::1]>", ["a@[192.0.2.1]", "b@[IPv6:::1]"]),
        ("Team: a@x.test, b@x.test;, undisclosed:;, c@x.test,, ", ["a@x.test", "b@x.test", "c@x.test"]),
        ('a@x.test (5" (or 3"), thin), "b, @" <b@x.test>', ["a@x.test", "b@x.test"]),
        ('"a, (b"@x.test, c@x.test <c@x.test>', ['"a, (b"@x.test', "c@x.test"]),
        ("a@x.test b@x.test, c@x.test", ["a@x.test b@x.test", "c@x.test"]),
        ("a@x.test (open, b@x.test", ["a@x.test (open, b@x.test"]),
    ],
)
def test_no_recipient_is_left_out_in_silence(text: str, expected: list[str]) -> None:
    assert addresses([text]) == expected
    broken = read([b'To: "Doe <d@x.test>\n', b"Cc: " + text.encode() + b"\n"], dot_ends=False)
    assert recipients(broken) == ['"Doe <d@x.test>', *expected]


def test_a_cr_amid_a_line_does_not_cost_the_message() -> None:
    message = read([b"Subject: a\rb\r\n", b"\r\n", b"10%\r20%\r\r\n"], dot_ends=True)
    assert message.content() == b"Subject: a b\r\n\r\n10% 20% \r\n"


@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"") + b"\n")))
def test_nothing_is_lost(lines: list[bytes]) -> None:
    message = read(lines, dot_ends=False)
    recipients(message)
    kept = b"".join(message.fields) + message.body
    everything = b"".join(
        line.removesuffix(b"\n").removesuffix(b"\r").replace(b"\r", b" ") + b"\n" for line in lines
    )
    if not everything.startswith(b"From "):
        assert everything in {kept, b"".join(message.fields) + b"\n" + message.body}


class Sink:
    """Takes everything but mail for nobody@."""

    def __init__(self) -> None:
        self.envelopes: list[Any] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("nobody@"):
            return "550 5.1.1 nobody \x1b[31mthere"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.envelopes.append(envelope)
        return "250 2.0.0 Ok"


@pytest.fixture
def sink(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Sink]:
    handler = Sink()
    port = free_port()
    controller = Controller(handler, hostname="127.0.0.1", port=port, decode_data=False)
    controller.start()
    config = f'hostname = "h.test"\n[smtp]\nlisten = ["127.0.0.1:{port}"]\n[domains."example.test"]\n'
    (tmp_path / "config.toml").write_text(config)
    yield handler
    controller.stop()


def send(folder: Path, *arguments: str, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "mailserver", "sendmail", *arguments, "-c", str(folder / "config.toml")]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=30, check=False)


def test_mail_goes_to_the_running_server(sink: Sink, tmp_path: Path) -> None:
    done = send(tmp_path, "-ti", "-f", "me@example.test", stdin=b"To: a@x.test\nBcc: b@x.test\n\n.\n\xff..\n")
    assert (done.returncode, done.stderr) == (0, b"")
    (envelope,) = sink.envelopes
    assert envelope.mail_from == "me@example.test"
    assert envelope.rcpt_tos == ["a@x.test", "b@x.test"]
    assert envelope.content.endswith(b"\r\n\r\n.\r\n\xff..\r\n")
    assert "BODY=8BITMIME" in envelope.mail_options
    assert send(tmp_path, "-f", "<>", "bob", stdin=b"text").returncode == 0
    assert sink.envelopes[1].rcpt_tos == ["bob@example.test"]
    assert sink.envelopes[1].mail_from == "<>"  # how aiosmtpd keeps the null sender


def test_who_is_refused_is_named(sink: Sink, tmp_path: Path) -> None:
    done = send(tmp_path, "nobody@x.test", "a@x.test", stdin=b"text")
    assert done.returncode == 1
    assert b"nobody@x.test: 550 5.1.1 nobody \\x1b[31mthere" in done.stderr
    assert sink.envelopes[0].rcpt_tos == ["a@x.test"]
    assert send(tmp_path, "nobody@x.test", stdin=b"text").returncode == 1
    assert len(sink.envelopes) == 1
    assert send(tmp_path, stdin=b"text").returncode == 2


def test_no_server_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('hostname = "h.test"\n[smtp]\nlisten = ["127.0.0.1:9"]\n')
    done = send(tmp_path, "a@x.test", stdin=b"text")
    assert done.returncode == 1
    assert b"nothing was sent: 127.0.0.1:9" in done.stderr


def test_the_real_server_takes_it_with_reports_as_wished(server: Any) -> None:
    """The corner programs use: -bs as pine does, -N and -R as mutt does, -bp and -q as cron jobs do."""
    config = server.config_file.read_text().replace(
        'listen = ["127.0.0.1:0"]', f'listen = ["127.0.0.1:{server.ports["smtp"]}"]', 1
    )
    server.config_file.write_text(config)  # the port that the kernel chose, where sendmail looks for it
    typed = (
        b"EHLO me.test\nMAIL FROM:<>\nRCPT TO:<bob@example.test>\nDATA\nSubject: typed\n\n..dot\n.\nQUIT\n"
    )
    talk = send(server.folder, "-bs", stdin=typed)
    assert (talk.returncode, talk.stderr) == (0, b"")
    assert re.search(rb"\A220 .*\r\n250 2\.0\.0 .* queued as \w+\r\n221 ", talk.stdout, re.DOTALL)
    assert server.pop3("bob@example.test", "builder").retr(1)[1][-1] == b".dot"
    wanted = send(
        server.folder, "-N", "success", "-R", "hdrs", "-V", "id=7", "-f", "alice", "bob", stdin=b"x\n"
    )
    assert (wanted.returncode, wanted.stderr) == (0, b"")
    (report,) = (server.maildir("alice") / "new").iterdir()
    assert "Original-Envelope-Id: id=7" in report.read_text()
    odd = send(server.folder, "-t", stdin=b"To: alice@example.test, <bob@example.test> e\n\nx\n")
    assert (odd.returncode, odd.stdout) == (1, b"")
    assert odd.stderr.startswith(
        b"mailserver: bob@example.test e: 501 5.1.3 "
    )  # not 550 for bob@example.teste
    assert send(server.folder, "-bp", stdin=b"").stdout == b"(none)\n"
    assert send(server.folder, "-q", stdin=b"").stdout == b"0 messages tried now\n"
    assert send(server.folder, "-bi", stdin=b"").returncode == 0
