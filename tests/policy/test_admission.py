"""Who may send to whom: relaying needs a rule or a login, and nothing about the recipient replaces them."""

import itertools

import pytest

from mailserver.message.address import parse
from mailserver.message.envelope import Remote
from mailserver.policy import admission
from mailserver.policy.admission import Permit, Refuse, Unavailable
from mailserver.policy.explain import explain
from mailserver.policy.relay import RelayTable, Verdict
from mailserver.routing.directory import Directory, DomainEntry
from mailserver.routing.resolve import Loop, resolve

BOOK = Directory(
    domains={
        "a.test": DomainEntry(
            frozenset({"alice"}),
            {"team": ("alice@a.test", "out@x.test"), "x": ("y@a.test",), "y": ("x@a.test",)},
        )
    },
    postmaster="alice@a.test",
    default_domain="a.test",
)
TABLE = RelayTable.compile(
    [
        ("10.0.0.0/8", "relay", "config.toml:9 [[relay]] 10.0.0.0/8"),
        ("192.0.2.66", "reject", "config.toml:12 …"),
    ]
)
RELAY, ACCEPT, REJECT = (Verdict(action, "rule") for action in ("relay", "accept", "reject"))


def judge(verdict, authenticated, address):
    return admission.recipient(verdict, authenticated, resolve(BOOK, parse(address)))


@pytest.mark.parametrize(
    ("verdict", "authenticated"), [*itertools.product((RELAY, ACCEPT, REJECT), (False, True))]
)
def test_foreign_mail_needs_a_rule_or_a_login(verdict, authenticated):
    decision = judge(verdict, authenticated, "u@x.test")
    if verdict is REJECT:
        assert isinstance(decision, Refuse)
    elif verdict is RELAY or authenticated:
        assert isinstance(decision, Permit)
        assert decision.leaves[0].route == Remote("x.test")
    else:
        assert decision.reply.wire.startswith(b"550 5.7.1 ")


@pytest.mark.parametrize("verdict", [RELAY, ACCEPT])
@pytest.mark.parametrize(
    ("address", "start"),
    [("nobody@a.test", b"550 5.1.1 "), ("x@a.test", b"550 5.4.6 ")],
)
def test_refusals_of_our_own_addresses(verdict, address, start):
    assert judge(verdict, False, address).reply.wire.startswith(start)


def test_alias_written_by_us_may_leave():
    assert len(judge(ACCEPT, False, "team@a.test").leaves) == 2


@pytest.mark.parametrize(
    "recipient",
    [
        "u%x.test@a.test", '"u@x.test"@a.test', "u@[10.0.0.1]", "u@[IPv6:::1]", "x.test!u@a.test",
        '"x.test!u"@a.test',
        "u%x.test@b.test", "u@A.TEST.x.test", "postmaster@x.test", "alice@a.test.",
        "u@x.test@a.test", "@a.test:u@x.test",
    ],
)  # fmt: skip
def test_no_spelling_relays_for_strangers(recipient):
    """The classic open relay probes (FEATURES U04): percent hack, bang path, quoting, literals."""
    found = explain(BOOK, TABLE, sender="s@y.test", recipient=recipient, client="192.0.2.1")
    assert not found.permitted
    assert found.reply.startswith("5")


def test_temporary_trouble_is_temporary():
    assert admission.recipient(ACCEPT, False, Unavailable("busy")).reply.wire.startswith(b"451 4.3.0 ")


def test_long_or_foreign_loop_fits_into_a_reply_line():
    """RFC 5321 4.5.3.1.5: 512 octets with CRLF; and no UTF-8 for clients that did not ask for it."""
    for path in (tuple(f"{'n' * 50}{i}@a.test" for i in range(30)), ("ä@a.test", "ä@a.test")):
        wire = admission.recipient(ACCEPT, False, Loop(path, "alias loop", ())).reply.wire
        assert len(wire) <= 512
        assert wire.isascii()


def test_explanation_names_rule_steps_and_outcome():
    found = explain(BOOK, TABLE, sender="<>", recipient="<Team@a.test>", client="::ffff:10.1.2.3")
    assert found.text().splitlines() == [
        "::ffff:10.1.2.3 may connect and may send to any domain (config.toml:9 [[relay]] 10.0.0.0/8)",
        "team@a.test is an alias of alice@a.test, out@x.test",
        "alice@a.test is a mailbox",
        "out@x.test leaves to the mail hosts of x.test",
        "reply: 250 2.1.5 Ok",
        "→ alice@a.test: mailbox alice@a.test (via team@a.test)",
        "→ out@x.test: remote x.test (via team@a.test)",
    ]


def test_explanation_of_refusals():
    rejected = explain(BOOK, TABLE, sender="s@y.test", recipient="alice@a.test", client="192.0.2.66")
    assert (rejected.verdict, rejected.permitted, rejected.reply[:9]) == ("reject", False, "554 5.7.1")
    stranger = explain(BOOK, TABLE, sender="s@y.test", recipient="u@x.test", client="192.0.2.1")
    assert (stranger.rule, stranger.reply[:9]) == ("default", "550 5.7.1")
    logged_in = explain(
        BOOK, TABLE, sender="s@y.test", recipient="u@x.test", client="192.0.2.1", authenticated=True
    )
    assert logged_in.permitted
    assert explain(BOOK, TABLE, sender="bad", recipient="POSTMASTER", client="::1").reply.startswith(
        "501 5.1.7"
    )
    assert explain(BOOK, TABLE, sender="", recipient="POSTMASTER", client="::1").permitted
    with pytest.raises(ValueError, match="not-an-ip"):
        explain(BOOK, TABLE, sender="", recipient="POSTMASTER", client="not-an-ip")
