"""A header in UTF-8 for clients that take ASCII: RFC 6858, read back with the email package."""

from __future__ import annotations

from email import message_from_bytes
from email.header import decode_header, make_header

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mailserver.pop3.surrogate import header_end, is_conventional, to_ascii

lines = st.lists(
    st.sampled_from(["Subject", "From", "To", "Content-Type", "Received", "X-Y", "ü", ": ", " ", "\t", ";", "=", '"',
                     "name", "<ü@b.test>", "a@b.test", ",", "(", ")", "\r", "\\", "=?utf-8?B?w7w=?=",
                     "\u2028", "\u00a0", "\0"])
    | st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=40),
    max_size=8,
).map("".join)  # fmt: skip
headers = st.lists(lines, max_size=8).map(lambda some: "".join(f"{line}\n" for line in some).encode())
texts = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=120)


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("Subject: plain\nX: =?x?=\n", "Subject: plain\nX: =?x?=\n"),  # what is ASCII keeps its octets
        ("Subject: ü\n", "Subject: =?utf-8?B?w7w=?=\n"),
        ("Subject: ü\r\nTo: a@b.c\r\n", "Subject: =?utf-8?B?w7w=?=\r\nTo: a@b.c\r\n"),
        ("Subject:\n ü\n\tü\n", "Subject: =?utf-8?B?w7wJw7w=?=\n"),
        ("To: ü <a@b.test>, c@d.test\n", "To: =?utf-8?B?w7w=?= <a@b.test>,\n c@d.test\n"),
        ('To: "A, B" <a@b.test>, ü <c@d.test>\n', 'To: "A, B" <a@b.test>,\n =?utf-8?B?w7w=?= <c@d.test>\n'),
        ("Cc: A <ü@b.test>\n", "Cc: =?utf-8?B?QSDDvEBiLnRlc3Q=?= <invalid@internationalized-address.invalid>\n"),
        ("From: ü\n", "Downgraded-From: =?utf-8?B?w7w=?=\n"),  # no address at all
        ("References: <ü@b.test>\n", "Downgraded-References: =?utf-8?B?PMO8QGIudGVzdD4=?=\n"),
        ("Content-Type: a/b; name=ü; x=y\n", "Content-Type: a/b;\n name*=utf-8''%C3%BC; x=y\n"),
        ('Content-Disposition: attachment; filename="a\\"ü"\n',
         "Content-Disposition: attachment;\n filename*=utf-8''a%22%C3%BC\n"),
        ("Content-Type: a/b; name=\u00a0\n", "Content-Type: a/b;\n name*=utf-8''%C2%A0\n"),
        ("Subject: \u2003\n", "Subject: =?utf-8?B?4oCD?=\n"),
        ("Content-Type: a/b; name*=utf-8''ü\n", "Content-Type: a/b\n"),
        ("Content-Type: ü/b; x=y\n", "Downgraded-Content-Type: =?utf-8?B?w7wvYjsgeD15?=\n"),
        ("ü: x\n", "Downgraded: =?utf-8?B?w7w6IHg=?=\n"),
        ("ü\n", "Downgraded: =?utf-8?B?w7w=?=\n"),
    ],
)  # fmt: skip
def test_fields(stored: str, shown: str) -> None:
    assert to_ascii(stored.encode()).decode() == shown


def test_what_is_no_utf8_stays() -> None:
    header = b"Subject: gr\xfc\xdfe\nFrom: \xff <a@b.test>\n"
    assert to_ascii(header) == header


@given(texts)
def test_a_text_is_read_as_it_was_written(text: str) -> None:
    shown = to_ascii(f"Subject: {text}\n".encode()).decode("ascii")
    assert str(make_header(decode_header(shown.removeprefix("Subject: ").strip()))) == text
    assert max(map(len, shown.split("\n"))) <= 76 or text.isascii()


@given(
    st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters='"\\'), min_size=1, max_size=200)
)
def test_a_file_name_is_read_as_it_was_written(name: str) -> None:
    assume(not (name[0] == "<" and name[-1] == ">"))  # email.utils.unquote takes these off, too
    shown = to_ascii(f'Content-Disposition: attachment; filename="{name}"\n'.encode())
    assert message_from_bytes(shown).get_filename() == name
    assert max(map(len, shown.split(b"\n"))) <= 998


@given(headers)
def test_any_header_becomes_ascii_and_keeps_its_shape(header: bytes) -> None:
    shown = to_ascii(header)
    assert shown.isascii()
    assert to_ascii(shown) == shown
    if header_end(header + b"\nbody") == len(header):  # no empty line within
        assert header_end(shown + b"\nbody") == len(shown)


@given(st.binary(max_size=200))
def test_any_octets_are_borne(header: bytes) -> None:
    fields = to_ascii(header)
    assert fields == header or not header.isascii()


@pytest.mark.parametrize(
    ("message", "end"),
    [
        (b"a: b\n\nbody\n\n", 5), (b"a: b\r\n\r\nbody\n\n", 6), (b"\nbody\n\n", 0), (b"\r\nbody", 0),
        (b"a: b\n", None), (b"", None), (b"a: b\n\r\nbody\n\n", 5),
    ],
)  # fmt: skip
def test_where_a_header_ends(message: bytes, end: int | None) -> None:
    assert header_end(message) == end


def test_only_internationalized_headers_need_conversion() -> None:
    trace = b"Received: from a.test by b.test\n\twith UTF8SMTPSA id 1;\n"
    assert not is_conventional(trace + b"Subject: \xc3\xbc\n\n")
    assert not is_conventional(trace + b"Subject: \xc3\xbc\n")
    assert is_conventional(trace + b"Subject: x\n\n\xc3\xbc\n")
    assert is_conventional(b"\n\xc3\xbc\n")
    assert is_conventional(b"Received: by b.test with ESMTP;\nSubject: \xc3\xbc\n\n with UTF8SMTP\n")


def test_addresses_by_the_thousand_are_not_parsed() -> None:
    header = ("To: ü " + "(" * 100_000 + "\n").encode()
    assert to_ascii(header).startswith(b"Downgraded-To: =?utf-8?B?")
