"""What the others ask the listeners, also while the server drains."""

import socket

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
