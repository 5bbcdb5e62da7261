"""Dialogs as RFCs print them, said all at once and octet by octet to a real listener."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from receive_desk import Desk, feed

DIALOGS = sorted((Path(__file__).parent / "dialogs").glob("*.txt"))


def read(path: Path) -> tuple[str, bytes, list[str]]:
    """Service, what the client says, what the server says."""
    service, said, expected = "smtp", b"", []
    for line in path.read_text("utf-8").splitlines():
        kind, text = line[:2], line[3:]
        if line.startswith("# service: "):
            service = line[11:]
        elif kind == "C:":
            said += text.encode() + b"\r\n"
        elif kind == "C~":
            said += text.encode("latin-1").decode("unicode_escape").encode("latin-1")
        elif kind == "S:":
            expected.append(text)
        else:
            assert line.startswith("#"), f"{path.name}: {line}"
    return service, said, expected


def check(answer: bytes, expected: list[str]) -> None:
    lines = answer.decode("ascii").split("\r\n")
    assert lines.pop() == ""
    for line, wanted in zip(lines, expected, strict=False):
        assert line == wanted or (wanted.endswith("*") and line.startswith(wanted[:-1]))
    assert len(lines) == len(expected)


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
async def test_dialog_whole(path: Path, tmp_path: Path) -> None:
    service, said, expected = read(path)
    desk = await Desk(tmp_path, name=service).open()
    check(await desk.talk(said), expected)
    await desk.close()


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
async def test_dialog_octet_by_octet(path: Path, tmp_path: Path) -> None:
    service, said, expected = read(path)
    desk = await Desk(tmp_path, name=service).open()
    reader, writer = await desk.connect()
    for octet in said[:2500]:
        writer.write(bytes([octet]))
        await asyncio.sleep(0)
    writer.write(said[2500:])
    writer.write_eof()
    check(await reader.read(), expected)
    writer.close()
    await desk.close()


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
async def test_dialog_in_single_reads(path: Path, tmp_path: Path) -> None:
    service, said, expected = read(path)
    desk = Desk(tmp_path, name=service)
    answer, _ = await feed(desk.service, [bytes([octet]) for octet in said])
    check(answer, expected)
