"""The manual is the code: every key is described, docs/configuration.md is what the code says."""

import re
from pathlib import Path

import pytest

from mailserver.config.describe import describe, markdown
from mailserver.config.guide import GUIDE
from mailserver.config.keys import walk
from mailserver.config.load import parse
from mailserver.config.recipients import Known

MANUAL = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_manual_is_what_the_code_says():
    told = "write it again with what mailserver.config.describe.markdown() returns"
    assert MANUAL.read_text("utf-8") == markdown(), told


def test_every_key_has_a_meaning():
    everything = describe()
    for name, field in walk():
        assert name in everything
        assert field.description or name in [
            "smtp",
            "submission",
            "lmtp",
            "pop3",
            "tls",
            "dns",
            "limits",
            "queue",
            "log",
        ]


def test_describe_one_key_and_one_table():
    assert describe("queue.retry") == (
        'queue.retry = ["5m", "15m", "1h", "3h"]\n'
        "    one or more of: time. Waits between attempts; the last repeats. One value may stand alone.\n"
    )
    assert describe("limits.message_size").startswith('limits.message_size = "50 MiB"\n    size. ')
    assert describe("pop3.expire").startswith('pop3.expire = "never"\n    time or "never". ')
    assert describe("pop3.accounts.login_delay").startswith(
        'pop3.accounts."…".login_delay = none\n    time. '
    )
    assert describe('domains."a.b.test".catch_all') == describe("domains.catch_all")
    assert describe("relay").count("\n\n") == 3


def test_unknown_key_is_guessed():
    with pytest.raises(LookupError, match=r'did you mean "queue\.retry"'):
        describe("queue.retri")


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL))
def test_examples_of_the_manual_load(example):
    text = example if "hostname" in example else f'hostname = "mail.example.test"\n{example}'
    assert parse(text, "c.toml", known=lambda config: Known()).warnings == ()
