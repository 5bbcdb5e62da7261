"""Connections through proxies on real sockets, on both loops: plain, TLS, slow, wrong, and strangers."""

# ruff: noqa: ASYNC110 - waits for what other code does, with nothing to subscribe to

import asyncio
import contextlib
import socket
import ssl

import pytest
import uvloop
from tls_rooms import trusting_client
from trustme import CA

from mailserver.config import schema
from mailserver.host import acceptor, tls
from mailserver.policy.proxy_protocol import Expected, Header

LINE = b"PROXY TCP4 192.0.2.9 198.51.100.1 40000 25\r\n"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


class Greeter(asyncio.Protocol):
    """Says where the client is, then echoes."""

    def __init__(self, header: Header | None) -> None:
        self.header = header

    def connection_made(self, transport):
        self.transport = transport
        source = self.header.source if self.header else "nobody asked"
        transport.write(f"{source or 'the proxy itself'}\r\n".encode())

    def data_received(self, data):
        self.transport.write(data)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request):
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


def serve(test, *, expected=Expected.HEADER, context=None, timeout=5.0, most=(100, 50)):
    """Run ``test(port, refusals)`` against a listener whose clients are judged as ``expected``."""

    async def main():
        loop, refusals = asyncio.get_running_loop(), asyncio.Queue()
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        more = {"ssl_handshake_timeout": 5.0, "ssl_shutdown_timeout": 1.0} if context else {}
        listener = acceptor.Acceptor(
            sock, loop=loop, judge=lambda peer: expected, timeout=lambda: timeout, most=lambda: most,
            connect=lambda conn, header: loop.connect_accepted_socket(
                lambda: Greeter(header), conn, ssl=context, **more
            ),
            barred=lambda peer: "", refused=lambda peer, why: refusals.put_nowait((peer, why)),
        )  # fmt: skip
        try:
            return await test(sock.getsockname()[1], refusals, listener)
        finally:
            listener.close()
            listener.close()

    return main()


async def talk(port, *pieces):
    """Send the pieces one after the other; the first line and the echo of what is not header."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    "pieces",
    [(LINE + b"EHLO x\r\n",), (LINE, b"EHLO x\r\n"), tuple(bytes([octet]) for octet in LINE + b"EHLO x\r\n")],
)
def test_the_service_learns_the_client_and_gets_every_octet_behind_the_header(runner, pieces):
    async def test(port, refusals, listener):
        return await talk(port, *pieces)

    assert runner.run(serve(test)).replace(b"\r\n", b"|") == b"192.0.2.9:40000|EHLO x|"


def test_the_proxys_health_check_is_its_own(runner):
    async def test(port, refusals, listener):
        return await talk(port, LOCAL)

    assert runner.run(serve(test)) == b"the proxy itself\r\n"


def test_clients_that_are_no_proxies_are_served_where_both_come(runner):
    async def test(port, refusals, listener):
        return await talk(port, LINE)

    assert runner.run(serve(test, expected=Expected.NOTHING)) == b"nobody asked\r\n" + LINE


@pytest.mark.parametrize(
    ("expected", "sent", "why"),
    [
        (Expected.HEADER, b"EHLO x\r\n", "neither version 1 nor version 2"),
        (Expected.HEADER, b"\x16\x03\x01", "neither version 1 nor version 2"),
        (Expected.HEADER, LINE[:20], "hung up within"),
        (Expected.REFUSED, LINE, "no proxy of [proxy] trusted"),
    ],
)
def test_the_others_are_hung_up_on_without_a_word(runner, expected, sent, why):
    async def test(port, refusals, listener):
        with contextlib.suppress(OSError):  # a reset says no more
            assert await talk(port, sent) == b""
        return await refusals.get()

    peer, reason = runner.run(serve(test, expected=expected))
    assert peer == "127.0.0.1"
    assert why in reason


def test_a_slow_header_ends_and_there_is_room_for_so_many(runner):
    async def test(port, refusals, listener):
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        reasons = [(await refusals.get())[1] for _ in range(5)]
        for _, writer in clients:
            writer.close()
        for _ in range(3):  # turns of the loop
            await asyncio.sleep(0)
        assert listener.waiting == 0
        return reasons

    reasons = runner.run(serve(test, timeout=0.05, most=(3, 1)))
    assert reasons == ["too many are waiting"] * 2 + ["no PROXY header in time"] * 3


def test_who_does_not_finish_its_handshake_is_counted(runner, tmp_path):
    CA().issue_cert("mail.example.test").private_key_and_cert_chain_pem.write_to_path(tmp_path / "pair.pem")
    context = tls.server_context(schema.Tls(certificate=tmp_path / "pair.pem"), str(tmp_path), "x")

    async def test(port, refusals, listener):
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert await refusals.get() == ("127.0.0.1", "too many are waiting")
        with pytest.raises(asyncio.IncompleteReadError):
            await clients[2][0].readexactly(1)
        client = trusting_client()
        other = await asyncio.open_connection("127.0.0.1", port, ssl=client, local_addr=("127.0.0.2", 0))
        clients[0][1].close()
        greeted = await other[0].readline()
        while listener.waiting > 1:  # has left, and makes room
            await asyncio.sleep(0)
        again = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        greeted += await again[0].readline()
        for _, writer in (*clients, other, again):
            writer.close()
        return greeted

    expected = b"nobody asked\r\n" * 2
    assert runner.run(serve(test, expected=Expected.NOTHING, context=context, most=(100, 2))) == expected


def test_tls_in_the_same_segment_as_the_header(runner, tmp_path):
    CA().issue_cert("mail.example.test").private_key_and_cert_chain_pem.write_to_path(tmp_path / "pair.pem")
    context = tls.server_context(schema.Tls(certificate=tmp_path / "pair.pem"), str(tmp_path), "x")

    def client(port):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secret = trusting_client().wrap_bio(incoming, outgoing, server_hostname="mail.example.test")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            first = LINE
            while True:
                try:
                    secret.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(first + outgoing.read())
                    first = b""
                    incoming.write(sock.recv(65536))
            sock.sendall(outgoing.read())
            while True:
                try:
                    return secret.read(100)
                except ssl.SSLWantReadError:
                    incoming.write(sock.recv(65536))

    async def test(port, refusals, listener):
        return await asyncio.to_thread(client, port)

    assert b"192.0.2.9" in runner.run(serve(test, context=context))
