"""A whole server that finds the next hop by MX: its resolver asks a real DNS server (RFC 5321 5.1, RFC 7505).

Exchangers listen on port 25, so other loopback addresses than ours stand for other machines.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from peer import DROP, Peer
from zones import ZoneServer

BEST, SPARE, NOBODY = "127.0.25.1", "127.0.25.2", "127.0.25.3"
ZONE = {
    "far.test": {"MX": [(20, "spare.far.test"), (10, "best.far.test")]},
    "best.far.test": {"A": [BEST]},
    "spare.far.test": {"A": [SPARE]},
    "twohomes.test": {"MX": [(10, "two.far.test")]},
    "two.far.test": {"A": [NOBODY, SPARE]},  # nobody listens at the first address
    "implicit.test": {"A": [SPARE]},
    "nomail.test": {"MX": [(0, ".")]},
    "ours.test": {"MX": [(10, "mail.example.test"), (20, "spare.far.test")]},
    "sick.test": "SERVFAIL",
}
RULE = '[[relay]]\nfrom = "127.0.0.1"\naction = "relay"\n'


@pytest.fixture
def port_25() -> None:
    try:
        with socket.create_server((BEST, 25)):
            pass
    except OSError as error:
        pytest.skip(f"no listener on port 25 of a loopback address is possible: {error}")


def send(server: Any, *to: str) -> None:
    with server.smtp() as smtp:
        for address in to:
            smtp.sendmail("alice@example.test", [address], f"Subject: {address}\r\n\r\nhello\r\n")


def queue(server: Any) -> dict[str, str]:
    """Address → last reply, of what is queued."""
    listed = json.loads(server.run("queue", "list", "--json").stdout)
    return {r["address"]: r["last_reply"] for message in listed for r in message["recipients"]}


def reports(server: Any, count: int) -> list[bytes]:
    box = server.pop3()
    assert box.stat()[0] == count
    told = [b"\n".join(box.retr(n + 1)[1]) for n in range(count)]
    box.quit()
    return told


async def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.05)  # another process's work cannot be awaited


async def test_delivery_by_mx(server_factory: Callable[..., Any], port_25: None) -> None:
    async with AsyncExitStack() as stack:
        zone = await stack.enter_async_context(ZoneServer(ZONE))
        best = await stack.enter_async_context(Peer(host=BEST, port=25, name="best.far.test"))
        spare = await stack.enter_async_context(Peer(host=SPARE, port=25, name="spare.far.test"))
        extra = f'{RULE}[dns]\nservers = ["{zone.address}"]\n[queue]\nretry = "1s"\nkeep_connection = "0s"\n'
        server = await asyncio.to_thread(server_factory, extra)
        try:
            await deliveries(server, best, spare)
            await no_deliveries(server, zone)
        finally:
            assert await asyncio.to_thread(server.stop) == 0


async def deliveries(server: Any, best: Peer, spare: Peer) -> None:
    def rcpts(peer: Peer) -> list[str]:
        return [rcpt for message in peer.messages for rcpt in message.rcpts]

    await asyncio.to_thread(send, server, "a@far.test")
    await until(lambda: not queue(server))
    assert (rcpts(best), rcpts(spare)) == (["RCPT TO:<a@far.test>"], [])  # the better preference
    best.script["GREETING"] = DROP
    await asyncio.to_thread(send, server, "b@far.test", "c@twohomes.test", "d@implicit.test")
    await until(lambda: not queue(server))
    assert sorted(rcpts(spare)) == [f"RCPT TO:<{who}.test>" for who in ("b@far", "c@twohomes", "d@implicit")]
    assert len(best.messages) == 1 and best.connections == 2


async def no_deliveries(server: Any, zone: ZoneServer) -> None:
    refused = {"e@nomail.test": b"5.1.10", "f@ours.test": b"5.4.6", "g@nowhere.test": b"5.1.2"}
    await asyncio.to_thread(send, server, *refused, "h@sick.test")
    await until(lambda: set(queue(server)) == {"h@sick.test"} and all(queue(server).values()))
    waiting = await asyncio.to_thread(queue, server)
    assert (
        waiting["h@sick.test"].removeprefix("not tried again yet: ").startswith("name service not available")
    )
    told = b"\n".join(await asyncio.to_thread(reports, server, len(refused)))
    for address, status in refused.items():
        assert b"Final-Recipient: rfc822; " + address.encode() in told
        assert b"Status: " + status + b"\n" in told
    zone.zone["sick.test"] = {"A": [SPARE]}  # it is well again: nothing was lost
    await until(lambda: not queue(server))
