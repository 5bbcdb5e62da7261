"""Every file of dialogs/, three times: line by line, all at once (RFC 2449 6.6), octet by octet.

``C:`` is sent with CRLF, ``S:`` is the line expected; a ``*`` at its end stands for anything. ``S:
[closed]``: the server hangs up. The mailbox holds ONE, TWO and THREE, or what ``# messages:`` names; ``# left: N``
says how many are left at the end. ``# config:`` is a line of TOML.
"""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from typing import Any

import pop3_office
import pytest
from pop3_office import ONE, THREE, TWO, Client, Post

DIALOGS = sorted((Path(__file__).parent / "dialogs").glob("*.txt"))


def script(path: Path) -> tuple[list[tuple[str, bytes]], list[bytes], int, dict[str, Any]]:
    steps, messages, left, config = [], [ONE, TWO, THREE], None, []
    for line in path.read_text().splitlines():
        if line.startswith("# left: "):
            left = int(line[8:])
        elif line.startswith("# config: "):
            config.append(line[10:])
        elif line.startswith("# messages: "):
            messages = [getattr(pop3_office, name) for name in line[12:].split()]
        elif not line.startswith("#"):
            assert line[:3] in {"C: ", "S: "}, line
            steps.append((line[0], line[3:].encode()))
    return steps, messages, len(messages) if left is None else left, tomllib.loads("\n".join(config))


async def expect(client: Client, expected: bytes) -> None:
    got = await client.line()
    if expected == b"[closed]":
        assert got == b""
        assert client.reader.at_eof()
    elif expected.endswith(b"*"):
        assert got.startswith(expected[:-1])
    else:
        assert got == expected


@pytest.mark.parametrize("manner", ["line by line", "at once", "octet by octet"])
@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
async def test_dialog(post: Post, path: Path, manner: str) -> None:
    steps, messages, left, config = script(path)
    await post.start(**config)
    await post.put(*messages)
    client = await post.connect()
    if manner != "line by line":
        lines = b"".join(text + b"\r\n" for who, text in steps if who == "C")
        for piece in [lines] if manner == "at once" else [lines[i : i + 1] for i in range(len(lines))]:
            client.writer.write(piece)
            await asyncio.sleep(0)
    for who, text in steps:
        if who == "S":
            await expect(client, text)
        elif manner == "line by line":
            client.send(text)
    await post.until(lambda: post.service.status()["sessions"] == 0)
    assert len(post.files()) == left
