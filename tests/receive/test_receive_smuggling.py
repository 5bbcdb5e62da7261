"""SMTP smuggling: whatever might be an end of data for some server and none for another is never accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from receive_desk import Desk, feed

from mailserver.receive.collector import COALESCE, Collector

START = b"HELO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n"
SMUGGLED = b"MAIL FROM:<forged@b.test>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nforged\r\n.\r\n"
LINE_ENDS = (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\0\n", b"\0\r\n", b"\r\n\0")
# Text to SMTP, line ends to some programs: VT, FF, FS, NEL, LINE SEPARATOR, and what 8-bit software made of CRLF.
TEXT = (b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xe2\x80\xa8", b"\x8d\x8a", b"\0")
FALSE_ENDS = [
    before + dot + after
    for before in (*LINE_ENDS, *TEXT)
    for after in (*LINE_ENDS, *TEXT)
    for dot in ((b".", b"..", b".\0", b" .") if {before, after} <= set(LINE_ENDS) else (b".",))
    if b"\r\n.\r\n" not in before + dot + after
]


@pytest.mark.parametrize("filler", [0, COALESCE - 9], ids=["small", "coalesced"])
@pytest.mark.parametrize("size", [1 << 20, 1, 3], ids=["whole", "octets", "threes"])
async def test_a_false_end_of_data_ends_nothing(size: int, filler: int, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    head = b"Subject: x\r\n\r\n" + b"z" * filler
    for end in FALSE_ENDS:
        desk.queue.messages.clear()
        said = b"hello" + end + SMUGGLED + b"QUIT\r\n"
        pieces = [said[i : i + size] for i in range(0, len(said), size)]
        answer, _ = await feed(desk.service, [START, head, *pieces])
        replies = answer.split(b"\r\n")[5:-1]
        assert [reply[:3] for reply in replies[1:]] == [b"221"], end
        alone = end.replace(b"\r\n", b"")
        if b"\r" not in alone and b"\n" not in alone:  # text to everybody: stored, not obeyed
            assert replies[0].startswith(b"250"), end
            ((envelope, data),) = desk.queue.messages
            assert b"forged@b.test" in data, end
            assert (envelope.sender, [r.address for r in envelope.recipients]) == (
                "a@b.test",
                ["alice@example.test"],
            )
        else:
            assert replies[0].startswith(b"550 5.6.11"), end
            assert not desk.queue.messages, end


@pytest.mark.parametrize("size", [1 << 20, 1, 3], ids=["whole", "octets", "threes"])
async def test_a_chunk_is_content_whatever_it_holds(size: int, tmp_path: Path) -> None:
    """RFC 3030 2: nothing in it ends it but its size; what is refused is swallowed, not obeyed."""
    desk = Desk(tmp_path)
    content = b"Subject: x\r\n\r\nhello\r\n.\r\n" + SMUGGLED + b"BDAT 5 LAST\r\nQUIT\r\n"
    chunk, last = b"BDAT %d\r\n" % len(content) + content, b"BDAT %d LAST\r\n" % len(content) + content
    bare = b"BDAT 12 LAST\r\na\n.\nMAIL X\r\n"
    said = START[:-6] + chunk + last + chunk + START[13:-6] + bare + last + b"RSET\r\nQUIT\r\n"
    answer, _ = await feed(desk.service, [said[i : i + size] for i in range(0, len(said), size)])
    replies = [reply[:9] for reply in answer.split(b"\r\n")[4:-1]]
    assert replies == [
        b"250 2.0.0", b"250 2.0.0", b"503 5.5.1", b"250 2.1.0", b"250 2.1.5", b"550 5.6.1", b"503 5.5.1", b"250 2.0.0",
        b"221 2.0.0",
    ]  # fmt: skip
    assert desk.queue.content() == 2 * content.replace(b"\r\n", b"\n")
    assert len(desk.queue.messages) == 1


@pytest.mark.parametrize("ending", [b"\n", b"\r"])
@pytest.mark.parametrize("where", [0, 5, 16384, 40000])
async def test_bare_line_ends_anywhere_refuse_the_message_after_its_end(
    ending: bytes, where: int, tmp_path: Path
) -> None:
    content = (b"x" * 62 + b"\r\n") * 800
    content = content[:where] + ending + b"y" + content[where:]
    desk = Desk(tmp_path)
    answer, _ = await feed(desk.service, [START, content + b".\r\nNOOP\r\n"])
    assert answer.endswith(b"part of <CR><LF>\r\n250 2.0.0 Ok\r\n")
    assert not desk.queue.messages


@pytest.mark.parametrize(
    "line",
    [
        b"BDAT 6\tLAST\r\n",
        b"BDAT 6\r LAST\r\n",
        b"bdat " + b"0" * 600 + b"6\r\n",
        b"bdat " + b"0" * 13_000 + b"6\r\n",
        b" \tBDAT " + b"0" * 13_000 + b"6\r\n",
        b" BDAT 6 LAST\r\n",
        b"BDAT6\r\n",
        b"BDAT 6 LAST\n",
        b"\0BDAT 6 LAST\r\n",
        *(
            b"BDAT %s LAST\r\n" % size
            for size in (b"-1", b"+6", b"0x6", b"6.0", b"1e1", b"9" * 19, b"", b"\xd9\xa6")
        ),
        b"BDAT 6 LAST MORE\r\n",
        b"BDAT 6LAST\r\n",
    ],
    ids=lambda line: repr(line[:12]),
)
@pytest.mark.parametrize("size", [1 << 20, 4096, 1])
async def test_a_chunk_whose_command_cannot_be_read_is_never_taken_for_commands(
    line: bytes, size: int, tmp_path: Path
) -> None:
    desk = Desk(tmp_path)  # RFC 3030 2: the content follows the command at once
    said = line + b"NOOP\r\n"
    pieces = [said[i : i + size] for i in range(0, len(said), size)]
    answer, tape = await feed(desk.service, [START[:-6], *pieces])
    assert answer.split(b"\r\n")[4:-1][0][:3] in (b"500", b"501")
    assert answer.count(b"\r\n") == 5
    assert tape.closed


PIECES = st.lists(
    st.one_of(
        st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"..", b"a", b"\r\n.\r", b"\0", b"\xe9"]),
        st.binary(max_size=20),
    ),
    max_size=60,
)


def reference(wire: bytes) -> tuple[bytes, bool]:
    """RFC 5321 4.5.2 line by line: stored form, and whether a CR or LF stood alone."""
    text = b"".join(
        (line[1:] if line.startswith(b".") else line) + b"\n" for line in wire.split(b"\r\n")[:-1]
    )
    alone = wire.replace(b"\r\n", b"")
    return text, b"\r" in alone or b"\n" in alone


@settings(max_examples=400, deadline=None)
@given(pieces=PIECES, cut=st.integers(1, 9), filler=st.sampled_from([0, 16380, 16384, 33000]))
def test_collector_equals_the_line_by_line_reference_however_it_is_split(
    pieces: list[bytes], cut: int, filler: int
) -> None:
    content = b"z" * filler + b"".join(pieces)
    wire = content + (b"\r\n" if content else b"") + b".\r\nREST"
    end = len(wire) - 7
    assume((b"\r\n" + wire).index(b"\r\n.\r\n") == end)
    expected, alone = reference(wire[:end])
    collector = Collector(1 << 20)
    position, fed = -1, 0
    parts = [wire[:filler], *(wire[i : i + cut] for i in range(filler, len(wire), cut))]
    for part in parts:
        if part:
            position = collector.data(part, 0)
            fed += len(part)
        if position >= 0:
            assert fed - len(part) + position == end + 3
            break
    assert position >= 0
    assert collector.bare == alone
    if not alone:
        assert b"".join(collector.chunks) == expected
        assert (collector.size, collector.lines) == (len(expected), expected.count(b"\n"))


@settings(max_examples=200, deadline=None)
@given(
    content=st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a" * 9000, b".\r\n", b"\xff"])).map(b"".join),
    cut=st.integers(1, 20000),
)
def test_chunks_are_text_with_a_line_end_at_the_end(content: bytes, cut: int) -> None:
    collector = Collector(1 << 20, chunked=True)
    for i in range(0, len(content), cut):
        collector.chunk(content[i : i + cut])
    collector.finish()
    alone = content.replace(b"\r\n", b"")
    assert collector.bare == (b"\r" in alone or b"\n" in alone)
    if not collector.bare:
        text = content.replace(b"\r\n", b"\n")
        assert b"".join(collector.chunks) == (text if text.endswith(b"\n") or not text else text + b"\n")
        assert collector.lines == b"".join(collector.chunks).count(b"\n")
