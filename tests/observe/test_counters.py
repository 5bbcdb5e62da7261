"""Counters: the numbers of `mailserver status`."""

from mailserver import events
from mailserver.observe.counters import Counters


def test_sessions_are_counted_by_service_and_messages_together():
    counters = Counters()
    for event in (
        events.SessionOpened("smtp", 1, "192.0.2.1"),
        events.SessionOpened("smtp", 2, "192.0.2.2"),
        events.SessionRefused("pop3", "192.0.2.9", "421 4.7.0 too many"),
        events.Accepted("A", 1, "192.0.2.1", None, ("a@x.test", "b@x.test"), 100),
        events.DeliveredTo("A", "a@x.test"),
        events.DeferredFor("A", "b@x.test", "451", "4.0.0", 1, 0.0),
        events.FailedFor("A", "b@x.test", "550", "5.1.1"),
        events.Bounced("A", "B", "failure", ("b@x.test",)),
        events.Dropped("A", "b@x.test", "null sender"),
        events.Removed("A"),
        events.Notice("app", "not counted"),
        events.SessionClosed("smtp", 1, "192.0.2.1", "quit", 0.5, messages=1, bytes_in=140, bytes_out=300),
    ):
        counters.see(event)
    numbers = counters.snapshot()
    assert numbers["sessions"]["smtp"] == {
        "open": 1, "total": 2, "refused": 0, "commands_refused": 0, "logins": 0, "login_failures": 0,
        "bytes_in": 140, "bytes_out": 300,
    }  # fmt: skip
    assert numbers["sessions"]["pop3"]["refused"] == 1
    assert {key: numbers[key] for key in ("accepted", "accepted_recipients", "accepted_bytes")} == {
        "accepted": 1, "accepted_recipients": 2, "accepted_bytes": 100,
    }  # fmt: skip
    for key in ("delivered", "deferred", "failed", "bounced", "dropped", "removed"):
        assert numbers[key] == 1, key
    assert numbers["problems"] == 0
