"""An independent server, aiosmtpd as it comes, sees exactly what was stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sending import Sender, sender

from mailserver.deliver.timeouts import Timeouts
from mailserver.message.envelope import Delivered


class Keeper:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.kept.append(envelope)
        return "250 2.0.0 kept"


@asynccontextmanager
async def stock(folder: Path) -> AsyncIterator[tuple[Keeper, str, Sender]]:
    keeper = Keeper()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(keeper, hostname="peer.test", loop=loop, enable_SMTPUTF8=True), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    async with sender(folder, timeouts=Timeouts()) as our:
        yield keeper, f"smtp://127.0.0.1:{port}", our
    server.close()
    await server.wait_closed()


async def test_envelope_and_content(tmp_path: Path) -> None:
    async with stock(tmp_path) as (keeper, route, our):
        results = await our.send(route, ["a@a.test", '"b c"@a.test', "jürgen@a.test"], smtputf8=True)
        assert [type(r) for r in results] == [Delivered] * 3
        assert keeper.kept[0].mail_from == "s@here.test"
        assert keeper.kept[0].rcpt_tos == ["a@a.test", '"b c"@a.test', "jürgen@a.test"]


contents = st.lists(st.text(alphabet=". ab\u00fc", max_size=12).map(str.encode), max_size=8).map(b"\n".join)


@given(st.lists(contents, min_size=1, max_size=4))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_arrives_unchanged(tmp_path: Path, messages: list[bytes]) -> None:
    async def run() -> list[bytes]:
        async with stock(tmp_path) as (keeper, route, our):
            for data in messages:
                assert isinstance((await our.send(route, data=data, body="8BITMIME"))[0], Delivered)
            return [e.content for e in keeper.kept]

    whole = [m + b"\n" if m and not m.endswith(b"\n") else m for m in messages]
    assert asyncio.run(run()) == [m.replace(b"\n", b"\r\n") for m in whole]
