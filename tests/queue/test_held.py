"""Mail held by a rule when it is accepted: on disk, in nobody's mailbox, until an administrator decides."""

from __future__ import annotations

import pytest
from house import CONTENT, RECEIVED, House

from mailserver.control.queue_commands import queue_commands
from mailserver.control.server import Refused
from mailserver.events import Accepted, DeliveredTo, HeldBack, Removed

RULE = "[rates] messages_per_hour = 1"
BOB, FAR = "bob@example.test", "x@remote.test"
DAY = 86400.0


async def hold(house, *to, **options):
    envelope, body = house.message(*to, **options)
    envelope.hold, envelope.account = RULE, "alice@example.test"
    return await house.queue.accept(envelope, body, session=7, rule="default")


@pytest.mark.parametrize("to", [[BOB], [FAR], [BOB, "carol@example.test", FAR]])
@pytest.mark.parametrize("streamed", [False, True])
async def test_held_for_everybody_then_released(tmp_path, to, streamed):
    async with House(tmp_path) as house:
        name = await hold(house, *to, path=str(tmp_path / "incoming") if streamed else None)
        assert [type(e) for e in house.events] == [Accepted, HeldBack]
        assert (house.of(HeldBack)[0].account, house.of(HeldBack)[0].rule) == ("alice@example.test", RULE)
        assert house.files("queue/msg") == [name]
        assert house.queue.retry(house.queue.ids()) == 0  # held mail stays held
        await house.pass_time(DAY)
        await house.synced()
        (shown,) = house.listed("alice@example.test")
        assert (shown.held, shown.hold_reason, shown.account) == (True, RULE, "alice@example.test")
        assert {(r.state, r.last_reply) for r in shown.recipients} == {("pending", f"held: {RULE}")}
        assert house.listed(BOB) == [] and house.mail("bob") == [] and house.attempts == []
        house.balance()
        assert house.queue.release([name]) == 1
        await house.saw(Removed)
        assert len(house.of(DeliveredTo)) == len(to)
        assert len(house.attempts) == (FAR in to)
        mail = house.mail("bob")
        assert len(mail) == (BOB in to)
        assert all(m.startswith(b"Return-Path: <alice") and m.endswith(RECEIVED + CONTENT) for m in mail)
        assert all(m.count(b"Return-Path") == 1 for m in mail)
        house.balance()


async def test_a_restart_changes_nothing_and_a_release_lasts(tmp_path):
    async with House(tmp_path) as house:
        name = await hold(house, FAR)
    async with House(tmp_path) as again:
        (shown,) = again.listed()
        assert (shown.held, shown.hold_reason, again.attempts) == (True, RULE, [])
        again.world = lambda attempt: {}
        again.queue.release([name])
        await again.synced()
        assert again.queue.show(name).hold_reason == ""
        again.queue.hold([name])
        assert again.queue.show(name).hold_reason == "by an administrator"
        again.queue.release([name])
        await again.synced()
    async with House(tmp_path) as third:
        await third.pass_time(DAY)
        await third.saw(Removed)
        assert len(third.attempts) == 1


async def test_removed_without_a_report(tmp_path):
    async with House(tmp_path) as house:
        names = [await hold(house, BOB, FAR) for _ in range(3)]
        assert await house.queue.remove(names) == 3
        assert house.files("queue/msg") == [] and house.mail("bob") == [] and house.listed() == []
        assert house.queue.status()["dropped"] == 6
        house.balance()


async def test_one_unknown_id_among_others_holds_none_and_says_so(tmp_path):
    """A message may have been delivered while the administrator was typing."""
    async with House(tmp_path) as house:
        house.world = lambda attempt: {}
        name = await house.send(FAR)
        commands = queue_commands(house.queue, lambda account: None)
        with pytest.raises(Refused, match=r"^not in the queue: NOSUCH; nothing was done$"):
            await commands["queue.hold"]({"ids": [name, "NOSUCH"], "account": None})
        assert not house.queue.show(name).held
