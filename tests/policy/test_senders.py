"""Which senders an account may use (RFC 6409 6.1)."""

import pytest

from mailserver import reply
from mailserver.message.address import AddressError, parse
from mailserver.policy.admission import Unavailable
from mailserver.policy.submission import Senders, sender_answer, sender_key
from mailserver.routing.directory import Directory, DomainEntry
from mailserver.routing.resolve import resolve

ALICE = "alice@example.test"
DIRECTORY = Directory(
    {
        "example.test": DomainEntry(
            frozenset({"alice", "bob"}),
            {"team": ("alice@example.test", "x@remote.test"), "away": ("x@remote.test",)},
            catch_all="alice@example.test",
        )
    },
    postmaster="bob@example.test",
)


@pytest.mark.parametrize(
    ("pattern", "sender", "allowed"),
    [
        ("news@Remote.test", "News@remote.test", True),
        ("news@remote.test", "other@remote.test", False),
        ("*@remote.test", "other@REMOTE.test", True),
        ("*@remote.test", "other@sub.remote.test", False),
        ("*@bücher.test", "a@xn--bcher-kva.test", True),
        ("*", "any@where.test", True),
    ],
)
def test_what_the_configuration_gives(pattern, sender, allowed):
    senders = Senders({"Alice@Example.test": (pattern,)})
    assert senders.names(ALICE, parse(sender)) is allowed
    assert not senders.names("bob@example.test", parse(sender))


def test_its_own_address_in_any_spelling():
    assert Senders({}).names(ALICE, parse('"ALICE"@EXAMPLE.test'))
    assert not Senders({}).names(ALICE, parse("alice@remote.test"))


@pytest.mark.parametrize(
    ("sender", "allowed"),
    [
        ("team@example.test", True),
        ("whoever@example.test", True),  # the catch-all is alice's
        ("postmaster@example.test", False),
        ("away@example.test", False),
        ("bob@example.test", False),
        ("x@remote.test", False),
    ],
)
def test_what_leads_to_the_mailbox(sender, allowed):
    rule, answer = sender_answer(resolve(DIRECTORY, parse(sender)), ALICE)
    assert answer == (reply.SENDER_OK if allowed else reply.SENDER_NOT_YOURS)
    assert (rule == "") is allowed


def test_a_backend_that_is_down_refuses_nobody_for_good():
    assert sender_answer(Unavailable("sql is away"), ALICE) == ("sql is away", reply.SENDER_LOOKUP_FAILED)
    assert reply.SENDER_LOOKUP_FAILED.code == 451


@pytest.mark.parametrize("text", ["", "*@", "alice", "*@*", "a b@c.test", "*x"])
def test_what_is_no_sender(text):
    with pytest.raises(AddressError):
        sender_key(text)
