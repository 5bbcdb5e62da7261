"""The watch over certificate files: renewals are taken, faults and ends are said once."""

import datetime
import shutil

import pytest
import trustme
from tls_rooms import names, shown, trusting_client

from mailserver.config import schema
from mailserver.events import Notice, Problem, Warned
from mailserver.host import tls
from mailserver.host.certificate_watch import INTERVAL, CertificateWatch

NOW = 1_795_000_000.0


@pytest.fixture
def room(tmp_path):
    """(issue, settings, context, check, heard); check() looks when the interval is over."""
    authority, heard, time = trustme.CA(), [], [NOW]

    def issue(name, days=365):
        until = datetime.datetime.fromtimestamp(NOW, datetime.UTC) + datetime.timedelta(days=days)
        pair = authority.issue_cert(name, not_after=until)
        pair.private_key_and_cert_chain_pem.write_to_path(tmp_path / "new.pem")
        shutil.move(tmp_path / "new.pem", tmp_path / "pair.pem")

    issue("one.test")
    settings = schema.Tls(certificate=tmp_path / "pair.pem")
    context = tls.server_context(settings, str(tmp_path), "one.test")
    watch = CertificateWatch([context], heard.append)

    def check(seconds=INTERVAL):
        time[0] += seconds
        watch.check(settings, str(tmp_path), time[0])

    return issue, tmp_path / "pair.pem", context, check, heard


def test_a_renewal_is_taken_within_the_interval(room):
    issue, _, context, check, heard = room
    check()
    assert heard == []
    issue("two.test")
    check(1)
    assert names(shown(context, trusting_client())) == ["one.test"]
    check()
    assert names(shown(context, trusting_client())) == ["two.test"]
    (event,) = heard
    assert isinstance(event, Notice)
    assert "two.test until 20" in event.text


def test_a_fault_is_said_when_it_lasts_and_once(room):
    issue, path, context, check, heard = room
    path.write_text("torn")
    check()
    assert heard == []
    for _ in range(5):
        check()
    (event,) = heard
    assert isinstance(event, Problem)
    assert "pair.pem" in event.text
    assert names(shown(context, trusting_client())) == ["one.test"]
    issue("two.test")
    check()
    assert isinstance(heard[-1], Notice)


def test_the_end_in_sight_is_said_once_for_each_certificate(room):
    issue, _, _, check, heard = room
    issue("short.test", days=10)
    for _ in range(3):
        check()
    assert [type(event) for event in heard] == [Notice, Warned]
    assert "short.test ends on" in heard[1].text
    issue("over.test", days=-1)
    check()
    assert "over.test has ended" in heard[-1].text


def test_a_clock_set_back_does_not_stop_it(room):
    issue, _, context, check, _ = room
    check()
    issue("two.test")
    check(-100_000)
    assert names(shown(context, trusting_client())) == ["two.test"]
