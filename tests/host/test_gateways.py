"""The default gateways, from tables as the kernel prints them."""

import ipaddress
import sys

from mailserver.host.gateways import default_gateways


def test_default_routes_of_both_families(tmp_path):
    number = int.from_bytes(ipaddress.ip_address("172.17.0.1").packed, sys.byteorder)
    rows = [
        f"eth0\t00000000\t{number:08X}\t0003\t0\t0\t0\t00000000\t0\t0\t0",
        "eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF",
    ]
    (tmp_path / "v4").write_text("Iface\tDestination\tGateway\tFlags\n" + "\n".join(rows) + "\n")
    gateway, zero = ipaddress.ip_address("fe80::1").packed.hex(), "0" * 32
    lines = [
        f"{zero} 00 {zero} 00 {gateway} 00000400 1 0 00000003 eth0",
        f"{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo",
    ]
    (tmp_path / "v6").write_text("\n".join(lines) + "\n")
    assert default_gateways(str(tmp_path / "v4"), str(tmp_path / "v6")) == {"172.17.0.1", "fe80::1"}


def test_a_machine_without_routes_or_proc(tmp_path):
    assert default_gateways(str(tmp_path / "none"), str(tmp_path / "none")) == frozenset()


def test_this_machine():
    assert all(ipaddress.ip_address(address) for address in default_gateways())
