"""Contents between wire and disk, with compiled code and without (RFC 5321 4.5.2, RFC 1939 3, RFC 3030 2)."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mailserver.store.steps import STEPS, WIRE_MAX, Steps
from mailserver.store.wire import storing, wire_form

both = pytest.mark.parametrize(
    "steps",
    [
        pytest.param(
            STEPS, id="compiled", marks=pytest.mark.skipif(STEPS is None, reason="no compiled code")
        ),
        pytest.param(None, id="python"),
    ],
)
PIECES = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\r\n..", b"\n.\n", b"\r\n.\r", b"a", b"\0", b"\xe9"]
    )
    | st.binary(max_size=20),
    max_size=40,
).map(b"".join)
FILLERS = st.sampled_from([0, 1, 7, 8, WIRE_MAX - 3, WIRE_MAX - 2, WIRE_MAX - 1, WIRE_MAX, 2 * WIRE_MAX + 1])
CUTS = st.lists(st.integers(1, 9), max_size=60)


def cut(wire: bytes, sizes: list[int]) -> list[bytes]:
    """Pieces of these sizes, and the rest in one."""
    pieces = []
    for size in sizes:
        pieces.append(wire[:size])
        wire = wire[size:]
    return [piece for piece in [*pieces, wire] if piece]


def bare(wire: bytes) -> bool:
    alone = wire.replace(b"\r\n", b"")
    return b"\r" in alone or b"\n" in alone


def stored_lines(wire: bytes) -> bytes:
    """Line by line, as RFC 5321 4.5.2 has it."""
    lines = wire.split(b"\r\n")
    assert lines.pop() == b""
    return b"".join((line[1:] if line[:1] == b"." else line) + b"\n" for line in lines)


@both
@settings(max_examples=300)
@given(filler=FILLERS, content=PIECES, sizes=CUTS)
@example(filler=0, content=b"", sizes=[1, 1, 1])
@example(filler=0, content=b".\r\n..\r\n.a", sizes=[1] * 20)
@example(filler=0, content=b"a\r\r", sizes=[1] * 20)  # a CR alone, then CR LF . CR LF
@example(filler=0, content=b".\r.", sizes=[1] * 20)
def test_data_ends_at_its_terminator_and_nowhere_else(
    steps: Steps | None, filler: int, content: bytes, sizes: list[int]
) -> None:
    wire = b"z" * filler + content
    wire += b"\r\n" if wire and not wire.endswith(b"\r\n") else b""
    assume((b"\r\n" + wire + b".\r\n").index(b"\r\n.\r\n") == len(wire))
    form, stored, fed = storing(dots=True, steps=steps), b"", 0
    for piece in cut(wire + b".\r\nQUIT\r\n.\r\n", sizes if filler < 10 else []):
        at, ended = 0, False
        while at < len(piece) and not ended:
            text, at, ended = form.take(piece, at)
            stored += text
        fed += at
        if ended:
            break
    assert fed == len(wire) + 3
    assert form.bare is bare(wire)
    if not form.bare:
        assert stored == stored_lines(wire)
        assert form.lines == stored.count(b"\n")
        assert form.eight_bit is not stored.isascii()


@both
@given(before=st.binary(max_size=5), content=PIECES)
def test_what_stands_before_is_no_part_of_it(steps: Steps | None, before: bytes, content: bytes) -> None:
    whole = content + b"\r\n.\r\n"
    alone, after = storing(dots=True, steps=steps), storing(dots=True, steps=steps)
    (text, at, ended), (same, there, also) = alone.take(whole, 0), after.take(before + whole, len(before))
    assert (same, there - len(before), also, after.bare, after.lines) == (
        text, at, ended, alone.bare, alone.lines
    )  # fmt: skip


@both
@given(filler=FILLERS, content=PIECES, sizes=CUTS)
@example(filler=0, content=b"a\r", sizes=[])
@example(filler=0, content=b"\r\n.\r\n.\r\n", sizes=[1] * 9)
def test_a_chunk_has_no_dots_and_no_end(
    steps: Steps | None, filler: int, content: bytes, sizes: list[int]
) -> None:
    wire = b"z" * filler + content
    form, stored = storing(dots=False, steps=steps), b""
    for piece in cut(wire, sizes if filler < 10 else []):
        at = 0
        while at < len(piece):
            text, at, ended = form.take(piece, at)
            assert not ended
            stored += text
    stored += form.rest()
    assert form.bare is bare(wire)
    assert stored == wire.replace(b"\r\n", b"\n")
    assert form.eight_bit is not wire.isascii()
    if not form.bare:
        assert form.lines == stored.count(b"\n")
        assert form.complete is (stored.endswith(b"\n") or not stored)


@both
@given(PIECES, st.booleans(), st.sampled_from([bytes, bytearray]))
def test_on_the_wire_every_lf_is_a_crlf_and_every_first_dot_has_one_before_it(
    steps: Steps | None, stored: bytes, at_line_start: bool, kind: type[bytes]
) -> None:
    marked = (b"\n" if at_line_start else b"x") + stored
    expected = marked.replace(b"\n.", b"\n..")[1:].replace(b"\n", b"\r\n")
    assert wire_form(kind(stored), at_line_start=at_line_start, steps=steps) == expected


@both
@pytest.mark.parametrize("octet", [b"\n", b".", b"x", b"\n."])
@pytest.mark.parametrize("octets", [WIRE_MAX - 1, WIRE_MAX, WIRE_MAX + 1, 3 * WIRE_MAX])
def test_there_is_room_for_the_worst(steps: Steps | None, octet: bytes, octets: int) -> None:
    """Each octet may become two, and one is put before them."""
    stored = b"." + octet * octets
    expected = (b"\n" + stored).replace(b"\n.", b"\n..")[1:].replace(b"\n", b"\r\n")
    assert wire_form(stored, at_line_start=True, steps=steps) == expected


@pytest.mark.skipif(STEPS is None, reason="no compiled code")
def test_compiled_code_is_asked_for_no_more_than_it_has_room_for() -> None:
    assert STEPS is not None
    with pytest.raises(ValueError, match="octets"):
        STEPS.wire_form(b"x" * (WIRE_MAX + 1), at_line_start=True)
