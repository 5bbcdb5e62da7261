"""What the others ask the listeners, also while the server drains."""

from mailserver.config.schema import Config
from mailserver.listeners import Listeners


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
