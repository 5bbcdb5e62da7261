"""What is added to a submitted message (RFC 6409 8), however its octets arrive."""

import pytest
from receive_desk import Desk

from mailserver.message.envelope import Envelope, Local
from mailserver.policy.admission import Unavailable
from mailserver.receive.collector import HEADER_MAX, Collector
from mailserver.receive.submission import Additions
from mailserver.routing.resolve import Leaf, Leaves

ALICE = "alice@example.test"
LOGIN = b"EHLO c\r\nAUTH PLAIN AGFsaWNlQGV4YW1wbGUudGVzdAB3b25kZXI=\r\n"


def additions(sender=ALICE, **fields):
    message = Envelope("ID", sender, [], 0.0, account="jösé@example.test", **fields)
    return Additions(message, "Thu, 1 Jan 1970 00:00:00 +0000", "mx.test")


def names(lines):
    return [line.split(b":")[0] for line in lines.splitlines()]


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        (b"", [b"From", b"Date", b"Message-ID"]),
        (b"FROM : a@b.test\nX: y", [b"Date", b"Message-ID"]),
        (b"Subject: a\n Date: folded\nX-From: b\nmessage-id:<1@b>", [b"From", b"Date"]),
        (b"From: a\nDate: b\nMessage-ID: c", []),
        (b"From alice Thu Jan  1 00:00:00 1970\nFrom: a\nDate: b", [b"Message-ID"]),
        (b"Dear all,\ndate: tomorrow", [b"From", b"Date", b"Message-ID", b""]),
        (b" folded: nothing", [b"From", b"Date", b"Message-ID", b""]),
    ],
)
def test_only_what_is_missing(header, missing):
    assert names(additions().to(header)) == missing


def test_a_report_is_from_the_account_if_its_name_can_be_said():
    assert b"From" not in additions(None).to(b"")
    assert additions(None, smtputf8=True).to(b"").startswith("From: <jösé@example.test>\n".encode())


@pytest.mark.parametrize(
    ("content", "ended", "added"),
    [
        (b"X: y\r\n\r\ntext\r\n", True, True),
        (b"X: y\r\n", True, True),  # nothing but a header
        (b"X: y\r\n\r\n" + b"text\r\n" * 9000, False, True),
        (b"X: y\r\n" * 9000, False, False),  # Date may still come
        (b"X: y\r\n" * (HEADER_MAX // 5 + 1), True, False),  # beyond what is looked at
    ],
)
def test_nothing_is_added_to_a_header_that_is_not_known_whole(content, ended, added):
    collector = Collector(1 << 30)
    collector.data(content + (b".\r\n" if ended else b""), 0)
    assert bool(additions().to_collected(collector, ended=ended)) is added


async def submitted(tmp_path, dialog):
    desk = await Desk(tmp_path, name="submission").open()
    try:
        answer = await desk.talk(LOGIN + dialog + b"QUIT\r\n")
        assert b"queued as" in answer, answer
        return desk.queue.content()
    finally:
        await desk.close()


@pytest.mark.parametrize(
    "text",
    [b"Dear all,\r\nfrom: me\r\n", b"Dear all,\r\n\r\nyours\r\n", b"\r\nyours\r\n", b"\xc3\xa4: b\r\n", b""],
)
async def test_a_message_without_a_header_keeps_all_of_its_text(tmp_path, text):
    """RFC 5322 2.1: the fields, an empty line, then every octet of the text. However much of it there is."""
    for more in (b"", b"line\r\n" * 200_000):
        dialog = (
            b"MAIL FROM:<alice@example.test>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\n"
            + text
            + more
            + b".\r\n"
        )
        header, end, body = (await submitted(tmp_path, dialog)).partition(b"\n\n")
        assert names(header) == [b"From", b"Date", b"Message-ID"]
        assert (end + body).removeprefix(b"\n\n") == (text + more).replace(b"\r\n", b"\n").removeprefix(b"\n")


async def test_binary_mail(tmp_path):
    content = b"Subject: b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\n"
    dialog = (
        b"MAIL FROM:<alice@example.test> BODY=BINARYMIME\r\nRCPT TO:<bob@example.test>\r\nBDAT %d LAST\r\n"
    )
    stored = await submitted(tmp_path, dialog % len(content) + content)
    assert names(stored.partition(b"\n\n")[0])[:4] == [b"From", b"Date", b"Message-ID", b"Subject"]


async def test_a_large_message_in_a_file_begins_with_them(tmp_path):
    text = b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n"
    dialog = b"MAIL FROM:<>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\n" + text + b"y\r\n" * 400_000 + b".\r\n"
    stored = await submitted(tmp_path, dialog)
    assert names(stored.partition(b"\n\n")[0]) == [b"From", b"Date", b"Message-ID", b"Subject"]
    assert stored.count(b"\ny") == 400_000


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        (Leaves((Leaf("x@sql.test", Local(ALICE), "x@sql.test", ()),), ()), b"250 2.1.0"),
        (Leaves((Leaf("x@sql.test", Local("x@sql.test"), None, ()),), ()), b"553 5.7.1"),
        (Unavailable("sql is away"), b"451 4.3.0"),
    ],
)
async def test_a_sender_that_somebody_else_knows(tmp_path, found, answer):
    async def backend():
        return found

    desk = await Desk(tmp_path, name="submission").open()
    desk.service.lookup = lambda address: backend() if address.domain == "sql.test" else None
    try:
        said = await desk.talk(
            LOGIN + b"MAIL FROM:<x@sql.test>\r\nRSET\r\nMAIL FROM:<alice@example.test>\r\nQUIT\r\n"
        )
        replies = said.split(b"235 2.7.0")[1].split(b"\r\n")[1:]
        assert replies[0].startswith(answer)
        assert [reply[:3] for reply in replies[1:]] == [b"250", b"250", b"221", b""]
    finally:
        await desk.close()
