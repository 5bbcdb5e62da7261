"""TLS contexts: real handshakes in memory."""

import os
import shutil
import ssl
import stat

import pytest
import trustme
from tls_rooms import handshake, names, shown, trusting_client

from mailserver.config import schema
from mailserver.host import tls


def common_name(certificate):
    return certificate.subject.rfc4514_string()


def test_at_first_start_a_self_signed_pair_is_made_and_then_kept(tmp_path):
    context = tls.server_context(schema.Tls(), str(tmp_path), "mail.example.test")
    ours, _ = handshake(context, trusting_client())
    assert ours.version() == "TLSv1.3"
    first = shown(context, trusting_client())
    assert common_name(first) == "CN=mail.example.test"
    key = tmp_path / "tls" / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    again = tls.server_context(schema.Tls(), str(tmp_path), "mail.example.test")
    assert shown(again, trusting_client()) == first
    assert not again.refresh(schema.Tls(), str(tmp_path))


@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_a_pair_that_a_power_failure_left_incomplete_is_made_anew(tmp_path, damage):
    tls.server_context(schema.Tls(), str(tmp_path), "mail.example.test")
    certificate = tmp_path / "tls" / "certificate.pem"
    if damage == "missing":
        certificate.unlink()
    else:
        certificate.write_bytes(certificate.read_bytes()[:100])
    os.chmod(tmp_path / "tls" / "key.pem", 0o644)
    context = tls.server_context(schema.Tls(), str(tmp_path), "mail.example.test")
    assert handshake(context, trusting_client())
    assert stat.S_IMODE((tmp_path / "tls" / "key.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "hostname", ["localhost", "münchen.example", "not a name", "x" * 60 + ".example.test"]
)
def test_any_hostname_gives_a_usable_certificate(tmp_path, hostname):
    assert handshake(tls.server_context(schema.Tls(), str(tmp_path), hostname), trusting_client())


def test_old_protocols_are_refused(tmp_path):
    server = tls.server_context(schema.Tls(), str(tmp_path), "mail.example.test")
    assert server.minimum_version == ssl.TLSVersion.TLSv1_2
    assert server.num_tickets == 1


@pytest.fixture
def issued(tmp_path):
    """A configured certificate, and how to renew it."""

    def issue(name):
        pair = trustme.CA().issue_cert(name)
        pair.private_key_and_cert_chain_pem.write_to_path(tmp_path / "new.pem")
        shutil.move(tmp_path / "new.pem", tmp_path / "pair.pem")

    issue("one.example.test")
    return issue, schema.Tls(certificate=tmp_path / "pair.pem")


def test_a_renewed_certificate_is_taken_over_by_the_live_context(tmp_path, issued):
    issue, settings = issued
    context = tls.server_context(settings, str(tmp_path), "mail.example.test")
    assert names(shown(context, trusting_client())) == ["one.example.test"]
    assert context.refresh(settings, str(tmp_path)) is False
    issue("two.example.test")
    assert context.refresh(settings, str(tmp_path)) is True
    assert names(shown(context, trusting_client())) == ["two.example.test"]


def test_a_broken_renewal_is_said_and_the_old_certificate_stays(tmp_path, issued):
    issue, settings = issued
    context = tls.server_context(settings, str(tmp_path), "mail.example.test")
    before = shown(context, trusting_client())
    (tmp_path / "pair.pem").write_text("half a renewal")
    with pytest.raises(tls.TlsError, match=r"pair\.pem"):
        context.refresh(settings, str(tmp_path))
    assert shown(context, trusting_client()) == before
    issue("two.example.test")
    assert context.refresh(settings, str(tmp_path)) is True


def test_files_that_are_missing_or_do_not_fit_are_named(tmp_path):
    with pytest.raises(tls.TlsError, match=r"absent\.pem.*No such file"):
        tls.server_context(
            schema.Tls(certificate=tmp_path / "absent.pem"), str(tmp_path), "mail.example.test"
        )
    one, two = trustme.CA().issue_cert("a.test"), trustme.CA().issue_cert("b.test")
    one.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    two.private_key_pem.write_to_path(tmp_path / "key.pem")
    settings = schema.Tls(certificate=tmp_path / "certificate.pem", key=tmp_path / "key.pem")
    with pytest.raises(
        tls.TlsError, match=r"key\.pem: the key does not belong to the certificate .*certificate\.pem"
    ):
        tls.server_context(settings, str(tmp_path), "mail.example.test")
