"""PROXY protocol headers, whole and octet by octet; expectations from haproxy's proxy-protocol.txt."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.config.trust import Proxy as Settings
from mailserver.config.units import SocketAddress
from mailserver.policy.networks import Networks
from mailserver.policy.proxy_protocol import SIGNATURE, Expected, Header, ProxyError, expected, parse

PORTS = st.integers(0, 65535)
TAIL = st.binary(max_size=40)


def v2(command, family, body, length=None):
    return (
        SIGNATURE
        + bytes([command, family])
        + (len(body) if length is None else length).to_bytes(2, "big")
        + body
    )


def plain(address):
    return str(getattr(address, "ipv4_mapped", None) or address)


def octet_by_octet(data):
    """The first answer that is not "more"."""
    for end in range(len(data) + 1):
        header = parse(data[:end])
        if header is not None:
            return header
    return None


@st.composite
def headers(draw):
    ips = st.ip_addresses(v=draw(st.sampled_from([4, 6])))
    source, destination, ports = draw(ips), draw(ips), (draw(PORTS), draw(PORTS))
    want = (SocketAddress(plain(source), ports[0]), SocketAddress(plain(destination), ports[1]), False)
    if draw(st.booleans()):
        family = f"TCP{source.version}"
        return f"PROXY {family} {source} {destination} {ports[0]} {ports[1]}\r\n".encode(), want
    body = source.packed + destination.packed + b"".join(port.to_bytes(2, "big") for port in ports)
    return v2(0x21, 0x11 if source.version == 4 else 0x21, body + draw(st.binary(max_size=300))), want


@given(headers(), TAIL)
def test_headers_are_understood_and_nothing_behind_them_is_touched(header, tail):
    data, want = header
    assert parse(data + tail) == octet_by_octet(data) == Header(*want, len(data))
    assert all(parse(data[:end]) is None for end in range(len(data)))


LETTERS = st.text(alphabet="TCP46UNKOWN .:0123f\r\n", max_size=100).map(str.encode)
NEARLY = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=60).map(lambda rest: SIGNATURE + rest),
    st.binary(max_size=200).map(lambda rest: b"PROXY " + rest),
    LETTERS.map(lambda rest: b"PROXY " + rest),
)


@given(NEARLY)
def test_anything_gives_the_same_answer_whole_and_octet_by_octet(data):
    try:
        whole = parse(data)
    except ProxyError:
        with pytest.raises(ProxyError):
            octet_by_octet(data)
    else:
        assert octet_by_octet(data) == whole


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, b"\0" * 12),
        v2(0x20, 0xFF, b"anything"),
        v2(0x21, 0x00, b""),
        v2(0x21, 0x31, b"/run/proxy".ljust(216, b"\0")),
    ],
)
def test_the_proxys_own_connections_are_local(data):
    assert parse(data + b"EHLO x\r\n") == Header(None, None, True, len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"EHLO x\r\n", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00", b"POST", b"proxy TCP4", b"\r\nQUIT",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rx",
        b"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY " + b"1" * 101,
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        v2(0x11, 0x11, b"\0" * 12),
        v2(0x22, 0x11, b"\0" * 12),
        v2(0x21, 0x12, b"\0" * 12),
        v2(0x21, 0x10, b"\0" * 12),
        v2(0x21, 0x41, b"\0" * 12),
        v2(0x21, 0x11, b"\0" * 11),
        v2(0x21, 0x21, b"\0" * 35),
        v2(0x21, 0x11, b"", 4081),
        v2(0x20, 0x00, b"", 65535),
    ],
)  # fmt: skip
def test_what_is_no_header_is_refused(data):
    with pytest.raises(ProxyError):
        parse(data)


def test_the_largest_are_accepted():
    line = b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n"
    assert len(line) == 107
    assert parse(line).length == 107
    assert parse(v2(0x21, 0x11, b"\0" * 4080)).length == 4096


def test_a_mapped_client_is_ipv4():
    body = ipaddress.ip_address("::ffff:192.0.2.1").packed * 2 + bytes(4)
    assert parse(v2(0x21, 0x21, body)).source == ("192.0.2.1", 0)


SMTP, POP3 = SocketAddress("0.0.0.0", 25), SocketAddress("0.0.0.0", 110)


@pytest.mark.parametrize(
    ("listen", "listener", "peer", "want"),
    [
        ((), SMTP, "10.0.0.1", Expected.HEADER),
        ((), SMTP, "::ffff:10.0.0.1", Expected.HEADER),
        ((), SMTP, "192.0.2.1", Expected.NOTHING),
        ((SMTP,), SMTP, "10.0.0.1", Expected.HEADER),
        ((SMTP,), SMTP, "192.0.2.1", Expected.REFUSED),
        ((SMTP,), POP3, "10.0.0.1", Expected.NOTHING),
        ((SMTP,), POP3, "192.0.2.1", Expected.NOTHING),
    ],
)
def test_who_may_and_must_send_a_header(listen, listener, peer, want):
    settings = Settings(trusted=("10.0.0.0/24",), listen=listen)
    assert expected(settings, Networks(settings.trusted), listener, peer) is want


def test_without_proxies_nobody_is_listened_to():
    assert expected(Settings(), Networks(()), SMTP, "10.0.0.1") is Expected.NOTHING
