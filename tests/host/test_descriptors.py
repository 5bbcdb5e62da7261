"""Few descriptors: clients are refused before files cannot be opened, POP3 last."""

from __future__ import annotations

import json
import os
import poplib
import smtplib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailserver.events import Event, Warned
from mailserver.host.descriptors import DescriptorWatch


def test_sessions_stop_first_then_messages_then_mailboxes() -> None:
    said: list[Event] = []
    with open(os.devnull, "rb") as file:  # its number is about what is open now
        watch = DescriptorWatch(file.fileno() + 40, said.append)
    answers, held = [], []
    while watch.free() > 2:
        answers.append((watch.for_sessions(), watch.for_messages(), watch.for_mailboxes()))
        held.append(os.open(os.devnull, os.O_RDONLY))
    for descriptor in held:
        os.close(descriptor)
    watch.close()
    assert list(dict.fromkeys(answers)) == [
        (True, True, True),
        (False, True, True),
        (False, False, True),
        (False, False, False),
    ]
    assert [type(event) for event in said] == [Warned]


def test_a_flood_of_idle_clients_leaves_room_for_readers_and_commands(
    server_factory: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = server_factory()
    assert server.stop() == 0
    server = _limited(server, 80, monkeypatch)
    idle: list[smtplib.SMTP] = []
    with pytest.raises(smtplib.SMTPConnectError, match="421"):
        while len(idle) < 80:
            idle.append(server.smtp())
    assert isinstance(server.pop3(), poplib.POP3)
    assert server.run("status").returncode == 0
    assert len(json.loads(server.run("user", "list", "--json").stdout)) == 2
    idle[0].sendmail("a@sender.test", ["alice@example.test"], "Subject: x\r\n\r\nx")
    for client in idle:
        client.close()


def _limited(server: Any, limit: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    wrapper: Path = server.folder / "python"
    wrapper.write_text(f'#!/bin/sh\nulimit -n {limit}\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(wrapper))
        return server.start()
