"""The pure scheduler: a week of retries in milliseconds."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mailserver.config.schema import Queue as Settings
from mailserver.queue.backoff import backoff, next_time
from mailserver.queue.batch import Batch, Stage
from mailserver.queue.lanes import START
from mailserver.queue.schedule import PORTION, Schedule
from mailserver.queue.slots import SLOW, WAITING_ROOM

RETRY = (300.0, 900.0, 3600.0, 10800.0)
NEVER = 1e12
MID = lambda: 0.5  # noqa: E731 - no jitter


def schedule(**settings: object) -> Schedule:
    return Schedule(Settings(**{"jitter": 0.0, **settings}), random=MID)


def ids(batches: list[Batch]) -> list[str]:
    return [b.id for b in batches]


def test_waits_follow_the_list_and_the_last_repeats():
    waits = [backoff(n, RETRY, 0.0, MID) for n in range(1, 7)]
    assert waits == [300, 900, 3600, 10800, 10800, 10800]
    assert backoff(1, (60.0,), 0.1, lambda: 0.0) == 54
    assert backoff(1, (60.0,), 0.1, lambda: 1.0) == pytest.approx(66)


def test_the_last_attempt_falls_on_the_maximum_age():
    assert next_time(100, 300, expires=1000) == 400
    assert next_time(900, 300, expires=1000) == 1000
    assert next_time(1100, 300, expires=1000) == 1400  # its report could not be written: no busy loop


def test_recipients_of_one_destination_go_together_and_are_split_at_the_limit():
    s = schedule(recipients_per_transaction=2)
    s.add("m", [(1, "a.test"), (2, "b.test"), (3, "a.test"), (4, "a.test")], due=0)
    taken = {(b.destination, b.recipients) for b in s.take(0)}
    assert taken == {("a.test", (1, 3)), ("a.test", (4,)), ("b.test", (2,))}


def test_concurrency_is_bounded_overall_and_per_destination_and_slots_come_back():
    s = schedule(concurrency=5, concurrency_per_destination=3)
    for n in range(10):
        s.add(f"a{n}", [(0, "a.test")], due=0)
        s.add(f"b{n}", [(0, "b.test")], due=0)
    first = s.take(0)
    assert sorted(b.destination for b in first) == ["a.test"] * 3 + ["b.test"] * 2
    assert s.take(0) == []
    s.settle(first[0], (), now=1, expires=NEVER)
    assert len(s.take(1)) == 1


def test_a_flood_for_one_destination_delays_another_by_one_batch():
    s = schedule(concurrency=4, concurrency_per_destination=4)
    for n in range(1000):
        s.add(f"flood{n}", [(0, "flood.test")], due=0)
    under_way = s.take(0)
    while s.wake() == 0:  # a take moves no more than a portion of what is due
        assert s.take(0) == []
        if s._heap == []:
            break
    s.add("single", [(0, "other.test")], due=0)
    s.settle(under_way[0], (), now=0, expires=NEVER)
    after = s.take(0)
    s.settle(under_way[1], (), now=0, expires=NEVER)
    assert "single" in ids(after) + ids(s.take(0))


def test_new_mail_does_not_wait_for_the_backlog_of_its_destination():
    s = schedule(concurrency=1, concurrency_per_destination=1)
    for n in range(100):
        s.add(f"old{n}", [(0, "busy.test")], due=0, attempts=1)
    (first,) = s.take(0)
    s.add("new", [(0, "busy.test")], due=0)
    s.settle(first, (), now=0, expires=NEVER)
    (second,) = s.take(0)
    s.settle(second, (), now=0, expires=NEVER)
    (third,) = s.take(0)
    assert "new" in ids([second, third])
    for n in range(100):
        s.add(f"newer{n}", [(0, "busy.test")], due=0)
    s.settle(third, (), now=0, expires=NEVER)
    seen = []
    for _ in range(10):  # nor does the backlog wait for ever
        (batch,) = s.take(0)
        seen.append(batch.id)
        s.settle(batch, (), now=0, expires=NEVER)
    assert sum(name.startswith("old") for name in seen) == 5


def tried(batches: list[Batch]) -> int:
    return sum(not b.suspended for b in batches)


def test_hosts_that_hang_hold_up_the_others_for_seconds_only():
    """Forty destinations accept connections and never say a word, with a hundred messages each."""
    s = schedule(concurrency=10, concurrency_per_destination=5)
    for n in range(100):
        for slow in range(40):
            s.add(f"m{n}-{slow}", [(0, f"slow{slow}.test")], due=0)
    while s.wake() == 0:
        s.take(0)
    s.add("good", [(0, "good.test")], due=0)
    now = 0.0
    while not any(batch.id == "good" for batch in s.take(now)):
        assert s.wake() == now + SLOW  # nothing but time frees a slot: the hosts do not even time out
        now += SLOW
        assert now <= 40 / 10 * SLOW  # one delivery for each of them, ten at a time
        assert s.in_flight <= 10 * (1 + WAITING_ROOM)
    s.settle(s.batches("good")[0], (), now=now + 1, expires=NEVER)
    assert s.in_flight <= 10 * (1 + WAITING_ROOM)


def test_a_destination_that_hangs_gets_less_and_one_that_answers_gets_more():
    s = schedule(concurrency=100, concurrency_per_destination=20)
    for n in range(200):
        s.add(f"m{n}", [(0, "a.test")], due=0)
    first = s.take(0)
    assert len(first) == START
    under_way = first
    for now in range(1, 20):  # every answer lets one more come
        s.settle(under_way.pop(0), (), now=now / 10, expires=NEVER)
        under_way += s.take(now / 10)
        assert len(under_way) == min(START + now, 20)
    assert s.take(100) == []  # all of them hang: as soon as they are over, only one is tried
    for batch in under_way[:-1]:
        s.settle(batch, batch.recipients, now=100, expires=NEVER)  # 450, whatever: nobody is settled
        assert s.take(100) == []
    s.settle(under_way[-1], (0,), now=100, expires=NEVER)
    assert len(s.take(100)) == 1


def test_a_slow_host_that_does_answer_is_not_throttled_for_it():
    s = schedule(concurrency=100, concurrency_per_destination=20)
    for n in range(300):
        s.add(f"m{n}", [(0, "tarpit.test")], due=0)
    now, most = 0.0, 0
    while s.batches("m299"):
        under_way = s.take(now)
        most = max(most, len(under_way))
        now += 2 * SLOW  # it keeps every client waiting for twenty seconds
        s.take(now)
        for batch in under_way:
            s.settle(batch, (), now=now, expires=NEVER)
    assert most == 20


def test_next_time_is_moved_before_the_attempt():
    s = schedule(retry=RETRY)
    s.add("m", [(0, "a.test")], due=10)
    assert s.wake() == 10
    assert s.take(9) == []
    (batch,) = s.take(10)
    assert (batch.attempts, batch.due) == (1, 310)


def test_a_destination_that_is_down_is_not_hammered_and_then_probed():
    s = schedule(retry=RETRY, concurrency_per_destination=1)
    for n in range(5):
        s.add(f"m{n}", [(0, "dead.test")], due=0)
    (tried,) = s.take(0)
    s.settle(tried, (0,), now=30, expires=NEVER, down="connection refused")
    suspended = s.take(30)
    assert len(suspended) == 4
    assert {b.suspended for b in suspended} == {"connection refused"}
    assert s.in_flight == 0
    for batch in suspended:
        s.settle(batch, (0,), now=30, expires=NEVER)
    s.add("new", [(0, "dead.test")], due=60)
    assert [b.suspended for b in s.take(60)] == ["connection refused"]
    s.settle(s.batches("new")[0], (0,), now=60, expires=NEVER)
    probes = s.take(400)
    assert len(probes) == 1 and not probes[0].suspended
    s.settle(probes[0], (), now=401, expires=NEVER)  # it answers again
    assert len(s.take(401)) == 1


def test_what_is_handed_out_as_suspended_at_once_is_bounded_by_its_recipients():
    s = schedule()
    s.add("first", [(0, "a.test")], due=0)
    s.settle(s.take(0)[0], (0,), now=0, expires=NEVER, down="refused")
    s.add("m", [(n, "a.test") for n in range(10_000)], due=1)
    told = 0
    while told < 10_000:
        assert s.wake() in {0.0, 1}
        at_once = sum(len(batch.recipients) for batch in s.take(1))
        assert 0 < at_once <= PORTION + 100  # the last batch may go beyond
        told += at_once


def test_the_probe_comes_after_the_first_wait_even_if_the_failed_message_waits_longer():
    s = schedule(retry=RETRY)
    s.add("old", [(0, "dead.test")], due=0, attempts=9)
    s.settle(s.take(0)[0], (0,), now=0, expires=NEVER, down="refused")
    s.add("new", [(0, "dead.test")], due=301)
    assert [b.suspended for b in s.take(301)] == [""]


def test_hold_release_retry_and_remove():
    s = schedule(retry=RETRY)
    s.add("m", [(0, "a.test")], due=100)
    assert s.hold("m") and s.is_held("m") and s.wake() is None and s.take(1000) == []
    assert not s.retry("m", 1000) and s.take(1000) == []  # held stays held
    assert s.release("m", 1000) and ids(s.take(1000)) == ["m"]
    s.hold("m")  # while in flight
    s.settle(s.batches("m")[0], (0,), now=1000, expires=NEVER)
    assert s.is_held("m") and s.take(9999) == []
    s.release("m", 9999)
    (batch,) = s.take(9999)
    assert s.remove("m") and s.in_flight == 1
    s.settle(batch, (0,), now=9999, expires=NEVER)
    assert s.in_flight == 0 and s.wake() is None and not s.remove("m") and not s.hold("m")


def test_retry_now_reaches_even_a_destination_that_is_down():
    s = schedule()
    s.add("m", [(0, "dead.test")], due=0)
    s.settle(s.take(0)[0], (0,), now=0, expires=NEVER, down="refused")
    assert s.retry("m", 10)
    assert [b.suspended for b in s.take(10)] == [""]


def test_a_week_of_retries():
    s = Schedule(Settings(retry=RETRY, jitter=0.1), random=random.Random(1).random)
    for n in range(50):
        s.add(f"m{n}", [(0, f"d{n % 5}.test")], due=0)
    now, expires, tried = 0.0, 5 * 86400.0, [0] * 50
    while (wake := s.wake()) is not None:
        now = max(now, wake)
        for batch in s.take(now):
            tried[int(batch.id[1:])] += 1
            s.settle(batch, () if now >= expires else (0,), now=now, expires=expires)
    assert now == expires
    assert min(tried) >= 5 * 86400 // (10800 * 1.1) and max(tried) <= 60


def test_a_hundred_thousand_messages_are_cheap():
    s = schedule()
    before = sys.getallocatedblocks()
    for n in range(100_000):
        s.add(f"m{n}", [(0, "dead.test")], due=float(n % 1000))
    per_message = (sys.getallocatedblocks() - before) / 100_000
    assert per_message < 9  # objects: id, batch, tuples, numbers
    taken = s.take(2000.0)
    s.settle(taken[0], (0,), now=2000.0, expires=NEVER, down="refused")
    suspended = 0
    while s.wake() == 0.0 or (s.wake() or NEVER) <= 2000.0:
        for batch in s.take(2000.0):
            suspended += bool(batch.suspended)
            s.settle(batch, (0,), now=2000.0, expires=NEVER)
    assert suspended > 99_000


class ScheduleMachine(RuleBasedStateMachine):
    """Any order of events: no slot leaks, no recipient twice in flight, nothing starves."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.limits = {"concurrency": 3, "concurrency_per_destination": 2, "recipients_per_transaction": 2}
        self.s = schedule(retry=(10.0, 40.0), **self.limits)
        self.flying: list[Batch] = []
        self.started: dict[Batch, float] = {}
        self.left: dict[str, set[int]] = {}
        self.count = 0

    @rule(destinations=st.lists(st.sampled_from("abc"), min_size=1, max_size=6), held=st.booleans())
    def add(self, destinations: list[str], held: bool) -> None:
        self.count += 1
        name = f"m{self.count}"
        self.left[name] = set(range(len(destinations)))
        self.s.add(name, list(enumerate(destinations)), due=self.now + self.count % 3, held=held)

    @rule(seconds=st.sampled_from([0, 1, 10, 45]))
    def take(self, seconds: int) -> None:
        self.now += seconds
        taken = self.s.take(self.now)
        self.started.update(dict.fromkeys(taken, self.now))
        self.flying += taken

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), down=st.sampled_from(["", "refused"]))
    def settle(self, data: st.DataObject, down: str) -> None:
        batch = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        keep = data.draw(st.sets(st.sampled_from(batch.recipients)))
        if down or batch.suspended:
            keep = set(batch.recipients)
        self.finish(batch, keep, down)

    def finish(self, batch: Batch, keep: set[int], down: str) -> None:
        if batch.id in self.left:
            self.left[batch.id] -= set(batch.recipients) - keep
            if not self.left[batch.id]:
                del self.left[batch.id]
        self.s.settle(batch, sorted(keep), now=self.now, expires=NEVER, down=down)

    @precondition(lambda self: self.left)
    @rule(data=st.data(), verb=st.sampled_from(["hold", "release", "retry", "remove"]))
    def hand(self, data: st.DataObject, verb: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.left)))
        if verb in {"hold", "remove"}:
            assert getattr(self.s, verb)(name)
        elif verb == "retry":
            assert self.s.retry(name, self.now) is not self.s.is_held(name)
        else:
            assert self.s.release(name, self.now)
        if verb == "remove":
            del self.left[name]

    @precondition(lambda self: self.left)
    @rule(data=st.data(), to=st.dictionaries(st.integers(0, 5), st.sampled_from("abc")))
    def regroup(self, data: st.DataObject, to: dict[int, str]) -> None:
        name = data.draw(st.sampled_from(sorted(self.left)))
        before = self.going(name)
        held = self.s.is_held(name)
        moved: dict[str, list[Batch]] = {}  # by where they go
        for batch in self.s.batches(name):
            ways = {to.get(r, batch.destination) for r in batch.recipients}
            if batch not in self.flying and ways != {batch.destination}:
                for way in ways:
                    moved.setdefault(way, []).append(batch)
        wanted = dict(before)
        for way, batches in moved.items():
            due, attempts = min(b.due for b in batches), max(b.attempts for b in batches)
            for batch in batches:
                going = [r for r in batch.recipients if to.get(r, batch.destination) == way]
                wanted.update(dict.fromkeys(going, (way, due, attempts)))
        changed = self.s.regroup(name, to)
        assert (self.going(name), changed) == (wanted, bool(moved))
        assert self.s.is_held(name) is held
        assert not self.s.regroup(name, to)

    def going(self, name: str) -> dict[int, tuple[str, float, int]]:
        return {r: (b.destination, b.due, b.attempts) for b in self.s.batches(name) for r in b.recipients}

    @invariant()
    def slots(self) -> None:
        trying = [b for b in self.flying if not b.suspended]
        assert self.s.in_flight == len(trying) <= 3 * (1 + WAITING_ROOM)
        assert sum(self.started[b] > self.now - SLOW for b in trying) <= 3
        for name in "abc":
            assert sum(b.destination == name for b in trying) <= 2

    @invariant()
    def nobody_twice_and_nobody_forgotten(self) -> None:
        assert set(self.s._messages) == set(self.left)
        for name, left in self.left.items():
            mine = [r for b in self.s.batches(name) for r in b.recipients]
            assert sorted(mine) == sorted(left)
        flying = [(b.id, r) for b in self.flying for r in b.recipients if b.stage is not Stage.GONE]
        assert len(flying) == len(set(flying))

    def teardown(self) -> None:
        """Whatever happened: released and answered, everything is delivered in bounded time."""
        for name in list(self.left):
            self.s.release(name, self.now)
        rounds = 0
        while self.left or self.flying:
            rounds += 1
            assert rounds < 1000, (self.left, self.flying)
            for batch in self.flying:
                self.finish(batch, set(batch.recipients) if batch.suspended else set(), "")
            wake = self.s.wake()
            if wake is not None:
                self.now = max(self.now, wake)
            self.flying = self.s.take(self.now)
            self.started.update(dict.fromkeys(self.flying, self.now))
        assert self.s.in_flight == 0 and self.s.wake() is None
        assert len(self.s._lanes) == 0 and not self.s._messages


TestScheduleMachine = ScheduleMachine.TestCase
TestScheduleMachine.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
