"""Everybody behind one private address: relay rules are void there. Nobody else is disturbed."""

import pytest

from mailserver.policy.open_relay import CANDIDATES_MAX, OpenRelayGuard
from mailserver.policy.relay import Verdict

GATEWAY, RELAY = "172.17.0.1", Verdict("relay", "config.toml:3 [[relay]] 172.16.0.0/12")


def internet(guard, peer=GATEWAY, connections=40, names=20):
    """What the guard says while the world comes through one address."""
    said = [guard.see(peer, f"mx.host{n % names}.example", float(n)) for n in range(connections)]
    return [text for text in said if text]


def test_a_container_behind_a_nat_gateway_does_not_relay_for_the_world():
    guard = OpenRelayGuard([GATEWAY])
    (text,) = internet(guard)
    assert "RELAYING REFUSED for 172.17.0.1" in text
    assert "default gateway" in text
    assert "PROXY protocol" in text
    verdict = guard.verdict(GATEWAY, RELAY)
    assert verdict.action == "accept"
    assert verdict.rule.startswith(RELAY.rule)


def test_other_addresses_beside_the_gateway_change_nothing_for_it():
    guard = OpenRelayGuard([GATEWAY])
    guard.see(
        "198.51.100.1", "mail.example.test", 0.0
    )  # IPv4 comes through unchanged, IPv6 by the userland proxy
    assert internet(guard)
    assert guard.verdict(GATEWAY, RELAY).action == "accept"


def test_the_only_address_ever_seen_is_suspicious_without_being_the_gateway():
    guard = OpenRelayGuard()
    (text,) = internet(guard, "fd00::5")
    assert "only address" in text
    assert guard.suspicious("fd00::5")
    guard.see("192.168.1.9", "laptop", 99.0)
    assert not guard.suspicious("fd00::5")


@pytest.mark.parametrize(
    ("peer", "connections", "names"),
    [
        (GATEWAY, 19, 19),
        (GATEWAY, 500, 4),
        ("127.0.0.1", 500, 100),
        ("::1", 500, 100),
        ("8.8.8.8", 500, 100),
        ("not an address", 500, 100),
    ],
)
def test_few_connections_few_names_loopback_and_public_addresses_are_not(peer, connections, names):
    guard = OpenRelayGuard([GATEWAY])
    assert internet(guard, peer, connections, names) == []
    assert guard.verdict(peer, RELAY) == RELAY


def test_our_own_containers_behind_one_address_have_short_names():
    guard = OpenRelayGuard()
    for n in range(200):
        guard.see(
            "10.0.0.7",
            ["app", "cron", "localhost", "a1b2c3d4e5f6", "[10.0.0.9]", "10.0.0.8", "db"][n % 7],
            0.0,
        )
    assert not guard.suspicious("10.0.0.7")


def test_it_can_be_switched_off_and_gives_nobody_a_right():
    guard = OpenRelayGuard([GATEWAY], enabled=False)
    assert internet(guard) == []
    assert guard.verdict(GATEWAY, RELAY) == RELAY
    guard.enabled = True
    accept = Verdict("accept", "default")
    assert guard.verdict(GATEWAY, accept) == accept


def test_memory_is_bounded():
    gateways = [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(1000)]
    guard = OpenRelayGuard(gateways)
    for peer in gateways:
        for n in range(25):
            guard.see(peer, f"{n}." + "x" * 5000 + ".example", 0.0)
    assert len(guard._candidates) <= CANDIDATES_MAX
    assert len(guard._told) <= CANDIDATES_MAX
    assert all(len(name) <= 255 for candidate in guard._candidates.values() for name in candidate.names)
