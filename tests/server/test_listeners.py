"""What the others ask the listeners, also while the server drains."""

import socket
import subprocess
import sys

import pytest

from mailserver.config.schema import Config
from mailserver.listeners import Listeners


@pytest.mark.parametrize(
    ("listen", "ours", "not_ours"),
    [
        ("127.0.0.1", ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0"], ["127.0.0.2", "::1", "::"]),
        ("::1", ["::1", "::"], ["127.0.0.1", "0.0.0.0"]),
        ("0.0.0.0", ["127.0.0.1", "127.0.0.2", "::ffff:127.0.0.1"], ["::1", "192.0.2.9"]),
        ("::", ["::1", "::"], ["127.0.0.1", "2001:db8::9"]),
    ],
)
def test_our_own_in_whatever_form_dns_gives_it(listen, ours, not_ours):
    """An exchanger with such an address is us, in every form the kernel connects to us for, and only then."""
    address = f"[{listen}]:0" if ":" in listen else f"{listen}:0"
    listeners = Listeners(Config.model_validate({"smtp": {"listen": [address]}, "pop3": {"enabled": False}}))
    (listener,), _ = listeners.take("smtp")
    port = listener.getsockname()[1]
    assert [a for a in [*ours, *not_ours] if listeners.is_own(a, port)] == ours
    for a in ours:
        with socket.create_connection((a, port)):
            pass
    listener.close()


def test_a_closed_listener_is_nobodys_and_asking_is_no_fault():
    """Deliveries and the control socket go on for a while after the listeners were closed."""
    config = Config.model_validate({"smtp": {"listen": ["127.0.0.1:0"]}, "submission": {"enabled": False},
                                    "pop3": {"enabled": False}})  # fmt: skip
    listeners = Listeners(config)
    (listener,), _ = listeners.take("smtp")
    host, port = listener.getsockname()
    assert listeners.is_own(host, port) and listeners.shown() == (f"smtp {host}:{port}",)
    listener.close()
    assert not listeners.is_own(host, port)
    assert listeners.shown() == () and listeners.described(config.proxy) == []


def test_an_interface_that_went_takes_nothing_with_it_but_its_address():
    """A listener on its link-local address stays; what asks the listeners, deliveries among them, must not fail."""
    script = """if True:
        import subprocess
        from mailserver.config.schema import Config
        from mailserver.listeners import Listeners

        for command in ("add d0 type veth", "set d0 up"):
            subprocess.run(["ip", "link", *command.split()], check=True)
        subprocess.run("ip addr add fe80::1/64 dev d0 nodad".split(), check=True)
        listeners = Listeners(Config.model_validate({
            "smtp": {"listen": ["[fe80::1%d0]:2525"]}, "submission": {"enabled": False}, "pop3": {"enabled": False}}))
        print(*listeners.shown())
        subprocess.run("ip link del d0".split(), check=True)
        print(listeners.is_own("192.0.2.1", 25), len(listeners.shown()))
    """
    possible = "ip link add d0 type veth && ip addr add fe80::1/64 dev d0 nodad"
    if subprocess.run(["unshare", "-n", "sh", "-c", possible], check=False, capture_output=True).returncode:
        pytest.skip("not allowed to make an interface")
    command = ["unshare", "-n", sys.executable, "-c", script]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert run.stdout == "smtp [fe80::1%d0]:2525\nFalse 1\n"
