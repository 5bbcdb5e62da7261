"""The soak's accounts: whatever was acknowledged is somewhere, or it is called lost."""

from __future__ import annotations

from bench.soak_ledger import Fate, Ledger


def content(number: int) -> bytes:
    return b"Received: by us\r\nX-Soak: %d\r\n\r\nhello\r\n" % number


def test_a_message_that_is_nowhere_is_lost() -> None:
    ledger = Ledger()
    for id in ("delivered", "queued", "gone"):
        ledger.acknowledged(ledger.begin(local=False), id)
    ledger.arrived(content(0), in_mailbox=False)
    assert list(ledger.lost({"queued"})) == [(2, "gone")]


def test_one_never_acknowledged_cannot_be_lost() -> None:
    ledger = Ledger()
    ledger.begin(local=True)
    assert not list(ledger.lost(set()))


def test_the_next_hop_may_have_it_before_the_client_is_told() -> None:
    ledger = Ledger()
    number = ledger.begin(local=False)
    ledger.arrived(content(number), in_mailbox=False)
    ledger.acknowledged(number, "early")
    assert not list(ledger.lost(set()))
    assert ledger.count(Fate.ACKNOWLEDGED) == ledger.count(Fate.DELIVERED) == 1


def test_mail_for_elsewhere_in_a_mailbox_is_its_report() -> None:
    ledger = Ledger()
    away, here = ledger.begin(local=False), ledger.begin(local=True)
    for number in (away, here):
        ledger.acknowledged(number, str(number))
        ledger.arrived(content(number), in_mailbox=True)
    assert (ledger.count(Fate.BOUNCED), ledger.count(Fate.DELIVERED)) == (1, 1)


def test_a_second_copy_is_counted() -> None:
    ledger = Ledger()
    ledger.acknowledged(ledger.begin(local=True), "twice")
    for _ in range(2):
        ledger.arrived(content(0), in_mailbox=True)
    assert ledger.repeated == 1
