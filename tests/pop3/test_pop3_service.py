"""What surrounds a session: TLS, who is admitted, limits, time, draining."""

from __future__ import annotations

import asyncio
import functools
import ssl
from contextlib import suppress

import pytest
import trustme
from pop3_office import ONE, TWO, Post

from mailserver.events import CommandRefused, SessionClosed, SessionOpened, SessionRefused
from mailserver.policy.relay import RelayTable


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For the server, for the client."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("mail.example.test").configure_cert(server)
    authority.configure_trust(client)
    return server, client


async def test_stls(post: Post, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    await post.start(contexts[0])
    await post.put(ONE)
    client = await post.connect()
    assert b"STLS" in await client.multi(b"CAPA")
    assert await client.ask(b"USER alice") == b"+OK"
    assert await client.ask(b"STLS") == b"+OK begin TLS"
    await client.writer.start_tls(contexts[1], server_hostname="mail.example.test")
    assert b"STLS" not in await client.multi(b"CAPA")
    assert (
        await client.ask(b"PASS wonderland") == b"-ERR USER comes first"
    )  # nothing said in clear still holds
    assert await client.ask(b"STLS") == b"-ERR TLS is active already"
    await client.log_in()
    assert await client.multi(b"RETR 1") == [b"Subject: one", b"", b"first", b".dot", b"..two dots"]
    assert await client.ask(b"QUIT") == b"+OK bye"
    assert await client.rest() == b""


async def test_commands_injected_behind_stls_are_not_answered(
    post: Post, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    await post.start(contexts[0])
    client = await post.connect()
    client.send(b"STLS", b"USER alice", b"PASS wonderland")
    assert await client.rest() == b"-ERR no command may follow STLS before TLS is negotiated\r\n"


async def test_a_failed_handshake_ends_one_session(
    post: Post, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    await post.start(contexts[0])
    client = await post.connect()
    assert await client.ask(b"STLS") == b"+OK begin TLS"
    client.send(b"this is not a ClientHello")
    with suppress(ConnectionError):
        assert b"+OK" not in await client.rest()
    await post.until(lambda: post.seen(SessionClosed))
    assert post.seen(SessionClosed)[0].reason == "tls"
    assert post.service.status()["sessions"] == 0
    assert await (await post.connect()).ask(b"USER x") == b"+OK"


async def test_tls_from_the_first_octet(post: Post, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    await post.start(contexts[0])
    await post.put(ONE, b"a: b\n\n" + b"x" * 76 * 50_000 + b"\n")
    client = await post.connect(ssl=contexts[1], server_hostname="mail.example.test")
    assert b"STLS" not in await client.multi(b"CAPA")
    await client.log_in()
    client.send(b"RETR 2", b"QUIT")
    assert len(await client.rest()) > 76 * 50_000
    assert post.seen(SessionOpened)[0].tls.startswith("TLS")


async def test_passwords_in_clear_are_taken_from_this_machine_or_where_it_is_allowed(
    post: Post, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    await post.start(contexts[0])
    client = await post.connect()
    (session,) = post.service._sessions
    session.client = "192.0.2.7"
    capabilities = await client.multi(b"CAPA")
    assert b"STLS" in capabilities
    assert not [line for line in capabilities if line.startswith((b"USER", b"SASL"))]
    for attempt in (b"USER alice", b"PASS wonderland", b"AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ="):
        assert await client.ask(attempt) == b"-ERR passwords are taken under TLS only"
    settings = {"pop3": {"allow_plaintext_login": True}}
    post.service.reconfigure(post.service.config.model_validate(settings))
    assert b"USER" in await client.multi(b"CAPA")
    await client.log_in()


async def test_tls_begins_before_utf8(post: Post, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """RFC 6856 section 2.1; and CAPA says what holds now, with TLS and without."""
    await post.start(contexts[0])
    client = await post.connect()
    assert await client.ask(b"UTF8") == b"+OK"
    assert await client.ask(b"STLS") == b"-ERR STLS comes before UTF8"
    client = await post.connect()
    before = await client.multi(b"CAPA")
    assert await client.ask(b"STLS") == b"+OK begin TLS"
    await client.writer.start_tls(contexts[1], server_hostname="mail.example.test")
    under_tls = await client.multi(b"CAPA")
    assert await client.ask(b"UTF8") == b"+OK"
    assert set(before) - set(under_tls) == {b"STLS"}
    await client.log_in()
    assert await client.multi(b"CAPA") == under_tls
    tags = {line.split()[0] for line in before}
    assert tags == set(
        b"TOP USER SASL RESP-CODES LOGIN-DELAY PIPELINING EXPIRE UIDL IMPLEMENTATION STLS LANG UTF8 "
        b"AUTH-RESP-CODE".split()
    )  # https://www.iana.org/assignments/pop3-extension-mechanism


async def test_connections_per_minute(post: Post) -> None:
    await post.start(rates={"connections_per_minute": 2}, guard={"trusted": []})
    for _ in range(2):
        await post.connect()
    refused = await post.dial()
    said = b"-ERR [SYS/TEMP] too many connections from your address, try again in a minute"
    assert await refused.rest() == said + b"\r\n"
    (event,) = post.seen(SessionRefused)
    assert event.rule == "[rates] connections_per_minute = 2"
    assert event.reply == said.decode()
    post.clock += 30.0
    await post.connect()


async def test_connection_limits(post: Post) -> None:
    await post.start(limits={"connections_per_address": 2})
    first = await post.connect()
    await post.connect()
    refused = await post.dial()
    assert await refused.rest() == b"-ERR [SYS/TEMP] too many connections\r\n"
    first.close()
    await post.until(lambda: post.seen(SessionClosed))
    await post.connect()
    assert len(post.seen(SessionRefused)) == 1
    assert post.service.status()["refused"] == 1


async def test_addresses_barred_by_the_relay_rules(post: Post) -> None:
    table = RelayTable.compile([("127.0.0.0/8", "reject", "config.toml:3 [[relay]] 127.0.0.0/8")])
    await post.start(relay=lambda: table)
    client = await post.dial()
    assert (await client.rest()).startswith(b"-ERR [SYS/PERM]")
    assert post.seen(SessionRefused)[0].rule == "config.toml:3 [[relay]] 127.0.0.0/8"


async def test_too_many_errors_end_the_session(post: Post) -> None:
    await post.start(limits={"errors": 3})
    client = await post.connect()
    client.send(*[b"FETCH / POP9"] * 3, b"\x1b[31mQUIT", b"NOOP")
    replies = (await client.rest()).split(b"\r\n")
    assert replies == [*[b"-ERR unknown command"] * 3, b"-ERR too many errors, closing", b""]
    assert len(post.seen(CommandRefused)) == 4
    assert post.seen(SessionClosed)[0].reason == "errors"


async def test_failed_logins_are_answered_late(post: Post) -> None:
    await post.start(guard={"trusted": [], "free_failures": 0, "first_delay": "1h", "longest_delay": "1h"})
    client = await post.connect()
    client.send(b"USER alice", b"PASS wrong", b"USER alice", b"PASS wonderland", b"NOOP")
    assert await client.line() == b"+OK"
    assert await client.line() == b"-ERR [AUTH] wrong name or password"
    assert await client.line() == b"+OK"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.line()


async def test_autologout_deletes_nothing(post: Post) -> None:
    await post.start(limits={"idle_timeout": "60s"})
    await post.put(ONE, TWO)
    idle = await post.connect()
    client = await (await post.connect()).log_in()
    assert await client.ask(b"DELE 1") == b"+OK message 1 marked"
    post.service.sweep(post.clock + 59.0)
    assert await idle.ask(b"USER x") == b"+OK"
    post.service.sweep(post.clock + 60.0)
    assert await idle.rest() == b""
    post.service.sweep(post.clock + 599.0)  # RFC 1939 3: not before ten minutes
    assert await client.ask(b"NOOP") == b"+OK"
    post.service.sweep(post.clock + 600.0)
    assert await client.rest() == b""  # without a word
    await post.until(lambda: len(post.seen(SessionClosed)) == 2)
    assert {event.reason for event in post.seen(SessionClosed)} == {"timeout"}
    assert len(post.files()) == 2


async def test_octets_without_a_command_do_not_keep_a_session(post: Post) -> None:
    await post.start(limits={"idle_timeout": "60s"})
    client = await post.connect()
    (session,) = post.service._sessions
    post.clock += 59.0  # RFC 1939 3: the receipt of a *command* resets the timer
    client.writer.write(b"N")
    await post.until(lambda: session.bytes_in == 1)
    post.service.sweep(post.clock + 1.0)
    assert await client.rest() == b""


@pytest.mark.parametrize("chatty", [False, True])
@pytest.mark.parametrize(
    "said", [[b"USER alice"], [b"AUTH PLAIN"], [b"USER alice", b"PASS wrong"], [b"CAPA"]]
)
async def test_who_never_logs_in_ends_whatever_it_says(post: Post, said: list[bytes], chatty: bool) -> None:
    """Silence between USER and PASS, or within SASL; and commands now and then, which are no silence."""
    await post.start(limits={"idle_timeout": "60s", "session_timeout": "5m"})
    client = await post.connect()
    for line in said:
        await client.ask(line)
    (session,) = post.service._sessions
    ends = post.clock + (300.0 if chatty else 60.0)
    while chatty and post.clock < ends - 59.0:
        post.clock += 59.0
        post.service.sweep(post.clock)
        before = session.bytes_in
        client.send(b"LANG")
        await post.until(functools.partial(lambda before: session.bytes_in > before, before))
    post.service.sweep(ends - 1.0)
    assert post.service._sessions == {session}
    post.service.sweep(ends)
    await client.rest()
    await post.until(lambda: not post.service._sessions)
    assert post.seen(SessionClosed)[0].reason == "timeout"


async def test_a_client_that_does_not_read_is_timed_out(post: Post) -> None:
    await post.start()
    await post.put(b"a: b\n\n" + b"x" * 30_000_000)
    client = await (await post.connect(limit=1 << 16)).log_in()
    (session,) = post.service._sessions
    client.send(b"RETR 1")
    await post.until(lambda: session.paused)
    post.service.sweep(post.clock + 600.0)
    await post.until(lambda: post.seen(SessionClosed))
    assert post.seen(SessionClosed)[0].reason == "timeout"


async def test_draining(post: Post) -> None:
    await post.start()
    await post.put(ONE, TWO)
    anonymous = await post.connect()
    client = await (await post.connect()).log_in()
    drain = asyncio.create_task(post.service.drain(post.clock + 1000.0))
    assert await anonymous.rest() == b""
    with pytest.raises(OSError):
        await post.dial()
    assert await client.ask(b"DELE 1") == b"+OK message 1 marked"
    assert await client.ask(b"QUIT") == b"+OK bye"
    await drain
    assert len(post.files()) == 1
    assert post.seen(SessionClosed)[0].reason == "shutdown"


async def test_the_deadline_of_draining(post: Post) -> None:
    await post.start()
    await post.put(ONE, TWO)
    client = await (await post.connect()).log_in()
    assert await client.ask(b"DELE 1") == b"+OK message 1 marked"
    await post.service.drain(post.clock)
    assert await client.rest() == b""
    assert len(post.files()) == 2


async def test_new_settings_hold_for_open_sessions(post: Post) -> None:
    await post.start()
    client = await post.connect()
    post.service.reconfigure(post.service.config.model_validate({"limits": {"errors": 1}}))
    client.send(b"X", b"X")
    assert (await client.rest()).endswith(b"-ERR too many errors, closing\r\n")


async def test_the_client_is_whom_the_proxy_names(post: Post) -> None:
    await post.start(proxy={"trusted": ["127.0.0.1"]})
    client = await post.dial()
    client.send(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 110")
    assert (await client.line()).startswith(b"+OK mail.example.test")
    assert await client.ask(b"USER alice") == b"-ERR passwords are taken under TLS only"
    assert post.seen(SessionOpened)[0].client == "192.0.2.7"


@pytest.mark.parametrize(
    "octets", [b"GET / HTTP/1.1\r\nUSER alice\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]
)
async def test_who_speaks_another_protocol_is_hung_up_on(post: Post, octets: bytes) -> None:
    await post.start()
    client = await post.connect()
    client.writer.write(octets)
    assert await client.rest() == b"-ERR this is POP3\r\n"
    assert post.seen(SessionClosed)[0].reason == "errors"
