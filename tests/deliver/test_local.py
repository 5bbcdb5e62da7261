"""Queued local deliveries: what went wrong at acceptance is put right later."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from mailserver.deliver.attempt import Attempt
from mailserver.deliver.deliver import deliverer
from mailserver.deliver.local import LocalDelivery
from mailserver.message.envelope import Deferred, Delivered, Envelope, Local, Recipient, Remote
from mailserver.store.content import Content
from mailserver.store.durable import Durable
from mailserver.store.index import Mailboxes
from mailserver.store.workers import Workers

STORED = b"Subject: hello\n\nThe text.\n"


@pytest.fixture
async def rooms(tmp_path):
    loop = asyncio.get_running_loop()
    durable = Durable(loop)
    with ThreadPoolExecutor(1) as executor:
        workers = Workers(loop, executor)
        mailboxes = Mailboxes(str(tmp_path / "mail"), hostname="mx.test", memory=1 << 20, workers=workers)
        yield mailboxes, LocalDelivery(mailboxes, durable, lambda: 1_700_000_000.0)
        durable.close()
        workers.close()


def attempt(tmp_path, *recipients: Recipient, others: tuple[Recipient, ...] = ()) -> Attempt:
    file = tmp_path / "stored"
    file.write_bytes(STORED + b"the envelope")
    envelope = Envelope("ID", "eve@remote.test", [*recipients, *others], 0.0, size=len(STORED))
    return Attempt(envelope, recipients, "local:", Content(str(file), 0, len(STORED)), 2)


def to(number: int, mailbox: str) -> Recipient:
    return Recipient(number, mailbox, Local(mailbox))


async def test_each_mailbox_gets_one_copy_and_pop3_its_size_on_the_wire(rooms, tmp_path):
    mailboxes, local = rooms
    both = to(1, "bob@example.test"), to(2, "carol@example.test"), to(3, "bob@example.test")
    outcomes = await local(attempt(tmp_path, *both))
    assert {number: type(outcome) for number, outcome in outcomes.items()} == dict.fromkeys(
        (1, 2, 3), Delivered
    )
    snapshot = await mailboxes.open("bob@example.test")
    (entry,) = snapshot.entries
    assert entry.size == len(STORED) + 3
    assert (await mailboxes.read("bob@example.test", entry)).read() == STORED
    snapshot.close()


async def test_a_message_that_also_travels_gets_its_return_path_here(rooms, tmp_path):
    mailboxes, local = rooms
    elsewhere = (Recipient(9, "x@remote.test", Remote("remote.test")),)
    await local(attempt(tmp_path, to(1, "bob@example.test"), others=elsewhere))
    snapshot = await mailboxes.open("bob@example.test")
    (entry,) = snapshot.entries
    stored = (await mailboxes.read("bob@example.test", entry)).read()
    assert stored == b"Return-Path: <eve@remote.test>\n" + STORED
    assert entry.size == len(stored) + stored.count(b"\n")
    snapshot.close()


async def test_one_sick_mailbox_is_deferred_and_harms_no_other(rooms, tmp_path):
    _, local = rooms
    (tmp_path / "mail/example.test").mkdir(parents=True)
    (tmp_path / "mail/example.test/bob").write_text("no directory")
    outcomes = await local(attempt(tmp_path, to(1, "bob@example.test"), to(2, "carol@example.test")))
    assert isinstance(outcomes[1], Deferred) and outcomes[1].status == "4.2.0"
    assert "bob@example.test" in outcomes[1].reply
    assert isinstance(outcomes[2], Delivered)


async def test_the_route_decides_who_delivers(tmp_path):
    async def local(_: Attempt) -> dict:
        return {1: Delivered("local")}

    async def remote(_: Attempt) -> dict:
        return {1: Delivered("remote")}

    deliver = deliverer(local, remote)
    here, there = to(1, "bob@example.test"), Recipient(1, "x@remote.test", Remote("remote.test"))
    assert (await deliver(attempt(tmp_path, here)))[1].reply == "local"
    assert (await deliver(attempt(tmp_path, there)))[1].reply == "remote"
