"""Envelope addresses: RFC 5321 4.1.2 and 4.5.3.1, RFC 6531 3.3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.address import Address, AddressError, parse


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Alice@Example.TEST", "alice@example.test"),
        ('"alice"@example.test', "alice@example.test"),  # needless quotes name the same mailbox
        ('"a\\lice"@example.test', "alice@example.test"),  # so does a needless backslash
        ('"a b"@example.test', "a b@example.test"),
        ('"a@b"@example.test', "a@b@example.test"),
        ("user+tag@example.test", "user+tag@example.test"),
        ("postmaster@[127.0.0.1]", "postmaster@[127.0.0.1]"),
        ("postmaster@[IPv6:2001:db8::1]", "postmaster@[IPv6:2001:db8::1]"),
        ("grüße@exämple.test", "grüsse@xn--exmple-cua.test"),
        ("gru\u0308n@a.test", "gr\u00fcn@a.test"),
    ],
)
def test_one_mailbox_has_one_key(text: str, key: str) -> None:
    assert parse(text).key == key


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "alice", "@example.test", "alice@", "a..b@example.test", ".a@example.test", "a.@example.test",
        "a b@example.test", "a@b@example.test", "alice@exa mple.test", "alice@-example.test", "alice@example..test",
        "a(comment)@example.test", "=?utf-8?q?x?= @example.test", "alice@example.test\r\nRCPT", "alice@[1.2.3]",
        "a\x00b@example.test", '"a\x00b"@example.test', '"unclosed@example.test', "x" * 65 + "@example.test",
        "alice@" + "d" * 64 + ".test", "alice@" + "a." * 130 + "test", "a\u0085b@example.test",
        "a@[256.0.0.1]", "a@[\u0661.2.3.4]", "a@[1.2.3.4.5]", "a@[IPv6:::::]", "a@[IPv6:1.2.3.4]", "a@[::1]",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse(text)


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    try:
        address = parse(text)
    except AddressError:
        return
    assert not any(c in str(address) for c in "\r\n\x00")
    assert parse(str(address)) == address  # what we write, we read back as the same mailbox


def test_a_domain_travels_in_ascii_a_local_part_as_it_is() -> None:
    assert str(parse("grüße@exämple.test")) == "grüße@xn--exmple-cua.test"
    assert str(parse("gru\u0308n@a.test")) == "gru\u0308n@a.test"
    assert parse("alice@exämple.test") == Address("alice", "xn--exmple-cua.test")
