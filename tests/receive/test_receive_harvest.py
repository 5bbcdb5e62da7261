"""Trying names until some are accepted: bounded over all sessions of an address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from receive_desk import Desk

MAIL = (b"EHLO c.test\r\n", b"MAIL FROM:<s@remote.test>\r\n")


async def asked(desk: Desk, *names: str, client: str = "127.0.0.9") -> list[str]:
    """The answers to RCPT for each name, on a connection of its own."""
    rcpts = [f"RCPT TO:<{name}@example.test>\r\n".encode() for name in names]
    said = await desk.converse(b"", MAIL[0], MAIL[1], *rcpts, client=client)
    return [line[:9] for line in said.decode().splitlines()[-len(names) :]]


async def test_beyond_the_bound_nobody_can_be_told_from_others(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "rates": {"unknown_recipients_per_hour": 4},
        "guard": {"trusted": ["127.0.0.2"]},
    }
    desk = await Desk(tmp_path, **settings).open()
    no, yes, later = "550 5.1.1", "250 2.1.5", "450 4.7.1"
    assert await asked(desk, "alice", "x1", "x2", "bob") == [yes, no, no, yes]
    assert await asked(desk, "x3", "x4", "alice", "x5") == [no, no, later, later]
    assert await asked(desk, "bob") == [later]
    rules = {event.rule for event in desk.events if getattr(event, "reply", "").startswith("450")}
    assert rules == {"[rates] unknown_recipients_per_hour = 4"}
    assert await asked(desk, "alice", "x", client="127.0.0.8") == [yes, no]  # somebody else
    assert await asked(desk, *["x"] * 6, client="127.0.0.2") == [no] * 6  # our own network
    await desk.close()


async def test_who_may_relay_is_not_counted(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"rates": {"unknown_recipients_per_hour": 1}, "guard": {"trusted": []}}
    desk = await Desk(tmp_path, relay="relay", **settings).open()
    assert await asked(desk, "x", "x", "alice", client="127.0.0.1") == ["550 5.1.1", "550 5.1.1", "250 2.1.5"]
    await desk.close()
