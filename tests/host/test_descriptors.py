"""Few descriptors: clients are refused before files cannot be opened, POP3 last."""

from __future__ import annotations

import asyncio
import json
import os
import poplib
import smtplib
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailserver.events import Event, Warned
from mailserver.host.descriptors import DescriptorWatch


def test_sessions_stop_first_then_messages_then_mailboxes() -> None:
    said: list[Event] = []
    fillers = [
        os.open(os.devnull, os.O_RDONLY)
    ]  # other tests leave gaps in the numbers: they are closed first
    while fillers[-1] < max(int(number) for number in os.listdir("/proc/self/fd")) - 1:
        fillers.append(os.open(os.devnull, os.O_RDONLY))
    watch = DescriptorWatch(fillers[-1] + 40, said.append)
    answers, held = [], []
    while not answers or answers[-1][2]:
        client, end = socket.socketpair()
        held += [client, end]
        transport = _Transport(client)
        answers.append((watch.for_session(transport), watch.for_message(), watch.for_reader(transport)))
    for one in held:
        one.close()
    for number in fillers:
        os.close(number)
    assert list(dict.fromkeys(answers)) == [
        (True, True, True),
        (False, True, True),
        (False, False, True),
        (False, False, False),
    ]
    assert [type(event) for event in said] == [Warned]


class _Transport(asyncio.BaseTransport):
    def __init__(self, connection: socket.socket) -> None:
        super().__init__({"socket": connection})


def test_a_flood_of_idle_clients_leaves_room_for_readers_and_commands(
    server_factory: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = server_factory()
    assert server.stop() == 0
    server = _limited(server, 80, monkeypatch)
    idle: list[smtplib.SMTP] = []
    refused = 0
    for _ in range(120):
        try:
            idle.append(server.smtp())
        except smtplib.SMTPConnectError as error:
            assert error.smtp_code == 421
            refused += 1
    assert refused > 50
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
