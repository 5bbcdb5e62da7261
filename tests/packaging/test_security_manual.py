"""docs/security.md names a test for each promise: they exist, and its numbers are the configuration's defaults."""

import re
from pathlib import Path

from mailserver.config.schema import Config

PROJECT = Path(__file__).resolve().parents[2]
TEXT = (PROJECT / "docs" / "security.md").read_text()


def test_every_test_that_is_named_exists():
    named = set(re.findall(r"`([a-z0-9]+/test_\w+\.py)`", TEXT))
    assert len(named) > 15
    assert not [name for name in sorted(named) if not (PROJECT / "tests" / name).is_file()]


def test_every_module_that_is_named_exists():
    named = set(re.findall(r"`((?:policy|host|accounts)/(?!test_)\w+\.py)`", TEXT))
    assert named
    assert not [name for name in sorted(named) if not (PROJECT / "mailserver" / name).is_file()]


def test_numbers_are_the_defaults():
    config = Config()
    words = " ".join(TEXT.split())
    assert f"{config.rates.connections_per_minute:,} new ones a minute from one address" in words
    assert (
        f"{config.rates.messages_per_hour:,} messages or {config.rates.recipients_per_hour:,} recipients"
        in words
    )
    assert (
        f"Connections: {config.limits.connections:,} a service, {config.limits.connections_per_address:,}"
        in words
    )
    assert f"up to {config.guard.forgiven_per_hour} failures an hour" in words
    assert (config.guard.free_failures, config.guard.accounts_per_address, config.guard.longest_delay) == (
        3,
        5,
        30,
    )
    assert (config.guard.forget, config.guard.good_login) == (3600, 7 * 86400)
