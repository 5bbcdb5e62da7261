"""[routes] as they are now hold for what waits, too: after a reload, after a restart, after a delivery under way."""

from __future__ import annotations

import asyncio

from house import House, everybody

from mailserver.events import DeferredFor, DeliveredTo, Notice
from mailserver.message.envelope import Deferred, Delivered
from mailserver.queue.lanes import START
from mailserver.queue.schedule import PORTION

FAR, NEAR = "x@far.test", "y@near.test"
NOBODY = everybody(Deferred("connection refused", "4.4.1", unreachable=True))
ONE_IS_UP = lambda attempt: (  # noqa: E731
    everybody(Delivered("250 ok")) if attempt.destination == "smtp://new" else NOBODY
)(attempt)


def ways(house):
    return [(attempt.destination, [r.address for r in attempt.recipients]) for attempt in house.attempts]


async def changed(house, **routes):
    house.routes = routes
    house.queue.reconfigure(house.settings)


async def test_what_waits_for_a_dead_relay_goes_by_the_new_one(tmp_path):
    async with House(tmp_path) as house:
        house.routes, house.world = {"*": "smtp://old"}, ONE_IS_UP
        await house.send(FAR, NEAR, "bob@example.test")
        await house.saw(DeferredFor, 2)
        await changed(house, **{"*": "smtp://old", "far.test": "smtp://new"})
        (said,) = await house.saw(Notice)
        assert "1 message" in said.text
        assert house.queue.retry(house.queue.ids()) == 1
        await house.saw(DeliveredTo, 2)  # and bob
        await house.saw(DeferredFor, 3)
        assert ways(house)[0] == ("smtp://old", [FAR, NEAR])
        assert sorted(ways(house)[1:]) == [("smtp://new", [FAR]), ("smtp://old", [NEAR])]
        assert [r.state for r in house.listed()[0].recipients] == ["delivered", "pending", "delivered"]
        house.balance()


async def test_each_message_keeps_its_time_and_its_hold(tmp_path):
    async with House(tmp_path) as house:
        house.routes, house.world = {"*": "smtp://old"}, ONE_IS_UP
        held, waits = await house.send(FAR), await house.send(FAR)
        await house.saw(DeferredFor, 2)
        house.queue.hold([held])
        before = [(m.id, m.next_attempt, m.attempts, m.held) for m in house.listed()]
        await changed(house, **{"*": "smtp://new"})
        await house.saw(Notice)
        assert [(m.id, m.next_attempt, m.attempts, m.held) for m in house.listed()] == before
        await house.pass_time(300)
        await house.saw(DeliveredTo)
        assert list(house.queue.ids()) == [held] and waits
        assert house.queue.release([held]) == 1
        await house.saw(DeliveredTo, 2)
        house.balance()


async def test_a_restart_asks_the_routes_of_now(tmp_path):
    async with House(tmp_path) as house:
        house.routes, house.world = {"*": "smtp://old"}, ONE_IS_UP
        await house.send(FAR, NEAR)
        await house.saw(DeferredFor, 2)
        await house.synced()
    async with House(tmp_path) as again:  # without routes
        again.world = ONE_IS_UP
        await again.pass_time(300)
        await again.saw(DeferredFor, 2)
        assert sorted(ways(again)) == [("far.test", [FAR]), ("near.test", [NEAR])]


async def test_what_was_under_way_by_the_old_route_takes_the_new_one_next(tmp_path):
    async with House(tmp_path) as house:
        house.routes, house.world, house.gate = {"*": "smtp://old"}, ONE_IS_UP, asyncio.Event()
        await house.send(FAR, NEAR)
        await house.until(lambda: house.attempts)
        await changed(house, **{"*": "smtp://new"})
        await asyncio.sleep(0)
        house.gate.set()
        await house.saw(DeferredFor, 2)
        await house.pass_time(300)
        await house.saw(DeliveredTo, 2)
        assert ways(house) == [("smtp://old", [FAR, NEAR]), ("smtp://new", [FAR, NEAR])]


async def test_what_stood_in_line_behind_a_relay_that_hangs_goes_at_once(tmp_path):
    async with House(tmp_path) as house:
        house.routes, house.world, house.gate = {"*": "smtp://old"}, ONE_IS_UP, asyncio.Event()
        for _ in range(START + 2):
            await house.send(FAR)
        await house.until(lambda: len(house.attempts) == START)
        await changed(house, **{"*": "smtp://new"})
        await house.until(lambda: len(house.attempts) == START + 2)  # the gate is shut, the clock stands
        assert {to for to, _ in ways(house)[START:]} == {"smtp://new"}


async def test_recipients_that_now_share_a_way_share_a_transaction(tmp_path):
    async with House(tmp_path) as house:
        house.world = ONE_IS_UP
        everywhere = [f"x@{n}.test" for n in range(20)]
        await house.send(*everywhere)
        await house.saw(DeferredFor, 20)
        house.routes = {"*": "smtp://new"}
        await house.queue.reconfigure(house.settings)
        house.queue.retry(house.queue.ids())
        await house.saw(DeliveredTo, 20)
        assert ways(house)[20:] == [("smtp://new", everywhere)]
        house.balance()


async def test_a_retry_after_the_reload_goes_by_the_new_routes_however_deep_the_queue(tmp_path):
    async with House(tmp_path) as house:
        house.routes, house.world = {"*": "smtp://old"}, ONE_IS_UP
        many = [f"x{n}@far.test" for n in range(PORTION)]
        for _ in range(3):
            await house.send(*many)
        await house.saw(DeferredFor, 3 * PORTION)
        before, turns, house.routes = len(house.attempts), 0, {"*": "smtp://new"}
        reloaded = house.queue.reconfigure(house.settings)
        while not reloaded.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns > 3  # a message with many recipients counts for many
        house.queue.retry(house.queue.ids())
        await house.saw(DeliveredTo, 3 * PORTION)
        assert {to for to, _ in ways(house)[before:]} == {"smtp://new"}


async def test_the_last_of_two_changes_counts(tmp_path):
    async with House(tmp_path) as house:
        house.routes, house.world = {"*": "smtp://old"}, ONE_IS_UP
        for _ in range(3):
            await house.send(FAR)
        await house.saw(DeferredFor, 3)
        await changed(house, **{"*": "smtp://other"})
        await changed(house, **{"*": "smtp://new"})
        (said,) = await house.saw(Notice)
        assert "3 messages" in said.text
        await house.pass_time(300)
        await house.saw(DeliveredTo, 3)
