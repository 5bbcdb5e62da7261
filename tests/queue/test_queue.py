"""A message's life in the queue, on a real disk (RFC 5321 4.5.4.1, 6.1; RFC 3461 6; R08, R09)."""

from __future__ import annotations

import asyncio
import email
import email.policy
import os
import resource

import pytest
from house import CONTENT, RECEIVED, House, everybody

from mailserver.events import (
    Accepted,
    Bounced,
    DeferredFor,
    DeliveredTo,
    Dropped,
    FailedFor,
    Notice,
    Problem,
    Quarantined,
    Removed,
    Warned,
)  # fmt: skip
from mailserver.message.envelope import Deferred, Delivered, Failed
from mailserver.queue import queue, records
from mailserver.queue.schedule import PORTION
from mailserver.queue.slots import SLOW
from mailserver.store.job import RemovalFailed

REFUSED = Failed("550 5.1.1 no such user", "5.1.1", "mx.remote.test")
BUSY = Deferred("450 4.2.1 mailbox busy", "4.2.1", "mx.remote.test")
DEAD = Deferred("connection refused", "4.4.1", unreachable=True)
DAY = 86400.0


def report(data: bytes) -> email.message.EmailMessage:
    return email.message_from_bytes(data, policy=email.policy.default)


def status_of(data: bytes) -> email.message.Message:
    return report(data).get_payload()[1].get_payload()[1]


# ---- accept ---------------------------------------------------------------------------------------
async def test_a_local_message_is_in_the_mailbox_when_the_future_has_its_id(tmp_path):
    async with House(tmp_path) as house:
        for _ in range(2):  # the second goes the short way: the mailbox is known
            envelope, body = house.message("bob@example.test", sender="eve@remote.test")
            assert await house.queue.accept(envelope, body, session=7, rule="r") == envelope.id
        expected = b"Return-Path: <eve@remote.test>\nDelivered-To: bob@example.test\n" + RECEIVED + CONTENT
        assert house.mail("bob") == [expected] * 2
        assert house.files("queue/msg") == [] and house.files("mail/example.test/bob/tmp") == []
        accepted, delivered = house.of(Accepted)[0], house.of(DeliveredTo)[0]
        assert (accepted.session, accepted.rule, accepted.size) == (7, "r", len(expected))
        assert (delivered.recipient, delivered.attempts) == ("bob@example.test", 0)
        snapshot = await house.mailboxes.open("bob@example.test")
        assert [entry.size for entry in snapshot.entries] == [len(expected) + expected.count(b"\n")] * 2
        snapshot.close()
        house.balance()


async def test_many_mailboxes_share_one_file(tmp_path):
    async with House(tmp_path) as house:
        await house.send("alice@example.test", "bob@example.test", "carol@example.test")
        inodes = {os.stat(f).st_ino for f in tmp_path.glob("mail/example.test/*/new/*")}
        assert len(inodes) == 1 and len(house.of(DeliveredTo)) == 3


async def test_two_addresses_of_one_mailbox_get_one_copy(tmp_path):
    async with House(tmp_path) as house:
        await house.send("bob@example.test", "bob@example.test")
        assert len(house.mail("bob")) == 1 and len(house.of(DeliveredTo)) == 2
        house.balance()


async def test_a_mixed_message_is_in_the_mailbox_and_travels_on(tmp_path):
    async with House(tmp_path) as house:
        await house.send("bob@example.test", "x@remote.test", "y@remote.test")
        await house.saw(Removed)
        assert house.mail("bob") == [b"Return-Path: <alice@example.test>\n" + RECEIVED + CONTENT]
        (attempt,) = house.attempts  # one transaction, two RCPTs
        assert [r.address for r in attempt.recipients] == ["x@remote.test", "y@remote.test"]
        assert (attempt.destination, attempt.attempts) == ("remote.test", 1)
        assert house.files("queue/msg") == []
        assert house.queue.status()["forwarded"] == 2
        house.balance()


async def test_what_is_tried_is_what_was_accepted(tmp_path):
    async with House(tmp_path) as house:
        seen = []
        house.world = lambda attempt: seen.append(attempt.content.read()) or {0: Delivered("250 ok")}
        await house.send("x@remote.test")
        await house.saw(Removed)
        assert seen == [RECEIVED + CONTENT]


@pytest.mark.parametrize(
    "to", [["bob@example.test"], ["x@remote.test"], ["bob@example.test", "x@remote.test"]]
)
async def test_a_streamed_content_is_consumed(tmp_path, to):
    async with House(tmp_path) as house:
        big = CONTENT + b"0123456789\n" * 50_000
        sent: list[bytes] = []
        house.world = lambda attempt: (
            sent.append(attempt.content.read()) or everybody(Delivered("250"))(attempt)
        )
        path = str(tmp_path / "incoming")
        await house.send(*to, content=big, path=path)
        if "x@remote.test" in to:
            await house.saw(Removed)
            assert sent == [RECEIVED + big]
        if "bob@example.test" in to:
            assert house.mail("bob")[0].endswith(RECEIVED + big)
            assert house.mail("bob")[0].startswith(b"Return-Path: <alice@example.test>\n")
        assert "incoming" not in house.files(".")
        house.balance()


async def test_a_cancelled_client_changes_nothing(tmp_path):
    async with House(tmp_path) as house:
        future = house.queue.accept(*house.message("bob@example.test"))
        future.cancel()
        await house.saw(DeliveredTo)
        assert len(house.mail("bob")) == 1


async def test_an_unwritable_mailbox_leaves_its_mail_in_the_queue_until_it_is_repaired(tmp_path):
    async with House(tmp_path) as house:
        broken = tmp_path / "mail/example.test/bob"
        broken.parent.mkdir(parents=True)
        broken.write_text("a file where the Maildir should be")
        await house.send("bob@example.test", "carol@example.test", "x@remote.test")
        assert len(house.mail("carol")) == 1
        (deferred,) = await house.saw(DeferredFor)
        assert deferred.recipient == "bob@example.test" and deferred.status == "4.2.0"
        broken.unlink()
        await house.pass_time(301)
        await house.saw(Removed)
        assert house.mail("bob") == house.mail("carol")
        house.balance()


async def test_a_deleted_mailbox_is_made_again(tmp_path):
    async with House(tmp_path) as house:
        await house.send("bob@example.test")
        os.rename(tmp_path / "mail/example.test/bob", tmp_path / "moved")
        await house.send("bob@example.test")
        await house.saw(Removed)
        assert len(house.mail("bob")) == 1 and house.mail("bob")[0].count(b"Return-Path") == 1
        house.balance()


async def test_a_disk_that_takes_nothing_refuses_the_message(tmp_path):
    async with House(tmp_path) as house:
        os.rename(tmp_path / "queue", tmp_path / "gone")
        path = str(tmp_path / "incoming")
        with pytest.raises(OSError):
            await house.send("x@remote.test", path=path)
        await house.synced()
        assert "incoming" not in house.files(".")
        assert house.of(Accepted) == [] and house.listed() == []
        os.rename(tmp_path / "gone", tmp_path / "queue")


# ---- try and settle -------------------------------------------------------------------------------
async def test_a_deferral_is_on_disk_before_the_next_try_and_tried_again_when_due(tmp_path):
    async with House(tmp_path) as house:
        house.world = everybody(BUSY)
        name = await house.send("x@remote.test", "y@other.test")
        first = await house.saw(DeferredFor, 2)
        assert {(e.attempts, e.next_attempt, e.status) for e in first} == {(1, house.clock + 300, "4.2.1")}
        (listed,) = house.listed()
        assert (listed.id, listed.attempts, listed.held) == (name, 1, False)
        assert listed.next_attempt == house.clock + 300
        assert {(r.state, r.last_reply) for r in listed.recipients} == {("pending", BUSY.reply)}
        await house.pass_time(301)
        house.world = lambda a: everybody(BUSY if a.destination == "other.test" else Delivered("250 ok"))(a)
        await house.saw(DeferredFor, 3)
        await house.saw(DeliveredTo)
        await house.pass_time(901)
        await house.saw(DeferredFor, 4)
        assert [a.destination for a in house.attempts].count("remote.test") == 2
        house.balance()
    later = House(tmp_path)
    later.clock = house.clock
    async with later as again:  # progress survived: only one is still pending
        assert again.loaded == 1
        await again.pass_time(2000)
        await again.saw(Removed)
        (attempt,) = again.attempts
        assert (attempt.destination, attempt.attempts) == ("other.test", 4)
        again.balance()


async def test_a_failure_comes_back_as_a_report_and_the_rest_goes_on(tmp_path):
    async with House(tmp_path) as house:
        house.world = lambda a: {r.id: REFUSED if r.address[0] == "x" else BUSY for r in a.recipients}
        name = await house.send("x@remote.test", "y@remote.test")
        (bounced,) = await house.saw(Bounced)
        assert (bounced.id, bounced.kind, bounced.recipients) == (name, "failure", ("x@remote.test",))
        (data,) = house.mail("alice")
        assert data.startswith(b"Return-Path: <>\nDelivered-To: alice@example.test\n")
        assert status_of(data)["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
        assert report(data).get_payload()[2].get_content().as_bytes() == RECEIVED + CONTENT
        await house.saw(DeferredFor)
        assert len(house.of(FailedFor)) == 1
        house.balance()


async def test_a_message_older_than_max_age_bounces_with_the_real_reason(tmp_path):
    async with House(tmp_path, max_age=5 * DAY, delay_warning=0, retry=(10800.0,)) as house:
        house.world = everybody(DEAD)
        await house.send("x@remote.test")
        tries = 0
        while not house.of(Removed):
            tries += 1
            await house.saw(DeferredFor, tries)
            due = house.listed()[0].next_attempt if house.listed() else house.clock
            await house.pass_time(max(0.0, due - house.clock))
            await house.until(lambda n=tries: len(house.of(DeferredFor)) > n or house.of(Removed))
        assert house.clock == 1_700_000_000 + 5 * DAY
        assert status_of(house.mail("alice")[0])["Status"] == "4.4.1"
        house.balance()


YEAR = 365 * DAY


@pytest.mark.parametrize("by", [YEAR, 3600.0, -3600.0, -YEAR])
async def test_a_clock_that_is_set_makes_nothing_older_and_nothing_wait(tmp_path, by):
    """RFC 5321 4.5.4.1 speaks of time that passes. Nothing is tried early, late, or given up."""
    async with House(tmp_path, max_age=5 * DAY, delay_warning=4 * 3600.0) as house:
        house.world = everybody(DEAD)
        await house.send("x@remote.test")
        await house.saw(DeferredFor)
        house.set_clock(by)
        assert "the clock was set" in (await house.saw(Warned))[0].text
        fresh = await house.send("y@remote.test")  # the host is down for as long as it was
        await house.saw(DeferredFor, 2)
        await house.pass_time(299)
        await house.synced()
        assert len(house.attempts) == 1 and house.of(Bounced) == []
        house.world = everybody(Delivered("250 ok"))
        await house.pass_time(1)
        await house.saw(Removed, 2)
        assert [a.attempts for a in house.attempts if a.envelope.id != fresh] == [1, 2]
        house.balance()


async def test_what_was_accepted_and_deferred_while_the_clock_was_ahead_is_not_put_off_until_then(tmp_path):
    ahead = House(tmp_path, max_age=5 * DAY)
    ahead.clock += YEAR
    async with ahead as house:
        house.world = everybody(DEAD)
        await house.send("x@remote.test")
        await house.saw(DeferredFor)
    async with House(tmp_path, max_age=5 * DAY, delay_warning=0) as again:
        again.world = everybody(DEAD)
        await again.pass_time(900)  # the longest wait
        await again.saw(DeferredFor)
        await again.pass_time(5 * DAY)
        await again.saw(Bounced)  # when it is old enough by the clock that is right


async def test_what_was_accepted_while_the_clock_was_behind_is_not_old_after_a_restart(tmp_path):
    """A machine without a clock of its own starts years ago; then its clock is put right, and later it restarts."""
    behind = House(tmp_path, max_age=5 * DAY, delay_warning=0)
    behind.clock -= YEAR
    async with behind as house:
        house.world = everybody(DEAD)
        await house.send("x@remote.test")
        await house.saw(DeferredFor)
        house.set_clock(YEAR)
        await house.pass_time(300)
        await house.saw(DeferredFor, 2)
        await house.synced()
    again = House(tmp_path, max_age=5 * DAY, delay_warning=0)
    again.clock = house.clock
    async with again:
        again.world = everybody(DEAD)
        await again.pass_time(900)
        await again.until(lambda: again.of(DeferredFor) or again.of(Bounced))
        assert again.of(Bounced) == []
        await again.pass_time(5 * DAY)
        await again.saw(Bounced)


async def test_the_sender_is_told_of_a_delay_once(tmp_path):
    async with House(tmp_path, delay_warning=600.0, retry=(300.0,)) as house:
        house.world = everybody(BUSY)
        await house.send("x@remote.test")
        for n in range(1, 6):
            await house.saw(DeferredFor, n)
            await house.pass_time(301)
        await house.saw(DeferredFor, 6)
        (delayed,) = house.of(Bounced)
        assert delayed.kind == "delay"
        assert status_of(house.mail("alice")[0])["Action"] == "delayed"
        house.balance()


@pytest.mark.parametrize(
    ("sender", "notify", "outcome"),
    [
        (None, (), REFUSED),  # a bounce is never bounced
        ("alice@example.test", ("NEVER",), REFUSED),
        ("nobody@example.test", (), REFUSED),  # leads nowhere
    ],
)
async def test_a_failure_nobody_can_be_told_of_is_dropped_and_said(tmp_path, sender, notify, outcome):
    async with House(tmp_path) as house:
        house.world = everybody(outcome)
        await house.send("x@remote.test", sender=sender, notify=notify)
        await house.saw(Removed)
        assert len(house.of(Dropped)) == 1 and not house.of(Bounced)
        assert house.files("queue/msg") == []
        house.balance()


async def test_a_report_to_a_remote_sender_travels_and_its_own_failure_ends_there(tmp_path):
    async with House(tmp_path) as house:
        house.world = everybody(REFUSED)
        await house.send("x@remote.test", sender="eve@far.test")
        await house.saw(Removed, 2)
        bounce = house.attempts[1]
        assert (bounce.destination, bounce.envelope.sender) == ("far.test", None)
        assert len(house.of(Bounced)) == len(house.of(Dropped)) == 1
        house.balance()


async def test_success_is_reported_when_asked_for(tmp_path):
    async with House(tmp_path) as house:
        await house.send("bob@example.test", "x@remote.test", notify=("SUCCESS",))
        await house.saw(Bounced, 2)
        actions = {status_of(data)["Action"] for data in house.mail("alice")}
        assert actions == {"delivered", "relayed"}
        house.world = everybody(Delivered("250 ok", "mx", dsn=True))  # that host will report itself
        await house.send("y@remote.test", notify=("SUCCESS",))
        await house.saw(Removed, 2)
        assert len(house.of(Bounced)) == 2


async def test_an_exception_in_delivery_is_a_bug_and_keeps_the_mail(tmp_path):
    async with House(tmp_path) as house:
        house.world = lambda attempt: {}[attempt.attempts]
        await house.send("x@remote.test")
        await house.saw(DeferredFor)
        (problem,) = house.of(Problem)
        assert "KeyError" in problem.trace
        assert house.queue.status()["in_flight"] == 0 and house.files("queue/msg")
        house.world = everybody(Delivered("250"))
        await house.pass_time(301)
        await house.saw(Removed)


@pytest.mark.parametrize("broken", ["judge", "down_reason"])
async def test_a_bug_in_what_an_attempt_means_is_told_and_the_mail_is_tried_again(
    tmp_path, monkeypatch, broken
):
    async with House(tmp_path) as house:
        house.world = everybody(BUSY)
        with monkeypatch.context() as bug:
            bug.setattr(queue, broken, lambda *_: 1 // 0)
            await house.send("x@remote.test")
            (problem,) = await house.saw(Problem)
            assert "ZeroDivisionError" in problem.trace
            assert house.queue.status()["in_flight"] == 0 and house.files("queue/msg")
        house.world = everybody(Delivered("250"))
        await house.pass_time(301)
        await house.saw(Removed)
        house.balance()


async def test_a_failure_whose_report_cannot_be_stored_is_kept(tmp_path):
    async with House(tmp_path) as house:
        house.world = everybody(REFUSED)
        house.queue._reports._route_of = lambda _: (_ for _ in ()).throw(
            OSError(28, "No space left on device")
        )
        await house.send("x@remote.test")
        (kept,) = await house.saw(DeferredFor)
        assert "report about it could not be stored" in kept.reply
        house.queue._reports._route_of = house.route_of
        await house.pass_time(301)
        await house.saw(Removed)
        assert len(house.mail("alice")) == 1


async def test_a_damaged_spool_file_is_moved_aside_and_the_queue_goes_on(tmp_path):
    async with House(tmp_path) as house:
        house.world = everybody(BUSY)
        name = await house.send("x@remote.test")
        await house.saw(DeferredFor)
        await house.synced()
        file = tmp_path / "queue/msg" / name
        file.write_bytes(file.read_bytes().replace(b"The text", b"The next"))
        await house.pass_time(301)
        await house.saw(Quarantined)
        assert house.listed() == [] and house.queue.status()["in_flight"] == 0
        assert name in house.files("queue/quarantine")
        house.balance()


async def test_damage_in_a_large_held_message_is_found_without_a_try(tmp_path):
    async with House(tmp_path) as house:
        house.world = everybody(BUSY)
        names = [await house.send("x@remote.test", content=CONTENT + b"more\n" * 50_000) for _ in range(2)]
        await house.saw(DeferredFor, 2)
        house.queue.hold(names)
        await house.synced()
    file = tmp_path / "queue/msg" / names[0]
    file.write_bytes(file.read_bytes().replace(b"more", b"less", 1))
    async with House(tmp_path) as again:
        assert sorted(again.queue.ids()) == names
        await again.queue.scrub()
        assert again.queue.ids() == names[1:] and again.attempts == []
        assert again.files("queue/quarantine") == [names[0], f"{names[0]}.state"]
        assert {e.id for e in again.of(Quarantined)} == {names[0]}
        assert again.queue.status()["quarantined"] == 1
        again.balance()


async def tried_and_immovable(house, tmp_path):
    """A message is being delivered, and its spool file cannot be unlinked; that file, and where it lies meanwhile."""
    house.gate = asyncio.Event()
    name = await house.send("x@remote.test")
    await house.until(lambda: house.attempts)
    file, away = tmp_path / "queue/msg" / name, tmp_path / "away"
    file.rename(away)
    file.mkdir()  # unlink says EISDIR, as EPERM would come for an immutable file
    return file, away


async def test_a_settled_message_that_cannot_be_removed_is_not_sent_again(tmp_path):
    async with House(tmp_path) as house:
        file, away = await tried_and_immovable(house, tmp_path)
        house.gate.set()
        (problem,) = await house.saw(Problem)
        assert "cannot be removed" in problem.text and house.listed() == []
        await house.synced()
        file.rmdir()
        away.rename(file)
    async with House(tmp_path) as again:
        await again.saw(Removed)
        assert again.attempts == [] and again.files("queue/msg") == []


async def test_when_the_disk_is_well_again_what_is_settled_goes_without_a_restart(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "AGAIN", 0.01)
    async with House(tmp_path) as house:
        file, away = await tried_and_immovable(house, tmp_path)
        state = file.with_name(f"{file.name}.state")
        state.mkdir()  # nor can anything be written there
        house.gate.set()
        await house.saw(Problem, 2)
        assert house.of(Removed) == []
        state.rmdir()
        file.rmdir()
        away.rename(file)
        await house.saw(Removed)
        assert house.files("queue/msg") == [] and len(house.of(Problem)) == 2


async def test_what_an_administrator_removed_and_the_disk_kept_is_never_sent(tmp_path, monkeypatch):
    """Removed from the disk as soon as it can be; a restart before that finds it held; the others go at once."""
    async with House(tmp_path) as house:
        file, away = await tried_and_immovable(house, tmp_path)
        other = await house.send("y@remote.test")
        with pytest.raises(RemovalFailed):
            await house.queue.remove([file.name, other])
        assert house.listed() == [] and [e.id for e in house.of(Removed)] == [other]
        file.rmdir()
        away.rename(file)
    monkeypatch.setattr(records, "AGAIN", 0.01)
    async with House(tmp_path) as again:
        await again.pass_time(1000)
        assert [m.hold_reason for m in again.listed()] == ["by an administrator"] and not again.attempts
        file.rename(away)
        file.mkdir()
        with pytest.raises(RemovalFailed):
            await again.queue.remove([file.name])
        file.rmdir()
        away.rename(file)
        (removed,) = await again.saw(Removed)
        assert removed.reason == "removed by an administrator" and again.files("queue/msg") == []


async def test_a_dead_destination_costs_one_attempt_for_all_its_messages(tmp_path):
    async with House(tmp_path, concurrency_per_destination=1) as house:
        house.world = everybody(DEAD)
        for _ in range(20):
            await house.send("x@dead.test")
        await house.saw(DeferredFor, 20)
        assert len(house.attempts) < 20
        assert any("not tried again yet" in e.reply for e in house.of(DeferredFor))
        house.world = everybody(Delivered("250"))
        for _ in range(3):
            await house.pass_time(1000)
        await house.saw(Removed, 20)
        house.balance()


async def test_destinations_that_hang_use_up_no_slots(tmp_path):
    async with House(tmp_path, concurrency=2) as house:
        hung, quick = asyncio.Event(), house.remote

        async def remote(attempt):
            house.attempts.append(attempt)
            house.changed.set()
            if attempt.destination != "remote.test":
                await hung.wait()
            return await quick(attempt)

        house.queue._deliver = remote
        for n in range(4):
            await house.send(f"x@slow{n}.test")
        await house.send("y@remote.test")
        for tried in (2, 4):
            await house.until(lambda n=tried: len(house.attempts) == n)
            assert not house.of(DeliveredTo)
            await house.pass_time(SLOW)
        await house.saw(DeliveredTo)
        assert house.queue.status()["in_flight"] == 4
        hung.set()
        await house.saw(Removed, 5)


@pytest.mark.parametrize("status", ["4.4.2", "4.3.2"])
async def test_what_a_host_says_of_one_recipient_holds_up_no_other(tmp_path, status):
    async with House(tmp_path, concurrency_per_destination=1) as house:
        later = Deferred(f"451 {status} try this one later", status, "mx.remote.test")
        fine = Delivered("250 ok", "mx.remote.test")
        house.world = lambda a: {r.id: later if r.address[0] == "x" else fine for r in a.recipients}
        await house.send("x@remote.test")
        await house.send("y@remote.test")
        (done,) = await house.saw(DeliveredTo)
        assert (done.recipient, len(house.attempts)) == ("y@remote.test", 2)


# ---- start, stop, an administrator's hand ---------------------------------------------------------
async def test_the_queue_survives_a_restart_and_hold_does_too(tmp_path):
    async with House(tmp_path) as house:
        house.gate = asyncio.Event()
        kept = await house.send("x@remote.test")
        held = await house.send("y@other.test")
        await house.until(lambda: len(house.attempts) == 2)
        assert house.queue.hold([held, "NOSUCH"]) == 1
        await house.synced()
    async with House(tmp_path) as again:
        assert again.loaded == 2
        await again.saw(Removed)
        assert [a.envelope.id for a in again.attempts] == [kept]
        assert again.queue.show(held).held
        assert again.queue.release([held]) == 1
        await again.pass_time(301)
        await again.saw(Removed, 2)
        again.balance()


async def queued_before(tmp_path, count, **message):
    """So many messages, of an earlier run, none of which has been delivered."""
    async with House(tmp_path) as house:
        house.gate = asyncio.Event()
        await asyncio.gather(*(house.send(f"{n}@deep.test", **message) for n in range(count)))


async def test_new_mail_does_not_wait_until_a_deep_queue_is_loaded(tmp_path):
    deep = 3 * PORTION + 1
    await queued_before(tmp_path, deep)
    later = House(tmp_path, patience=0)
    later.clock += 60  # queue ids come from it
    async with later as again:
        assert again.loaded < deep and again.queue.status()["loading"]
        assert (
            again.of(Notice)[0].text
            == f"{again.loaded} messages are loaded; the rest is loaded beside the work"
        )
        fresh = await again.send("x@remote.test")
        await again.saw(Removed, deep + 1)
        assert not again.queue.status()["loading"]
        assert again.of(Notice)[1].text == f"all {deep} messages are loaded"
        tried = [attempt.envelope.id for attempt in again.attempts]
        assert len(tried) == len(set(tried)) == deep + 1 and fresh in tried  # each once
        again.balance()
    async with House(tmp_path) as last:
        assert last.loaded == 0


async def test_what_could_not_be_read_while_the_queue_is_loaded_beside_the_work_is_loaded_later(tmp_path):
    deep = 2 * PORTION
    await queued_before(tmp_path, deep, content=b"x" * 20_000 + b"\n")  # more than is read before its turn
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    later = House(tmp_path, patience=0)
    later.clock -= 600  # nothing is due
    async with later as again:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            await again.saw(Problem)
            assert "Too many open files" in again.of(Problem)[0].text
            assert again.queue.status()["loading"] and again.queue.status()["queued"] < deep
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await again.pass_time(1200)
        await again.saw(Removed, deep)
        tried = [attempt.envelope.id for attempt in again.attempts]
        assert len(tried) == len(set(tried)) == deep  # each once
        assert not again.queue.status()["loading"] and len(again.of(Problem)) == 1
        again.balance()


async def test_a_stop_does_not_wait_until_a_deep_queue_is_loaded(tmp_path):
    deep = 3 * PORTION + 1
    await queued_before(tmp_path, deep)
    later = House(tmp_path, patience=0)
    later.gate = asyncio.Event()
    async with later as again:
        await again.queue.drain(0)
        assert again.queue.status()["queued"] < deep
    last = House(tmp_path)
    last.clock -= 600  # nothing is due, or some would be delivered before all are loaded
    async with last:
        assert last.loaded == deep  # nothing is lost by that


async def test_retry_and_remove(tmp_path):
    async with House(tmp_path) as house:
        house.world = everybody(BUSY)
        name = await house.send("x@remote.test")
        await house.saw(DeferredFor)
        assert house.queue.retry(house.queue.ids()) == 1
        await house.saw(DeferredFor, 2)
        house.gate = asyncio.Event()
        house.queue.retry([name])
        await house.until(lambda: len(house.attempts) == 3)
        assert await house.queue.remove([name, name, "NOSUCH"]) == 1  # while it is being tried
        house.gate.set()
        await house.queue.drain(10)
        assert house.queue.status()["in_flight"] == 0
        assert house.queue.show(name) is None and house.files("queue/msg") == []
        assert len(house.of(DeferredFor)) == 2
        house.balance()


async def test_drain_lets_running_deliveries_finish(tmp_path):
    async with House(tmp_path) as house:
        house.gate = asyncio.Event()
        await house.send("x@remote.test")
        await house.until(lambda: house.attempts)
        drained = asyncio.ensure_future(house.queue.drain(10))
        house.gate.set()
        await drained
        assert house.files("queue/msg") == []
        await house.send("y@remote.test")  # still accepted, not tried
        assert len(house.attempts) == 1


@pytest.mark.parametrize(("octets", "kept"), [(1000, True), (300_000, False)])
async def test_only_small_content_stays_in_memory_for_the_first_attempt(tmp_path, octets, kept):
    """Five hundred deliveries may hang at once, and each would hold its own."""
    async with House(tmp_path) as house:
        _, body = message = house.message("x@remote.test", content=b"Subject: s\n\n" + b"x\n" * (octets // 2))
        house.gate = asyncio.Event()
        await house.queue.accept(*message)
        await house.until(lambda: house.attempts)
        content = house.attempts[0].content
        assert (content.data is not None) == kept
        assert content.read() == b"".join((body.head, *body.chunks))
        house.gate.set()


async def test_one_delivery_that_hangs_holds_up_nobody_else(tmp_path):
    async with House(tmp_path) as house:
        hung = asyncio.Event()
        quick = house.remote

        async def remote(attempt):
            if attempt.destination == "slow.test":
                await hung.wait()
            return await quick(attempt)

        house.queue._deliver = remote
        await house.send("x@slow.test", "y@remote.test")
        await house.saw(DeliveredTo)
        await house.send("z@remote.test")
        await house.saw(DeliveredTo, 2)
        assert house.queue.status()["in_flight"] == 1
        hung.set()
        await house.saw(Removed, 2)
