"""Relay rules: first match wins, closed by default, the same answer as reading the list from the top."""

import ipaddress
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.policy.pattern import PatternError, is_much_of_the_internet, parse
from mailserver.policy.relay import DEFAULT, RelayTable, Verdict


def table(*rules: tuple[str, str]) -> RelayTable:
    return RelayTable.compile((text, action, f"rule {n}") for n, (text, action) in enumerate(rules))


def test_empty_table_lets_everybody_connect_and_nobody_relay():
    for ip in ("127.0.0.1", "192.0.2.1", "::1", "2001:db8::1", "", "/run/lmtp.sock"):
        verdict = table().decide(ip)
        assert verdict == DEFAULT and verdict.may_connect and not verdict.may_relay


def test_may_connect_and_may_relay_are_two_permissions():
    rules = table(("10.0.0.1", "relay"), ("10.0.0.2", "accept"), ("10.0.0.3", "reject"))
    permissions = [
        (v.may_connect, v.may_relay) for v in map(rules.decide, ("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    ]
    assert permissions == [(True, True), (True, False), (False, False)]


def test_connecting_rule_never_relays():
    """tcpserver's ':allow' must not become an open relay (FEATURES E1)."""
    assert not table(("0.0.0.0/0", "accept"), ("0.0.0.0/0", "relay")).decide("192.0.2.1").may_relay


@pytest.mark.parametrize(
    ("ip", "rule"),
    [
        ("10.1.2.3", "rule 0"),
        ("10.1.2.4", "rule 1"),
        ("10.1.3.4", "rule 2"),
        ("10.9.9.9", "rule 3"),
        ("10.255.255.255", "rule 3"),
        ("11.0.0.0", "default"),
        ("::ffff:10.1.2.3", "rule 0"),
        ("::ffff:a01:204", "rule 1"),
        ("fe80::1%eth0", "rule 4"),
        ("2001:db8::1", "rule 5"),
        ("2001:db8:0:1::1", "default"),
        ("198.51.100.7", "rule 6"),
    ],
)
def test_first_match_wins(ip, rule):
    rules = table(
        ("10.1.2.3", "reject"),
        ("10.1.2.", "relay"),
        ("10.1.", "accept"),
        ("10.0.0.0/8", "relay"),
        ("fe80::/64", "relay"),
        ("2001:db8::/64", "relay"),
        ("::ffff:198.51.100.0/120", "relay"),
    )
    assert rules.decide(ip).rule == rule


def test_all_of_ipv6_does_not_mean_mapped_ipv4():
    assert table(("::/0", "relay")).decide("::ffff:192.0.2.1") == DEFAULT


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("10.1.2.3/8", '"10.0.0.0/8"'),
        ("2001:db8::1/32", '"2001:db8::/32"'),
        ("10.1.2", '"10.1.2."'),
        ("10.1.*.*", '"10.1."'),
        ("10.0.0.0/255.0.0.0", '"10.0.0.0/8"'),
        ("fe80::1%eth0", '"fe80::1"'),
        ("[::1]", '"::1"'),
        ("10.0.0.0/33", '"10.0.0.0/8"'),
        ("300.1.", "prefix"),
        ("localhost", "network"),
        ("", "network"),
        ("10.1.2.3.", "network"),
        ("1.2.3.4/", '"10.0.0.0/8"'),
    ],
)
def test_misread_patterns_are_refused_with_what_is_right(text, right):
    with pytest.raises(PatternError) as caught:
        RelayTable.compile([(text, "relay", "here")])
    assert right in caught.value.right
    assert f'"{text}"' in str(caught.value)


def test_unknown_action_is_refused():
    with pytest.raises(ValueError, match=r'"10\.".*allow'):
        table(("10.", "allow"))


@pytest.mark.parametrize(
    ("text", "much"),
    [("0.0.0.0/0", True), ("8.0.0.0/7", True), ("10.0.0.0/8", False), ("::/0", True), ("2000::/3", True),
     ("2001::/16", False), ("fc00::/7", False), ("fe80::/10", False), ("::ffff:0:0/96", True)],
)  # fmt: skip
def test_much_of_the_internet(text, much):
    assert is_much_of_the_internet(parse(text)) is much


v4 = st.integers(0, 2**32 - 1).map(lambda n: n & 0x0303_0303 | 0x0A00_0000).map(ipaddress.IPv4Address)
v6 = st.integers(0, 2**128 - 1).map(lambda n: n & (0x3 << 80 | 0x3) | 0xFD << 120).map(ipaddress.IPv6Address)


@st.composite
def patterns(draw):
    address = draw(v4 | v6)
    length = draw(st.integers(0, address.max_prefixlen))
    network = ipaddress.ip_network(f"{address}/{length}", strict=False)
    octets = str(network.network_address).split(".")
    if network.version == 4 and length in (8, 16, 24) and draw(st.booleans()):
        return network, ".".join(octets[: length // 8]) + "."
    if network.version == 4 and draw(st.booleans()):
        return network, f"::ffff:{network.network_address}/{96 + length}"
    return network, str(network.network_address) if length == network.max_prefixlen else str(network)


@given(st.lists(st.tuples(patterns(), st.sampled_from(["relay", "accept", "reject"])), max_size=12), v4 | v6)
def test_same_verdict_as_reading_the_list_from_the_top(rules, client):
    compiled = table(*((text, action) for (_, text), action in rules))
    naive = DEFAULT
    for n, ((network, _), action) in enumerate(rules):
        if client.version == network.version and client in network:
            naive = Verdict(action, f"rule {n}")
            break
    assert compiled.decide(str(client)) == naive
    if client.version == 4:
        assert compiled.decide(f"::ffff:{client}") == naive


@given(st.text(max_size=40))
def test_no_text_of_a_client_or_rule_breaks_it(text):
    assert table(("0.0.0.0/0", "reject"), ("::/0", "reject")).decide(text).action in {"accept", "reject"}
    try:
        parse(text)
    except PatternError as error:
        assert error.right


def test_a_hundred_thousand_rules_answer_in_microseconds():
    """FEATURES U06. The bound is twenty times what is measured, so a busy machine does not fail it."""
    rules = [
        (f"{a}.{b}.{c}.{d}/{length}", "relay", "")
        for length, d in ((24, 0), (32, 9))
        for a in (20, 21)
        for b in range(100)
        for c in range(250)
    ]
    compiled = RelayTable.compile(rules)
    assert len(compiled) == 100_000
    start = time.perf_counter()
    for n in range(1000):
        compiled.decide(f"20.{n % 256}.77.9")
    assert (time.perf_counter() - start) / 1000 < 100e-6
