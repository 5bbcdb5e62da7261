"""Delivery reports, read back by the standard library's parser (RFC 3461, 3462, 3464, 6533)."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.deliver import bounce
from mailserver.message.envelope import Deferred, Delivered, Envelope, Failed, Local, Recipient, Remote

NOW = 1_700_000_000.0
HEADERS = b"Received: by mx\nFrom: alice@example.test\nSubject: hello\n"
MESSAGE = HEADERS + b"\nThe text.\n"
REFUSED = Failed("550 5.1.1 no such user", "5.1.1", "mx.remote.test [192.0.2.1]:25")


def envelope(message: bytes = MESSAGE, **changes: object) -> Envelope:
    made = Envelope(
        id="ID1", sender="alice@example.test", recipients=[], accepted=NOW - 7200, size=len(message)
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def recipient(address: str = "bob@remote.test", **changes: object) -> Recipient:
    made = Recipient(id=0, address=address, route=Remote("remote.test"))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def compose(
    env: Envelope,
    recipients: list,
    kind: bounce.Kind = "failure",
    original: bytes = MESSAGE,
    until: float | None = None,
) -> bytes:
    return bounce.compose(
        env, recipients, kind=kind, original=original, hostname="mail.example.test", id="ID2", now=NOW,
        will_retry_until=until,
    )  # fmt: skip


def read(report: bytes) -> tuple[EmailMessage, EmailMessage, EmailMessage, EmailMessage]:
    message = email.message_from_bytes(report, policy=email.policy.default)
    assert not message.defects
    assert message.get_content_type() == "multipart/report"
    human, status, original = message.iter_parts()
    return message, human, status, original


def test_a_failure_report_tells_people_and_programs_what_happened():
    env = envelope(envid="abc+2B1")
    to = recipient(orcpt="rfc822;Bob+2Bx@remote.test", alias="team@example.test")
    report = compose(env, [(to, REFUSED), (recipient("eve@remote.test"), REFUSED)])
    message, human, status, original = read(report)
    assert report.isascii()
    assert message["To"] == "alice@example.test"
    assert message["From"].addresses[0].addr_spec == "MAILER-DAEMON@mail.example.test"
    assert message["Auto-Submitted"] == "auto-replied"  # RFC 3834 5
    assert message["Date"].datetime.timestamp() == NOW
    assert message["Message-ID"] and message["MIME-Version"] == "1.0" and message["Subject"]
    assert message.get_param("report-type") == "delivery-status"
    assert "550 5.1.1 no such user" in human.get_content() and "team@example.test" in human.get_content()
    per_message, bob, eve = status.get_payload()
    assert per_message["Original-Envelope-Id"] == "abc+1"
    assert per_message["Reporting-MTA"] == "dns; mail.example.test"
    assert per_message["Arrival-Date"]
    assert bob["Original-Recipient"] == "rfc822; Bob+x@remote.test"  # RFC 3461 6.3: decoded
    assert eve["Original-Recipient"] is None
    assert bob["Final-Recipient"] == "rfc822; bob@remote.test"
    assert bob["Action"] == "failed"
    assert bob["Status"] == "5.1.1"
    assert bob["Remote-MTA"] == "dns; mx.remote.test"
    assert bob["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert bob["Last-Attempt-Date"] and bob["Will-Retry-Until"] is None
    assert original.get_content_type() == "message/rfc822"


@pytest.mark.parametrize(
    ("remote", "named"),
    [
        ("mx.remote.test[192.0.2.1]:25", "mx.remote.test"),
        ("192.0.2.1[192.0.2.1]:25", "[192.0.2.1]"),
        ("2001:db8::1[2001:db8::1]:25", "[IPv6:2001:db8::1]"),
    ],
)
def test_the_remote_host_is_a_domain_or_an_address_literal(remote, named):
    refused = Failed("550 5.1.1 no such user", "5.1.1", remote)
    _, _, status, _ = read(compose(envelope(), [(recipient(), refused)]))
    assert status.get_payload()[1]["Remote-MTA"] == f"dns; {named}"


def test_eight_bit_content_inside_is_declared_outside():
    """RFC 2045 6.4: what encloses an 8bit part is 8bit itself."""
    written = "Subject: x\n\nнет\n".encode()
    message, _, _, original = read(compose(envelope(written), [(recipient(), REFUSED)], original=written))
    assert message["Content-Transfer-Encoding"] == original["Content-Transfer-Encoding"] == "8bit"
    assert read(compose(envelope(), [(recipient(), REFUSED)]))[0]["Content-Transfer-Encoding"] is None


@pytest.mark.parametrize(
    ("ret", "size", "kind", "whole"),
    [
        (None, 1000, "failure", True),
        (None, 100_000, "failure", False),
        ("FULL", 100_000, "failure", True),
        ("FULL", (1 << 20) + 1, "failure", False),
        ("HDRS", 1000, "failure", False),
        ("FULL", 1000, "delay", False),  # RFC 3461 4.3: RET is about failures
        ("FULL", 1000, "success", False),
    ],
)
def test_ret_decides_how_much_comes_back(ret, size, kind, whole):
    message = MESSAGE + b"x\n" * ((size - len(MESSAGE)) // 2)
    env = envelope(message, ret=ret)
    given_part = message[: bounce.original_limit(env, kind)]
    outcome = Delivered("250 ok") if kind == "success" else REFUSED
    *_, original = read(compose(env, [(recipient(), outcome)], kind, given_part))
    if whole:
        assert original.get_content_type() == "message/rfc822"
        assert original.get_content().as_bytes() == message
    else:
        assert original.get_content_type() == "text/rfc822-headers"
        assert original.get_payload() == HEADERS.decode()


def test_a_delay_report_says_until_when_we_try():
    late = Deferred("connection refused", "4.4.1")
    _, human, status, _ = read(compose(envelope(), [(recipient(), late)], "delay", until=NOW + 86400))
    _, bob = status.get_payload()
    assert (bob["Action"], bob["Status"]) == ("delayed", "4.4.1")
    assert bob["Diagnostic-Code"] == "x-mailserver; connection refused"  # no SMTP server said that
    assert bob["Will-Retry-Until"] == email.utils.formatdate(NOW + 86400, localtime=True)
    assert "send it again" in human.get_content()


@pytest.mark.parametrize(
    ("age", "words"),
    [(0.4, "just now"), (59, "just now"), (60, "1 minute ago"), (7199, "1 hour ago"), (7200, "2 hours ago"),
     (432_000, "5 days ago")],
)  # fmt: skip
def test_nobody_is_said_to_have_said_what_nobody_said(age, words):
    refused = Deferred("connection refused while connecting", "4.4.1", "mx.remote.test[192.0.2.1]:25")
    said = Deferred("451 4.3.0 later", "4.3.0", "mx.remote.test[192.0.2.1]:25")
    to = [(recipient(), refused), (recipient("eve@remote.test"), said)]
    _, human, status, _ = read(compose(envelope(accepted=NOW - age), to, "delay"))
    assert "\n    mx.remote.test[192.0.2.1]:25: connection refused" in human.get_content()
    assert "mx.remote.test[192.0.2.1]:25 said: 451 4.3.0 later" in human.get_content()
    assert f", {words}, as ID1." in human.get_content()
    _, bob, eve = status.get_payload()
    assert (bob["Remote-MTA"], eve["Remote-MTA"]) == (None, "dns; mx.remote.test")  # RFC 3464 2.3.5


def test_who_was_tried_until_the_end_is_told_so():
    late = Failed("connection refused while connecting", "4.4.1", "mx.remote.test [192.0.2.1]:25")
    report = compose(
        envelope(accepted=NOW - 5 * 86400), [(recipient(), late), (recipient("e@x.test"), REFUSED)]
    )
    text = " ".join(read(report)[1].get_content().split())
    given_up = (
        "<bob@remote.test> given up after 5 days, at last: mx.remote.test [192.0.2.1]:25: connection refused"
    )
    assert given_up in text
    assert "<e@x.test> mx.remote.test [192.0.2.1]:25 said: 550 5.1.1" in text


def test_success_is_delivered_here_and_relayed_elsewhere():
    local = recipient("carol@example.test", route=Local("carol@example.test"))
    outcomes = [(local, Delivered("in the mailbox")), (recipient(), Delivered("250 ok", "mx.remote.test"))]
    _, _, status, _ = read(compose(envelope(), outcomes, "success"))
    _, carol, bob = status.get_payload()
    assert (carol["Action"], carol["Status"]) == ("delivered", "2.0.0")
    assert (bob["Action"], bob["Status"]) == ("relayed", "2.0.0")


def test_internationalised_addresses_stay_seven_bit_in_the_machine_part():
    """RFC 6533 3: utf-8-addr-xtext."""
    written = "From: δ@example.test\n\nтекст\n".encode()
    env = envelope(written, smtputf8=True, sender="δ@example.test")
    to = recipient("дм+x@remote.test", orcpt="utf-8;дм@remote.test")
    report = compose(env, [(to, REFUSED)], original=written)
    message, human, status, original = read(report)
    _, person = status.get_payload()
    assert person["Final-Recipient"] == r"utf-8; \x{434}\x{43C}\x{2B}x@remote.test"
    assert person["Original-Recipient"] == r"utf-8; \x{434}\x{43C}@remote.test"
    assert "дм+x@remote.test" in human.get_content()
    assert str(message["To"]) == "δ@example.test"
    assert original.get_content_type() == "message/global"


@pytest.mark.parametrize(
    ("subject", "media"),
    [("naïve".encode(), "message/global-headers"), ("naïve".encode("latin-1"), "text/rfc822-headers")],
)
def test_eight_bit_headers_come_back_in_seven_bits(subject, media):
    original = b"Subject: " + subject + b"\n\nbody\n"
    report = compose(envelope(original, ret="HDRS"), [(recipient(), REFUSED)], original=original)
    assert report.isascii()
    *_, part = read(report)
    assert part.get_content_type() == media
    assert part["Content-Transfer-Encoding"] == "quoted-printable"
    assert b"Subject: " + subject + b"\n" in _decoded(report)


def _decoded(report: bytes) -> bytes:
    import quopri

    return quopri.decodestring(report.split(b"quoted-printable\n\n", 1)[1])


@pytest.mark.parametrize("odd", [b"x" * 5000, b"bare\rCR", b"nul\0"])
def test_what_may_not_travel_unencoded_comes_back_as_headers(odd):
    original = HEADERS + b"\n" + odd + b"\n"
    *_, part = read(compose(envelope(original, ret="FULL"), [(recipient(), REFUSED)], original=original))
    assert part.get_content_type() == "text/rfc822-headers"


@pytest.mark.parametrize(
    ("notify", "failure", "delay", "success"),
    [
        ((), True, True, False),  # RFC 3461 6.2.1: not given = FAILURE, and DELAY as we please
        (("NEVER",), False, False, False),
        (("FAILURE",), True, False, False),
        (("SUCCESS", "DELAY"), False, True, True),
    ],
)
def test_notify_decides_which_reports_are_sent(notify, failure, delay, success):
    to = recipient(notify=notify)
    for kind, wanted in (("failure", failure), ("delay", delay), ("success", success)):
        assert bounce.wants_report(to, kind, "alice@example.test") is wanted
        assert bounce.wants_report(to, kind, None) is False


hostile = st.text(st.one_of(st.characters(), st.sampled_from("\r\n\t -=;:<>\0\x7f\u2028")), max_size=1500)


@given(
    reply=hostile,
    remote=hostile,
    orcpt=hostile,
    envid=hostile,
    status=hostile,
    original=st.binary(max_size=2000),
)
def test_nothing_from_outside_can_forge_a_field_or_a_part(reply, remote, orcpt, envid, status, original):
    env = envelope(original, ret="FULL", envid=envid)
    outcome = Failed(reply, status, remote)
    to = recipient(orcpt=orcpt)
    report = compose(env, [(to, outcome), (recipient("eve@remote.test"), REFUSED)], original=original)
    assert b"\r" not in report and b"\0" not in report
    assert max(map(len, report.split(b"\n"))) <= 998
    _, _, part, _ = read(report)
    fields, bob, eve = part.get_payload()
    assert set(fields.keys()) <= {"Original-Envelope-Id", "Reporting-MTA", "Arrival-Date"}
    assert bob.get_all("Final-Recipient") == ["rfc822; bob@remote.test"]
    assert bob.get_all("Action") == ["failed"]
    assert eve.get_all("Diagnostic-Code") == ["smtp; 550 5.1.1 no such user"]
    assert len(bob.keys()) == len(set(bob.keys()))


@given(headers=st.binary(max_size=3000))
def test_any_original_is_returned_or_cut_but_never_lost_or_changed(headers):
    original = headers.replace(b"\r", b"") + b"\n\nbody"
    part = compose(envelope(original, ret="HDRS"), [(recipient(), REFUSED)], original=original)
    section = part.rsplit(b"\n--=_", 2)[1].split(b"\n\n", 1)
    expected = bounce._headers(original)
    got = section[1]
    if b"quoted-printable" in section[0]:
        import quopri

        got = quopri.decodestring(got)
    assert got == expected
