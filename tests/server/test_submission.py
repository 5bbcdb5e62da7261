"""Our users' mail from outside: whose sender, what is added to a message, and the burst that is held."""

from __future__ import annotations

import json
import smtplib
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ALICE, BOB = "alice@example.test", "bob@example.test"
SUBMISSION = """
[submission]
listen = ["127.0.0.1:0"]
senders = { "alice@example.test" = ["news@elsewhere.test", "*@shop.test"], "bob@example.test" = "*" }
[domains."example.test".aliases]
sales = ["alice", "bob"]
"""
PLAIN_USERS = """\
[users."alice@example.test"]
password = "{PLAIN}wonderland"
[users."bob@example.test"]
password = "{PLAIN}builder"
"""
MESSAGE = "From: alice@example.test\r\nSubject: hello\r\n\r\nText\r\n"


def log_in(server: Any, service: str = "submission", *, tls: bool = False) -> smtplib.SMTP:
    smtp = smtplib.SMTP("127.0.0.1", server.ports[service], local_hostname="client.test", timeout=20)
    if tls:
        smtp.starttls(context=ssl._create_unverified_context())
    smtp.login(ALICE, "wonderland")
    return smtp


@pytest.fixture
def office(server_factory: Callable[..., Any]) -> Any:
    return server_factory(SUBMISSION, users=PLAIN_USERS)


def stored(server: Any, user: str = "bob") -> list[str]:
    return [path.read_text() for path in sorted((server.maildir(user) / "new").glob("*"))]


def spooled(server: Any) -> Iterator[Path]:
    return (path for path in (server.folder / "data/queue/msg").glob("*") if path.suffix != ".state")


def test_the_sender_belongs_to_the_account(office: Any) -> None:
    with log_in(office) as smtp:
        for sender in (
            ALICE,
            "ALICE@Example.Test",
            "sales@example.test",
            "news@elsewhere.test",
            "x@shop.test",
            "",
        ):
            assert smtp.mail(sender)[0] == 250, sender
            smtp.rset()
        for sender in (BOB, "nobody@example.test", "other@elsewhere.test", "x@sub.shop.test"):
            code, text = smtp.mail(sender)
            assert (code, text[:5]) == (553, b"5.7.1"), sender
    assert office.stop() == 0
    refusals = [e["rule"] for e in office.events() if e["event"] == "command-refused"]
    assert refusals == [f"no address of {ALICE}, nor in [submission] senders"] * 4


def test_a_login_on_port_25_is_bound_as_well_and_strangers_are_not(office: Any) -> None:
    with log_in(office, "smtp") as smtp:
        assert smtp.mail(BOB)[0] == 553
    with office.smtp() as smtp:
        smtp.sendmail("stranger@remote.test", [BOB], MESSAGE)
    (text,) = stored(office)
    assert text.endswith("\nFrom: alice@example.test\nSubject: hello\n\nText\n")
    assert "Date:" not in text  # only submission adds anything
    assert "Message-ID:" not in text


def test_an_account_that_is_given_any_sender(office: Any) -> None:
    with smtplib.SMTP("127.0.0.1", office.ports["submission"], timeout=20) as smtp:
        smtp.ehlo()
        assert smtp.mail(BOB)[0] == 530
        smtp.login(BOB, "builder")
        assert smtp.mail("whoever@anywhere.test")[0] == 250


def test_what_is_missing_is_added_in_front_and_nothing_else(office: Any) -> None:
    with log_in(office, tls=True) as smtp:
        smtp.sendmail(ALICE, [BOB], "Subject: Date: and From: stand in no field\r\n\r\nDate: body\r\n")
        smtp.sendmail("", [BOB], "date : Mon, 1 Jan 2024 00:00:00 +0000\r\nMESSAGE-ID: <1@x>\r\n\r\nText\r\n")
        whole = "Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <2@x>\r\n" + MESSAGE
        smtp.sendmail(ALICE, [BOB], whole)
        smtp.sendmail(ALICE, [BOB], "\r\nno header at all\r\n")
    bare, null, full, none = stored(office)
    trace, _, rest = bare.partition("\nFrom: ")
    assert " with ESMTPSA id " in trace
    lines = rest.split("\n")
    assert lines[0] == f"<{ALICE}>"
    assert lines[1].startswith("Date: ")
    assert lines[2].startswith("Message-ID: <") and lines[2].endswith("@mail.example.test>")
    assert lines[3:] == ["Subject: Date: and From: stand in no field", "", "Date: body", ""]
    assert f"\nFrom: <{ALICE}>\ndate : Mon" in null
    assert null.count("ID: <") == 1
    assert full.endswith("\n" + whole.replace("\r\n", "\n"))
    assert full.count("Date:") == full.count("From:") == 1
    assert none.split("\n")[-3:] == ["", "no header at all", ""]


def test_large_messages_get_it_too_and_sizes_stay_true(office: Any) -> None:
    text = "Subject: large\r\n\r\n" + ("x" * 70 + "\r\n") * 40_000
    with log_in(office) as smtp:
        smtp.sendmail(ALICE, [BOB], text)
    (message,) = stored(office)
    assert message.endswith(text.replace("\r\n", "\n"))
    for field in ("From", "Date", "Message-ID"):
        assert message.count(f"\n{field}: ") == 1
    box = office.pop3(BOB, "builder")
    size = int(box.list()[1][0].split()[1])
    assert size == len(message) + message.count("\n")
    box.quit()


def burst(server: Any, count: int) -> None:
    with log_in(server) as smtp:
        for number in range(count):
            smtp.sendmail(ALICE, [BOB, "someone@remote.test"], f"Subject: {number}\r\n\r\nText\r\n")


@pytest.fixture
def strict(server_factory: Callable[..., Any], free_port: Callable[[], int]) -> Any:
    nobody = f'[routes]\n"*" = "smtp://127.0.0.1:{free_port()}"\n'
    return server_factory(SUBMISSION + nobody + "[rates]\nmessages_per_hour = 3\n", users=PLAIN_USERS)


def listed(server: Any, *options: str) -> list[dict[str, Any]]:
    done = server.run("queue", "list", "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_stolen_account_s_burst_is_held_survives_a_restart_and_is_purged_at_once(strict: Any) -> None:
    burst(strict, 10)
    assert len(stored(strict)) == 3  # at once; of the others nobody has anything, here neither
    held = [message for message in listed(strict) if message["held"]]
    rule = "[rates] messages_per_hour = 3"
    assert [(m["account"], m["hold_reason"]) for m in held] == [(ALICE, rule)] * 7
    assert {r["state"] for m in held for r in m["recipients"]} == {"pending"}
    assert rule in strict.run("queue", "list").stdout
    assert strict.stop() == 0
    events = [e for e in strict.events() if e["event"] == "held"]
    assert [(e["account"], e["rule"], e["level"]) for e in events] == [(ALICE, rule, "warning")] * 7
    assert len([m for m in listed(strict, "--account", ALICE) if m["held"]]) == 7  # read from the disk
    strict.start()
    assert len([m for m in listed(strict) if m["held"]]) == 7
    assert len(stored(strict)) == 3
    assert listed(strict, "--account", BOB) == []
    with log_in(strict) as smtp:  # other accounts go on
        smtp.rset()
    assert strict.run("queue", "remove").returncode == 2
    assert strict.run("queue", "remove", "--account", BOB).stdout == "0 messages removed\n"
    done = strict.run("queue", "remove", "--account", "Alice@EXAMPLE.test")
    assert done.stdout == "10 messages removed\n"  # three still waited for remote.test
    assert listed(strict) == []
    assert list(spooled(strict)) == []


def test_releasing_an_account_delivers_and_trusts_it_again(strict: Any) -> None:
    burst(strict, 5)
    assert len(stored(strict)) == 3
    assert strict.run("queue", "hold", "--account", ALICE).stdout == "5 messages held\n"
    reasons = {m["hold_reason"] for m in listed(strict)}
    assert reasons == {"by an administrator", "[rates] messages_per_hour = 3"}
    assert strict.run("queue", "release", "--account", ALICE).stdout == "5 messages released\n"
    give_up = time.monotonic() + 20
    while len(stored(strict)) < 5 and time.monotonic() < give_up:
        listed(strict)  # takes its time
    texts = stored(strict)
    assert len(texts) == 5
    assert all(text.count("Return-Path:") == 1 for text in texts)
    burst(strict, 1)
    assert len(stored(strict)) == 6


def test_strangers_come_again_later(server_factory: Callable[..., Any]) -> None:
    server = server_factory(
        '[guard]\ntrusted = []\n[rates]\naddress_messages_per_hour = 2\n[domains."example.test"]\n',
        users=PLAIN_USERS,
    )
    with server.smtp() as smtp:
        for _ in range(2):
            smtp.sendmail("a@remote.test", [BOB], MESSAGE)
        with pytest.raises(smtplib.SMTPDataError) as refused:
            smtp.sendmail("a@remote.test", [BOB], MESSAGE)
    assert (refused.value.smtp_code, refused.value.smtp_error[:5]) == (450, b"4.7.1")
    assert server.stop() == 0
    (event,) = [e for e in server.events() if e["event"] == "command-refused"]
    assert event["rule"] == "[rates] address_messages_per_hour = 2"
    assert len(stored(server)) == 2
    assert list((server.folder / "data/tmp").iterdir()) == []
