"""Whole sessions on loopback: several at once, broken ones, other programs in the same Maildir."""

from __future__ import annotations

import asyncio
import os
import poplib
import re
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pop3_office import ALICE, ONE, THREE, TWO, UTF8, Post

from mailserver.events import LoggedIn, LoginFailed, MailboxClosed, MailboxOpened, Problem, SessionClosed


def with_poplib(port: int) -> list[object]:
    """What Python's own client makes of us."""
    box = poplib.POP3("127.0.0.1", port, timeout=20)
    capabilities = box.capa()
    box.user("alice")
    box.pass_("wonderland")
    found = [
        "PIPELINING" in capabilities, box.stat(), box.list()[1], box.retr(1)[1], box.top(3, 1)[1],
        len({line.split()[1] for line in box.uidl()[1]}),
    ]  # fmt: skip
    box.dele(2)
    box.noop()
    box.quit()
    return found


async def test_poplib(post: Post) -> None:
    await post.start()
    await post.put(ONE, TWO, THREE)
    assert await asyncio.to_thread(with_poplib, post.port) == [
        True, (3, 92), [b"1 41", b"2 24", b"3 27"], [b"Subject: one", b"", b"first", b".dot", b"..two dots"],
        [b"Subject: three", b"", b"1"], 3,
    ]  # fmt: skip
    assert [path.read_bytes() for path in post.files()] == [ONE, THREE]
    (opened,) = post.seen(MailboxOpened)
    assert (opened.account, opened.messages, opened.octets) == (ALICE, 3, 92)
    await post.until(lambda: post.seen(SessionClosed))
    assert post.seen(SessionClosed)[0].reason == "quit"
    assert [(e.retrieved, e.deleted) for e in post.seen(MailboxClosed)] == [(1, 1)]
    assert [(e.account, e.mechanism) for e in post.seen(LoggedIn)] == [(ALICE, "USER")]


def with_apop(port: int, user: str, password: str) -> tuple[bytes, bytes]:
    box = poplib.POP3("127.0.0.1", port, timeout=20)
    try:
        return box.getwelcome(), box.apop(user, password)
    except poplib.error_proto as error:
        return box.getwelcome(), error.args[0]
    finally:
        box.close()


async def test_apop(post: Post) -> None:
    """RFC 1939 section 7: for whose password is kept in clear; every greeting is another."""
    await post.start(pop3={"apop": True})
    await post.put(ONE)
    wrong = b"-ERR [AUTH] wrong name or password"
    answers = [
        await asyncio.to_thread(with_apop, post.port, user, password)
        for user, password in (
            ("alice", "wonderland"),
            ("alice", "x"),
            ("bob", "wonderland"),
            ("x\xfcx", "x"),
        )
    ]
    assert [said for _, said in answers] == [b"+OK 1 messages", wrong, wrong, wrong]
    stamps = {re.search(rb"<[^<>@ ]+@mail\.example\.test>\Z", greeting)[0] for greeting, _ in answers}
    assert len(stamps) == len(answers)
    assert [(e.account, e.mechanism) for e in post.seen(LoginFailed)] == [
        ("alice", "APOP"), ("bob", "APOP"), ("x\xfcx", "APOP"),
    ]  # fmt: skip
    assert [e.mechanism for e in post.seen(LoggedIn)] == ["APOP"]


async def test_failed_apop_counts_as_any_failed_login(post: Post) -> None:
    guard = {"trusted": [], "free_failures": 0, "first_delay": "1h", "longest_delay": "1h"}
    await post.start(pop3={"apop": True}, guard=guard)
    client = await post.connect()
    bad = b"APOP alice " + b"0" * 32
    assert await client.ask(bad) == b"-ERR [AUTH] wrong name or password"
    assert post.guard.ask("127.0.0.1", "alice", post.clock).wait == 3600.0
    post.clock += 4000.0
    for _ in range(2):
        await client.ask(bad)
        post.clock += 4000.0
    assert await client.rest() == b""  # three wrong ones end the connection, however they came


async def test_the_login_delay(post: Post) -> None:
    """RFC 2449 section 8.1.1: who has logged in is told to wait, who shows no password learns nothing."""
    await post.start(pop3={"login_delay": "1m", "accounts": {"bob@example.test": {"login_delay": "0s"}}})
    await (await post.connect()).log_in()
    post.clock += 59.0
    client = await post.connect()
    for password, answer in (
        (b"wrong", b"-ERR [AUTH] wrong name or password"),
        (b"wonderland", b"-ERR [LOGIN-DELAY] logged in a moment ago, come back in 1 seconds"),
    ):
        assert await client.ask(b"USER alice") == b"+OK"
        assert await client.ask(b"PASS " + password) == answer
    post.clock += 1.0  # what was refused has not prolonged it
    await client.log_in()
    for _ in range(2):
        await (await post.connect()).log_in(b"bob")
    assert len(post.seen(LoggedIn)) == 4


async def test_old_mail_goes_at_quit_where_the_terms_say_so(post: Post) -> None:
    """RFC 2449 section 6.7. The first two messages are of 1700000001 and 1700000002, names of others tell no time."""
    await post.start(pop3={"expire": "30d"})
    await post.put(ONE, TWO, THREE)
    post.put_foreign("a file of somebody", b"a: b\n")
    post.clock = 1_700_000_002.0 + 30 * 86_400
    client = await (await post.connect()).log_in()
    client.close()  # a lost connection deletes nothing, whatever is old
    await post.until(lambda: post.seen(SessionClosed))
    assert len(post.files()) == 4
    client = await (await post.connect()).log_in()
    assert await client.ask(b"STAT") == b"+OK 4 98"
    assert await client.ask(b"QUIT") == b"+OK bye"
    assert [path.read_bytes() for path in post.files()] == [THREE, b"a: b\n"]
    assert [e.deleted for e in post.seen(MailboxClosed)] == [0, 2]


async def test_mail_that_could_not_be_read_to_its_end_is_not_taken_for_fetched(post: Post) -> None:
    await post.start(pop3={"expire": "0s"})
    (path,) = await post.put(ONE)
    client = await (await post.connect()).log_in()
    path.rename(path.parent / "x")
    path.mkdir()
    assert (await client.ask(b"RETR 1")).startswith(b"-ERR")
    path.rmdir()
    (path.parent / "x").rename(path)
    assert await client.ask(b"QUIT") == b"+OK bye"
    assert post.files() == [path]


async def test_a_name_in_utf8(post: Post) -> None:
    """RFC 6856 section 2.2: UTF8 USER; UTF8 itself need not have been said."""
    asked = []

    async def login(name: str, password: bytes) -> str | None:
        asked.append((name, password.decode()))
        return ALICE

    await post.start(login=login)
    client = await post.connect()
    assert await client.ask("USER jörg@bücher.test".encode()) == b"+OK"
    assert await client.ask("PASS für alle".encode()) == b"+OK 0 messages"
    assert asked == [("jörg@bücher.test", "für alle")]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
async def test_the_header_of_a_large_message_is_converted(post: Post, end: bytes) -> None:
    """More than one piece, and what TOP and the announced size count is what is sent (RFC 6858 section 4)."""
    await post.start()
    body = (b"." + b"A" * 75 + end) * 10_000
    await post.put(
        (UTF8.partition(b"\n\n")[0] + b"\n\n").replace(b"\n", end) + body, b"Subject: \xfc\n\nx\n", ONE
    )
    client = await (await post.connect(limit=1 << 22)).log_in()
    size = int((await client.ask(b"RETR 1")).split()[1])
    lines = []
    while (line := await client.line()) != b".":
        lines.append(line[1:] if line.startswith(b".") else line)
    assert lines[1] == b"From: =?utf-8?B?SsO2cmc=?= <info@xn--bcher-kva.test>"
    assert lines[-10_000:] == [b"." + b"A" * 75] * 10_000
    if end == b"\n":  # the sizes in the names that the office makes count no other
        assert sum(map(len, lines)) + 2 * len(lines) == size
    assert (await client.multi(b"TOP 1 1"))[:-1] == lines[:-10_000]
    assert await client.multi(b"RETR 2") == [b"Subject: \xfc", b"", b"x"]  # no UTF-8: nobody's extension


async def test_sessions_on_one_mailbox_do_not_lock_each_other_out(post: Post) -> None:
    await post.start()
    await post.put(ONE, TWO, THREE)
    phone = await (await post.connect()).log_in()
    laptop = await (await post.connect()).log_in()
    for client in (phone, laptop):
        assert await client.ask(b"DELE 1") == b"+OK message 1 marked"
    assert await laptop.ask(b"DELE 2") == b"+OK message 2 marked"
    assert await phone.ask(b"QUIT") == b"+OK bye"
    assert await laptop.ask(b"STAT") == b"+OK 1 27"  # a snapshot: numbers do not move
    assert await laptop.multi(b"RETR 3") == THREE.split(b"\n")[:-1]
    assert await laptop.ask(b"QUIT") == b"+OK bye"  # what the other has deleted counts as deleted
    later = await (await post.connect()).log_in()
    assert await later.ask(b"STAT") == b"+OK 1 27"
    assert [path.read_bytes() for path in post.files()] == [THREE]


async def test_unique_ids_stay_in_later_sessions(post: Post) -> None:
    await post.start()
    await post.put(ONE, TWO)
    first = await (await (await post.connect()).log_in()).multi(b"UIDL")
    post.files()[0].rename(post.files()[0].parent.parent / "cur" / (post.files()[0].name + ":2,S"))
    await post.put(THREE)
    post.put_foreign("1700099999.some, odd:name?:2,S", b"no sizes in the name\n")
    client = await (await post.connect()).log_in()
    second = await client.multi(b"UIDL")
    assert [await client.ask(b"UIDL %d" % n) for n in range(1, 5)] == [b"+OK " + line for line in second]
    assert await client.ask(b"LIST 4") == b"+OK 4 22"
    assert second[:2] == first
    assert len({line.split()[1] for line in second}) == 4


@pytest.mark.parametrize("how", ["close", "abort", "half-close"])
async def test_a_dropped_connection_deletes_nothing(post: Post, how: str) -> None:
    await post.start()
    await post.put(ONE, TWO)
    client = await (await post.connect()).log_in()
    assert await client.ask(b"DELE 1") == b"+OK message 1 marked"
    if how == "half-close":
        client.writer.write_eof()
        assert await client.rest() == b""
    elif how == "abort":
        client.writer.transport.abort()
    else:
        client.close()
    await post.until(lambda: post.seen(SessionClosed))
    assert post.seen(SessionClosed)[0].reason == "lost"
    assert len(post.files()) == 2


async def test_quit_deletes_even_if_the_client_does_not_wait(post: Post) -> None:
    await post.start()
    await post.put(ONE, TWO)
    client = await (await post.connect()).log_in()
    client.send(b"DELE 1", b"QUIT")
    await client.writer.drain()
    client.writer.write_eof()
    assert await client.rest() == b"+OK message 1 marked\r\n+OK bye\r\n"
    assert [path.read_bytes() for path in post.files()] == [TWO]


async def test_messages_another_session_has_removed_are_no_errors_of_the_client(post: Post) -> None:
    await post.start(limits={"errors": 2})
    _, *others = await post.put(ONE, TWO, THREE, ONE)
    client = await (await post.connect()).log_in()
    for path in others:
        path.unlink()
    for number in b"234" * 2:
        assert (await client.ask(b"RETR %c" % number)).startswith(b"-ERR another")
    assert await client.ask(b"DELE 1") == b"+OK message 1 marked"
    assert await client.ask(b"QUIT") == b"+OK bye"
    await post.until(lambda: not post.files())


async def test_messages_moved_and_removed_by_another_program(post: Post) -> None:
    await post.start()
    first, second, _ = await post.put(ONE, TWO, THREE)
    client = await (await post.connect()).log_in()
    first.rename(first.parent.parent / "cur" / f"{first.name}:2,S")
    second.unlink()
    assert await client.multi(b"RETR 1") == [b"Subject: one", b"", b"first", b".dot", b"..two dots"]
    assert await client.ask(b"RETR 2") == b"-ERR another program has removed the message meanwhile"
    assert await client.ask(b"DELE 1") == b"+OK message 1 marked"
    assert await client.ask(b"DELE 2") == b"+OK message 2 marked"
    assert await client.ask(b"QUIT") == b"+OK bye"
    assert [path.read_bytes() for path in post.files()] == [THREE]


async def test_what_cannot_be_deleted_is_said(post: Post) -> None:
    await post.start()
    await post.put(ONE)
    client = await (await post.connect()).log_in()
    (path,) = post.files()
    path.unlink()
    path.mkdir()  # unlink fails on it, for root too
    assert await client.ask(b"DELE 1") == b"+OK message 1 marked"
    assert await client.ask(b"QUIT") == b"-ERR some deleted messages not removed"
    (problem,) = post.seen(Problem)
    assert "Is a directory" in problem.text
    assert await client.rest() == b""


async def test_a_mailbox_that_cannot_be_opened_is_a_temporary_failure(post: Post) -> None:
    await post.start()
    post.spoil()
    client = await post.connect()
    await client.ask(b"USER alice")
    assert await client.ask(b"PASS wonderland") == b"-ERR [SYS/TEMP] the mailbox cannot be opened now"
    assert await client.ask(b"QUIT") == b"+OK bye"
    assert len(post.seen(Problem)) == 1


async def test_a_bug_ends_one_session_and_deletes_nothing(post: Post) -> None:
    async def broken(name: str, password: bytes) -> str | None:
        raise ZeroDivisionError

    await post.start(login=broken)
    client = await post.connect()
    client.send(b"USER alice", b"PASS secret")
    assert await client.rest() == b"+OK\r\n-ERR [SYS/TEMP] internal error\r\n"
    (problem,) = post.seen(Problem)
    assert "ZeroDivisionError" in problem.trace
    assert await (await post.connect()).ask(b"USER x") == b"+OK"


async def test_a_failed_login_names_no_password(post: Post) -> None:
    await post.start()
    client = await post.connect()
    await client.ask(b"USER mallory")
    assert await client.ask(b"PASS s3cret") == b"-ERR [AUTH] wrong name or password"
    (failed,) = post.seen(LoginFailed)
    assert (failed.account, failed.mechanism) == ("mallory", "USER")
    assert "s3cret" not in str(post.events)


LONG = 100_000
BIG = b"Subject: big\n\n" + b".starts with a dot\n" + (b"A" * 76 + b"\n") * LONG


async def test_a_large_message_to_a_slow_reader_takes_no_memory(post: Post) -> None:
    await post.start()
    await post.put(BIG)
    client = await (await post.connect(limit=1 << 16)).log_in()
    (session,) = post.service._sessions
    client.send(b"RETR 1", b"QUIT")
    await post.until(lambda: session.paused)
    assert session.transport.get_write_buffer_size() < 1 << 20
    assert [await client.line() for _ in range(4)][1:] == [b"Subject: big", b"", b"..starts with a dot"]
    assert await client.rest() == (b"A" * 76 + b"\r\n") * LONG + b".\r\n+OK bye\r\n"


async def test_large_messages_to_two_slow_readers_are_not_mixed_up(post: Post) -> None:
    await post.start()
    lines = [b"".join(b"%d%c\n" % (n, letter) for n in range(400_000)) for letter in b"ab"]
    await post.put(*(b"Subject: x\n\n" + body for body in lines))
    clients = [await (await post.connect(limit=1 << 16)).log_in() for _ in lines]
    for number, client in enumerate(clients, 1):
        client.send(b"RETR %d" % number, b"QUIT")
    await post.until(lambda: all(session.paused for session in post.service._sessions))
    for client, body in zip(clients, lines, strict=True):
        _, _, sent = (await client.rest()).partition(b"\r\n\r\n")
        assert sent == body.replace(b"\n", b"\r\n") + b".\r\n+OK bye\r\n"


async def test_the_top_of_a_large_message_reads_no_more_than_it_needs(post: Post) -> None:
    await post.start()
    await post.put(BIG)
    client = await (await post.connect()).log_in()
    assert await client.multi(b"TOP 1 2") == [b"Subject: big", b"", b".starts with a dot", b"A" * 76]
    client.send(b"TOP 1 %d" % LONG, b"QUIT")
    assert (await client.rest()).count(b"A" * 76 + b"\r\n") == LONG - 1


async def test_a_message_cut_short_while_it_is_sent_ends_the_connection(post: Post) -> None:
    await post.start()
    (path,) = await post.put(BIG)
    client = await (await post.connect(limit=1 << 16)).log_in()
    (session,) = post.service._sessions
    client.send(b"RETR 1")
    await post.until(lambda: session.paused)
    os.truncate(path, 1000)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await client.reader.readexactly(len(BIG))  # no terminating line that would make it look complete
    assert post.seen(Problem)


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_hundred_thousand_messages(post: Post) -> None:
    count = 100_000
    await post.start()
    (source,) = await post.put(b"x: y\n")
    name, size = source.name.partition("Q")[0], source.name.partition(",")[2]
    for n in range(1, count):
        if n % 50_000 == 0:  # a file system allows some 65,000 names of one file
            source = source.parent.parent / "tmp" / "another"
            source.write_bytes(b"x: y\n")
        os.link(source, f"{source.parent.parent}/new/{name}Q{n + 1}.host,{size}")
    client = await (await post.connect()).log_in()
    client.send(b"STAT", b"LIST", b"UIDL", b"DELE 50000", b"LIST", b"RSET", b"QUIT")
    lines = (await client.rest()).split(b"\r\n")
    total = b"+OK %d messages (%d octets)"
    sizes = [b"%d 6" % (n + 1) for n in range(count)]
    assert lines[:2] == [b"+OK %d %d" % (count, 6 * count), total % (count, 6 * count)]
    assert lines[2 : count + 4] == [*sizes, b".", b"+OK"]
    ids, rest = lines[count + 4 : 2 * count + 4], lines[2 * count + 4 :]
    assert len({line.split()[1] for line in ids}) == count
    assert rest[:3] == [b".", b"+OK message 50000 marked", total % (count - 1, 6 * (count - 1))]
    assert rest[3:] == [*sizes[:49_999], *sizes[50_000:], b".", b"+OK", b"+OK bye", b""]


talk = st.lists(
    st.sampled_from(
        [
            b"STAT", b"LIST", b"UIDL 1", b"RETR 1", b"TOP 2 1", b"DELE 1", b"RSET", b"NOOP", b"LAST", b"CAPA",
            b"QUIT", b"USER alice", b"PASS wonderland", b"PASS x", b"AUTH PLAIN", b"AUTH LOGIN YWxpY2U=",
            b"*", b"RETR 9", b"STLS", b"UTF8", b"LANG", b"LANG *", b"APOP alice x", b"RETR 2",
        ]
    )
    | st.binary(max_size=30),
    max_size=12,
)  # fmt: skip


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=talk, logged_in=st.booleans(), size=st.integers(1, 12))
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_whatever_is_said_however_it_is_cut_the_answers_are_the_same(
    post: Post, lines: list[bytes], logged_in: bool, size: int
) -> None:
    if not hasattr(post, "service"):
        await post.start()
    said = b"".join(line + b"\r\n" for line in lines)
    answers = []
    for pieces in ([said], [said[i : i + size] for i in range(0, len(said), size)]):
        post.empty()
        post.delivered = 0
        await post.put(ONE, UTF8)
        answers.append(await converse(post, pieces, logged_in))
    # A server that hangs up on unread input resets the connection (TCP), and some of the answers may be lost.
    short, long = sorted(answers, key=len)
    assert long.startswith(short)
    assert not long or long.startswith((b"+OK", b"+ ", b"-ERR "))
    assert not post.seen(Problem)


async def converse(post: Post, pieces: list[bytes], logged_in: bool) -> bytes:
    client = await post.connect()
    if logged_in:
        await client.log_in()
    heard = b""
    with suppress(ConnectionError, RuntimeError):  # RuntimeError: uvloop's "the handler is closed"
        for piece in pieces:
            client.writer.write(piece)
            await asyncio.sleep(0)
        client.writer.write_eof()
        while got := await client.reader.read(1 << 16):
            heard += got
    await post.until(lambda: post.service.status()["sessions"] == 0)
    return heard
