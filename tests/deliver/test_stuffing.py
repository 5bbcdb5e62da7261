"""Dots and line ends on the wire, against smtplib's independent idea of them (RFC 5321 4.5.2)."""

from __future__ import annotations

import re
import smtplib
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from mailserver.deliver.stuffing import Stuffer

contents = st.text(alphabet=".\nab", max_size=60).map(str.encode)


def wire(slices: list[bytes]) -> bytes:
    stuffer = Stuffer()
    return b"".join([*map(stuffer.feed, slices), stuffer.end()])


@given(contents, st.lists(st.integers(0, 60)))
@example(b".", [0, 0])
@example(b"a\n.b", [1, 2, 3])
def test_any_content_in_any_slices(content: bytes, cuts: list[int]) -> None:
    cuts = [0, *sorted(cuts), len(content)]
    ours = wire([content[a:b] for a, b in pairwise(cuts)])
    theirs = smtplib._quote_periods(re.sub(rb"\n", b"\r\n", content))  # type: ignore[attr-defined]
    if theirs and not theirs.endswith(b"\r\n"):
        theirs += b"\r\n"
    assert ours == theirs + b".\r\n"
    # What a receiver takes off again is what was stored, its last line completed.
    end = (b"\r\n" + ours).index(b"\r\n.\r\n")
    received = (b"\r\n" + (b"\r\n" + ours)[2 : end + 2]).replace(b"\r\n.", b"\r\n")[2:]
    assert received == (content + b"\n" if content and not content.endswith(b"\n") else content).replace(
        b"\n", b"\r\n"
    )


@given(st.binary(max_size=80))
def test_no_bare_line_end_ever_leaves(content: bytes) -> None:
    sent = wire([content])
    assert sent.count(b"\r\n") == sent.count(b"\r") == sent.count(b"\n")
    assert (b"\r\n" + sent).count(b"\r\n.\r\n") == 1
