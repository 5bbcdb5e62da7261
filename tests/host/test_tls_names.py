"""Several certificates, chosen by SNI and swapped while the server runs; client certificates."""

import asyncio
import hashlib
import shutil
import ssl
import subprocess

import pytest
import trustme
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tls_rooms import handshake, names, shown, trusting_client

from mailserver.config import schema
from mailserver.host import tls


@pytest.fixture
def shelf(tmp_path):
    """Issues certificates into files: shelf(file, *names)."""
    authority = trustme.CA()

    def issue(file, *hosts, key_type=trustme.KeyType.ECDSA):
        pair = authority.issue_cert(*hosts, key_type=key_type)
        pair.private_key_and_cert_chain_pem.write_to_path(tmp_path / "new.pem")
        shutil.move(tmp_path / "new.pem", tmp_path / file)
        return tmp_path / file

    return issue


@pytest.fixture
def settings(shelf):
    more = [
        ("b.pem", "b.test", "*.b.test"),
        ("c.pem", "*.c.test", "deep.sub.c.test"),
        ("d.pem", "www.b.test"),
    ]
    return schema.Tls(
        certificate=shelf("a.pem", "a.test"),
        certificates=tuple(schema.Certificate(certificate=shelf(file, *hosts)) for file, *hosts in more),
    )


@pytest.mark.parametrize(
    ("asked", "first_name"),
    [
        ("a.test", "a.test"),
        ("b.test", "b.test"),
        ("B.Test", "b.test"),
        ("mail.b.test", "b.test"),
        ("www.b.test", "www.b.test"),
        ("too.deep.b.test", "a.test"),
        ("x.c.test", "*.c.test"),
        ("c.test", "a.test"),
        ("deep.sub.c.test", "*.c.test"),
        ("unknown.test", "a.test"),
        (None, "a.test"),
    ],
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_is_shown_the_certificate_for_the_name_it_asks_for(
    tmp_path, settings, asked, first_name, version
):
    context = tls.server_context(settings, str(tmp_path), "a.test")
    client = trusting_client()
    client.maximum_version = version
    assert names(shown(context, client, asked))[0] == first_name


def test_another_kind_of_key_leaves_nothing_behind(tmp_path, shelf):
    settings = schema.Tls(certificate=shelf("a.pem", "a.test", key_type=trustme.KeyType.RSA))
    context, client = tls.server_context(settings, str(tmp_path), "a.test"), trusting_client()
    assert isinstance(shown(context, client).public_key(), rsa.RSAPublicKey)
    shelf("a.pem", "a.test", key_type=trustme.KeyType.ECDSA)
    assert context.refresh(settings, str(tmp_path))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("ECDHE+aECDSA:ECDHE+aRSA")
    assert isinstance(shown(context, client).public_key(), ec.EllipticCurvePublicKey)
    client.set_ciphers(
        "ECDHE+aRSA"
    )  # would still be served the old RSA certificate by a context loaded twice
    with pytest.raises(ssl.SSLError):
        handshake(context, client)


def test_one_broken_file_changes_none_of_them(tmp_path, shelf, settings):
    context = tls.server_context(settings, str(tmp_path), "a.test")
    shelf("a.pem", "new.test")
    (tmp_path / "d.pem").write_text("half a renewal")
    with pytest.raises(tls.TlsError, match=r"d\.pem"):
        context.refresh(settings, str(tmp_path))
    assert names(shown(context, trusting_client(), None)) == ["a.test"]
    (tmp_path / "d.pem").unlink()
    with pytest.raises(tls.TlsError, match=r"d\.pem.*No such file"):
        context.refresh(settings, str(tmp_path))
    shelf("d.pem", "d.test")
    assert context.refresh(settings, str(tmp_path))
    assert names(shown(context, trusting_client(), None)) == ["new.test"]
    assert not context.refresh(settings, str(tmp_path))


def test_what_old_protocols_and_weak_ciphers_get(tmp_path, settings):
    context = tls.server_context(settings, str(tmp_path), "a.test")
    offered = {cipher["name"] for cipher in context.get_ciphers()}
    assert all(name.startswith(("TLS_", "ECDHE-")) for name in offered)  # forward secrecy
    assert not any("RC4" in name or "3DES" in name or name.endswith("-SHA") for name in offered)
    client = trusting_client()
    client.set_ciphers("AES128-SHA:AES256-GCM-SHA384")
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        handshake(context, client)


def test_client_certificates_of_our_authority_name_their_addresses(tmp_path, settings):
    ours, strange = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(tmp_path / "clients.pem")
    asking = settings.model_copy(update={"client_ca": tmp_path / "clients.pem"})
    context = tls.server_context(asking, str(tmp_path), "a.test", asks=True)
    plain, known, unknown = (trusting_client() for _ in range(3))
    ours.issue_cert("alice@example.test").configure_cert(known)
    strange.issue_cert("alice@example.test").configure_cert(unknown)
    for name in ("a.test", "b.test", None):
        assert tls.certified_addresses(handshake(context, plain, name)[1]) == ()
        assert tls.certified_addresses(handshake(context, known, name)[1]) == ("alice@example.test",)
        with pytest.raises(ssl.SSLError):
            handshake(context, unknown, name)


def test_listeners_for_servers_never_ask(tmp_path, settings):
    authority, strange = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "clients.pem")
    asking = settings.model_copy(update={"client_ca": tmp_path / "clients.pem"})
    context, peer = tls.server_context(asking, str(tmp_path), "a.test"), trusting_client()
    strange.issue_cert("mx.example.test").configure_cert(peer)
    assert tls.certified_addresses(handshake(context, peer)[1]) == ()


def test_channel_binding_is_of_the_certificate_that_was_shown(tmp_path, settings):
    context = tls.server_context(settings, str(tmp_path), "a.test")
    for name in ("a.test", "b.test"):
        client, server = handshake(context, trusting_client(), name)
        assert tls.end_point(server) == hashlib.sha256(client.getpeercert(binary_form=True)).digest()


async def served(context, port_and_names):
    """Real connections: certificate names seen before and after ``port_and_names`` (a callback) ran."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    try:
        return await port_and_names(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def seen_by_openssl(port, name):
    done = await asyncio.to_thread(
        subprocess.run,
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", name],
        input=b"", capture_output=True, check=False,
    )  # fmt: skip
    text = await asyncio.to_thread(
        subprocess.run, ["openssl", "x509", "-noout", "-ext", "subjectAltName"], input=done.stdout,
        capture_output=True, check=True,
    )  # fmt: skip
    return text.stdout.decode().split("DNS:", 1)[1].strip()


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_renewal_shows_with_the_next_handshake(tmp_path, shelf, settings, factory):
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    context = tls.server_context(settings, str(tmp_path), "a.test")

    async def look(port):
        before = await seen_by_openssl(port, "www.b.test")
        shelf("d.pem", "www.b.test", "renewed.b.test")
        context.refresh(settings, str(tmp_path))
        return before, await seen_by_openssl(port, "www.b.test"), await seen_by_openssl(port, "x.test")

    with asyncio.Runner(loop_factory=factory) as runner:
        before, after, other = runner.run(served(context, look))
    assert (before, after, other) == ("www.b.test", "www.b.test, DNS:renewed.b.test", "a.test")
