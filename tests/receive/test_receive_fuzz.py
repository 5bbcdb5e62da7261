"""Any octets: replies or a closed connection, nothing else; and the same replies however they are split."""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from receive_desk import Desk, feed

from mailserver.receive.lines import recall, understand
from mailserver.receive.parameters import BadParameter, parse_mail, parse_rcpt

TOKENS = st.one_of(
    st.sampled_from(
        [
            b"EHLO x\r\n",
            b"HELO x\r\n",
            b"MAIL FROM:<a@b.test>\r\n",
            b"MAIL FROM:<>\r\n",
            b"RCPT TO:<alice@example.test>\r\n",
            b"RCPT TO:<x@y.test>\r\n",
            b"DATA\r\n",
            b"BDAT 5\r\n",
            b"BDAT 3 LAST\r\n",
            b"BDAT 0 LAST\r\n",
            b"abc\r\n",
            b"RSET\r\n",
            b".\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b".",
            b"QUIT\r\n",
            b"AUTH PLAIN\r\n",
            b"AUTH LOGIN\r\n",
            b"*\r\n",
            b"=\r\n",
            b"STARTTLS\r\n",
            b"MAIL FROM:<a@b.test> BODY=BINARYMIME\r\n",
            b"VRFY x\r\n",
            b"x" * 600 + b"\r\n",
            b"y" * 13000,
            b"AUTH PLAIN AGEAYg==\r\n",
            b"NOOP\r\n",
        ]
    ),
    st.binary(max_size=30),
)
REPLIES = re.compile(rb"(?:[2-5]\d\d[ -][\x20-\x7e]*\r\n)+\Z")
QUEUE_ID = re.compile(rb"queued as \w+")


def run(pieces: list[bytes]) -> tuple[bytes, bool]:
    async def conversation() -> tuple[bytes, bool]:
        with tempfile.TemporaryDirectory() as folder:
            desk = Desk(Path(folder))
            answer, tape = await feed(desk.service, pieces)
            assert "Problem" not in desk.kinds(), desk.events
            assert desk.service.budget.used == 0
            return QUEUE_ID.sub(b"queued as ID", answer), tape.closed

    return asyncio.run(conversation())


@settings(max_examples=150, deadline=None)
@given(tokens=st.lists(TOKENS, max_size=40), cuts=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_any_octets_get_replies_and_any_split_the_same_ones(tokens: list[bytes], cuts: list[int]) -> None:
    said = b"".join(tokens)
    whole = run([said])
    assert REPLIES.match(whole[0])
    pieces, position, i = [], 0, 0
    while position < len(said) and len(pieces) < 3000:
        size = cuts[i % len(cuts)]
        pieces.append(said[position : position + size])
        position, i = position + size, i + 1
    pieces.append(said[position:])
    assert run(pieces) == whole


@settings(max_examples=500, deadline=None)
@given(octets=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_any_line_is_understood_or_has_a_fault(octets: bytes) -> None:
    line = understand(octets)
    assert line == recall(octets)
    assert (line.fault is None) or line.fault.code == 500
    assert line.fault is not None or (octets.endswith(b"\r") and b"\n" not in octets)


@settings(max_examples=500, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=80),
        st.lists(
            st.sampled_from(
                [
                    "FROM:",
                    "TO:",
                    "<",
                    ">",
                    "a@b.test",
                    "@",
                    ":",
                    '"',
                    "\\",
                    " ",
                    "SIZE=",
                    "9",
                    "NOTIFY=",
                    "NEVER",
                    "ORCPT=",
                    "rfc822;",
                    "é",
                    "@x.test:",
                    ",",
                    "=",
                    "+41",
                ]
            )
        ).map("".join),
    )
)
def test_any_argument_is_parsed_or_refused_with_its_reply(text: str) -> None:
    for parse in (parse_mail, parse_rcpt):
        try:
            parse(text)
        except BadParameter as bad:
            assert bad.reply.code in (501, 555)
