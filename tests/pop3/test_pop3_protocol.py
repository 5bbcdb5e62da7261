"""The sans-IO reader: what lines are, what commands are, and that cutting the input changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.pop3 import protocol
from mailserver.pop3.protocol import BadLine, Command, Reader, State, capabilities, parse
from mailserver.pop3.session import ACTIONS

T, A = State.TRANSACTION, State.AUTHORIZATION

# Octets that make lines, verbs and trouble, so that random input gets somewhere.
octets = st.lists(
    st.sampled_from(
        [
            b"STAT",
            b"retr",
            b"TOP",
            b"PASS",
            b"UTF8",
            b"lang",
            b"APOP",
            b" ",
            b"1",
            b"\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b"x" * 300,
        ]
    )
    | st.binary(max_size=20)
    | st.just(b"y" * 13000)
).map(b"".join)


def read(pieces: list[bytes], state: State = T) -> list[Command | BadLine]:
    reader, found = Reader(), []
    for piece in pieces:
        reader.feed(piece)
        while (line := reader.next(state)) is not None:
            found.append(line)
    return found


@pytest.mark.parametrize(
    ("line", "state", "expected"),
    [
        (b"STAT", T, Command("STAT", [])),
        (b"stat", T, Command("STAT", [])),  # RFC 1939 3: keywords are case-insensitive
        (b"sTaT ", T, Command("STAT", [])),
        (b"LIST", T, Command("LIST", [])),
        (b"LIST 2", T, Command("LIST", [b"2"])),
        (b"LIST 2 3", T, protocol.ARITY),
        (b"TOP 1 10", T, Command("TOP", [b"1", b"10"])),
        (b"TOP 1", T, protocol.ARITY),
        (b"RETR", T, protocol.ARITY),
        (b"RETR ", T, protocol.ARITY),
        (b"STAT now", T, protocol.ARITY),
        (b"PASS two words ", A, Command("PASS", [b"two words "])),  # RFC 1939 7: spaces are part of it
        (b"PASS", A, protocol.ARITY),
        (b"PASS ", A, Command("PASS", [b""])),
        (b"STAT", A, protocol.WRONG_STATE[A]),
        (b"USER x", T, protocol.WRONG_STATE[T]),
        (b"APOP alice c4c9334bac560ecc979e58001b3e22fb", T, protocol.WRONG_STATE[T]),
        (b"APOP alice", A, protocol.ARITY),
        (b"LANG", A, Command("LANG", [])),
        (b"lang *", T, Command("LANG", [b"*"])),
        (b"LANG en de", T, protocol.ARITY),
        (b"UTF8 USER", A, protocol.ARITY),
        (b"UTF8", T, protocol.WRONG_STATE[T]),
        (b"USER j\xc3\xb6rg", A, Command("USER", [b"j\xc3\xb6rg"])),  # RFC 6856 2.2
        (b"NOOP", A, protocol.WRONG_STATE[A]),
        (b"NOOP", State.UPDATE, protocol.WRONG_STATE[State.UPDATE]),
        (b"", T, protocol.UNKNOWN),
        (b"GET / HTTP/1.1", A, protocol.FOREIGN),
        (b"USER " + b"x" * 248, A, Command("USER", [b"x" * 248])),  # 255 octets with CRLF, RFC 2449 4
        (b"USER " + b"x" * 249, A, protocol.TOO_LONG),
        (b"AUTH PLAIN " + b"x" * 900, A, Command("AUTH", [b"PLAIN", b"x" * 900])),
    ],
)
def test_parse(line: bytes, state: State, expected: Command | BadLine) -> None:
    assert parse(line, state) == expected


def test_only_crlf_ends_a_command() -> None:
    found = read([b"STAT\nNOOP\r\nST\rAT\r\n\nLIST\r\nPASS a\0b\r\n"])
    noop, listing = Command("NOOP", []), Command("LIST", [])
    assert found == [protocol.BARE, noop, protocol.BARE, protocol.BARE, listing, protocol.BARE]


def test_an_endless_line_is_refused_without_waiting_for_its_end() -> None:
    reader = Reader()
    reader.feed(b"x" * (protocol.LINE_MAX + 1))
    assert reader.next(A) == protocol.ENDLESS
    reader.feed(b"\r\nQUIT\r\n")
    assert reader.next(A) is None
    assert reader.pending == 0


@settings(max_examples=60)
@given(octets)
def test_any_input_gives_the_same_commands_whole_and_octet_by_octet(data: bytes) -> None:
    assert read([data]) == read([data[i : i + 1] for i in range(len(data))])


@given(st.binary(max_size=300), st.sampled_from(list(State)))
def test_every_line_is_a_command_or_an_err(line: bytes, state: State) -> None:
    found = parse(line, state)
    if isinstance(found, BadLine):
        assert found.reply.startswith(b"-ERR ")
        assert found.reply.endswith(b"\r\n")
    else:
        assert state in protocol.COMMANDS[found.verb.encode()].states


def test_every_command_of_the_table_has_an_action() -> None:
    assert set(ACTIONS) == {row.verb for row in protocol.COMMANDS.values() if row.states}
    assert all(verb == row.verb.encode() for verb, row in protocol.COMMANDS.items())


def test_capa_tells_what_is_possible_now() -> None:
    clear = capabilities((), ("EXPIRE 0",), login=False, stls=True).split(b"\r\n")
    assert b"STLS" in clear
    assert b"USER" not in clear
    assert not [x for x in clear if x.startswith(b"SASL")]
    safe = capabilities(("PLAIN", "LOGIN"), ("EXPIRE 0",), login=True, stls=False).split(b"\r\n")
    assert b"STLS" not in safe
    assert {
        b"TOP",
        b"UIDL",
        b"USER",
        b"SASL PLAIN LOGIN",
        b"RESP-CODES",
        b"AUTH-RESP-CODE",
        b"PIPELINING",
    } <= set(safe)
    assert safe[-2:] == [b".", b""]
