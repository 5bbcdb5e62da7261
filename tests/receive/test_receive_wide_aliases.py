"""An alias of a thousand places, in as many spellings as its letters have cases; one mailbox a thousand times."""

from __future__ import annotations

import asyncio
import gc
from itertools import product
from pathlib import Path

from receive_desk import Desk, Tape

from mailserver.routing.resolve import Leaf

MAIL = b"EHLO c.test\r\nMAIL FROM:<s@remote.test>\r\n"
ALIAS = "everybody"
SPELLINGS = ["".join(letters) for letters in product(*({c, c.upper()} for c in ALIAS[:7]))]
RCPTS = [f"RCPT TO:<{spelling}{ALIAS[7:]}@example.test>\r\n".encode() for spelling in SPELLINGS]
PLACES = 50_000  # far below all spellings' 128,000


async def test_each_wide_alias_is_work_for_one_turn_of_the_loop(tmp_path: Path) -> None:
    desk = await Desk(tmp_path).open()
    tape, listener = Tape("127.0.0.2"), desk.service.new_listener()
    listener.connection_made(tape)
    listener.data_received(MAIL + b"".join(RCPTS[:5]))
    turns = [tape.written.count(b"250 2.1.5")]
    for _ in range(4):
        await asyncio.sleep(0)
        turns.append(tape.written.count(b"250 2.1.5"))
    assert turns == [1, 2, 3, 4, 5]
    listener.connection_lost(None)
    await desk.close()


async def test_what_is_remembered_is_bounded_by_places_not_by_spellings(tmp_path: Path) -> None:
    desk = await Desk(tmp_path).open()
    reader, writer = await desk.connect()
    writer.write(MAIL + b"".join(RCPTS) + b"QUIT\r\n")
    assert (await reader.read()).count(b"250 2.1.5") == len(RCPTS) == 128
    writer.close()
    gc.collect()
    assert sum(type(thing) is Leaf for thing in gc.get_objects()) < PLACES
    await desk.close()


async def test_nothing_is_kept_of_who_was_named_before(tmp_path: Path) -> None:
    desk = await Desk(tmp_path).open()
    tape, listener = Tape(), desk.service.new_listener()
    listener.connection_made(tape)
    rcpts = [b"RCPT TO:<alice@example.test> ORCPT=rfc822;name%d@a.test\r\n" % number for number in range(3)]
    listener.data_received(MAIL + b"".join(rcpts))
    assert tape.written.count(b"250 2.1.5") == 3
    kept = repr(vars(listener.envelope))
    assert [f"name{number}" in kept for number in range(3)] == [True, False, False]
    listener.connection_lost(None)
    await desk.close()
