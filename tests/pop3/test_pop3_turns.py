"""One session's work is cut into turns of the event loop, and comes out whole however it is cut."""

from __future__ import annotations

import asyncio

from pop3_office import Post

from mailserver.pop3.session import TURN, TURN_OCTETS, Session

LARGE = b"Subject: large\n\n" + b"line\n" * 30_000  # is streamed
ON_THE_WIRE = LARGE.replace(b"\n", b"\r\n") + b".\r\n"


class Turns:
    """Counts those of the loop from now on."""

    def __init__(self) -> None:
        self.count = -1
        self._count()

    def _count(self) -> None:
        self.count += 1
        self._next = asyncio.get_running_loop().call_soon(self._count)

    def end(self) -> int:
        self._next.cancel()
        return self.count


async def test_a_large_message_is_sent_whatever_its_place_among_pipelined_commands(post: Post) -> None:
    await post.start()
    await post.put(LARGE)
    for before in (TURN - 2, TURN - 1, TURN):  # the second: the last command of a turn
        client = await (await post.connect()).log_in()
        client.send(*[b"NOOP"] * before, b"RETR 1", b"STAT", b"QUIT")
        said = await client.rest()
        head = b"+OK %d octets\r\n" % (len(ON_THE_WIRE) - 3)
        assert said[before * 5 :] == head + ON_THE_WIRE + b"+OK 1 %d\r\n+OK bye\r\n" % (len(ON_THE_WIRE) - 3)


async def test_listings_of_many_marked_messages_take_a_turn_each(post: Post) -> None:
    await post.start()
    messages = 2100
    await post.put(*[b"\n"] * messages)
    client = await (await post.connect()).log_in()
    client.send(*[b"DELE %d" % number for number in range(1, messages + 1)])
    for _ in range(messages):
        assert (await client.line()).startswith(b"+OK")
    turns = Turns()
    client.send(*[b"LIST"] * 100, b"RSET", b"QUIT")
    assert (await client.rest()).count(b"\r\n.\r\n") == 100
    assert turns.end() >= 100


class Tape(asyncio.Transport):
    """A transport that takes everything at once."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 4242)})
        self.written = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        pass


async def test_long_answers_end_a_turn(post: Post) -> None:
    await post.start()
    await post.put(*[b"\n"] * 1000)
    tape, session = Tape(), Session(post.service, tls=False)
    session.connection_made(tape)
    session.data_received(b"USER alice\r\nPASS wonderland\r\n")
    await post.until(lambda: session.maildrop is not None)
    session.data_received(b"UIDL\r\n" * 100)
    sent = []
    for _ in range(10):
        tape.written.clear()
        await asyncio.sleep(0)
        sent.append(len(tape.written))
    session.connection_lost(None)
    assert 0 < min(sent) <= max(sent) < 2 * TURN_OCTETS
