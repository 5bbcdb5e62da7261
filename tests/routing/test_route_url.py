"""[routes] URLs: scheme, host, port; refusals say what would be right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.routing.route_url import RouteError, RouteUrl, parse


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("smtp://127.0.0.1:2526", ("smtp", "127.0.0.1", 2526)),
        ("SMTP://Relay.Example", ("smtp", "relay.example", 25)),
        ("smtps://relay.example/", ("smtps", "relay.example", 465)),
        ("lmtp://[::1]", ("lmtp", "::1", 24)),
        ("lmtp://[2001:DB8::1]:2424", ("lmtp", "2001:db8::1", 2424)),
    ],
)
def test_routes(text, parts):
    assert parse(text) == RouteUrl(*parts)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("relay.example:25", "no route"),
        ("http://relay.example", "none of smtp"),
        ("smtp://user:secret@relay.example", "user names"),
        ("smtp://", "no host"),
        ("smtp://::1:25", "no host"),
        ("smtp://[::g]:25", "no host"),
        ("smtp://relay.example:0", 'port "0"'),
        ("smtp://relay.example:65536", 'port "65536"'),
        ("smtp://relay.example:", 'port ""'),
        ("smtp://relay.example/path", "no host"),
        ("smtp://a..b", "no host"),
    ],
)
def test_refused_routes(text, wrong):
    with pytest.raises(RouteError) as caught:
        parse(text)
    assert wrong in caught.value.wrong
    assert caught.value.right


@given(st.text(max_size=30) | st.text(max_size=20).map("smtp://".__add__))
def test_any_text_is_parsed_or_refused(text):
    try:
        assert 1 <= parse(text).port <= 65535
    except RouteError as error:
        assert error.wrong
