"""Our own reader of certificates against the library's."""

import contextlib
import datetime

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from mailserver.host.x509 import leaf, read_leaf

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
SHA256 = hashes.SHA256()
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def made(
    names=(),
    *,
    until=START + datetime.timedelta(days=90),
    key=None,
    algorithm=SHA256,
    critical=False,
    **kw,
):
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(NAME, NAME, key.public_key(), 1, START, until)
    builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=critical)
    return builder.sign(key, algorithm, **kw).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("critical", [True, False])
def test_host_names_and_only_they(critical):
    names = [x509.DNSName("Mail.Example.Test"), x509.RFC822Name("a@b.test"), x509.DNSName("*.b.test")]
    found = leaf(made(names, critical=critical))
    assert found.names == ("mail.example.test", "*.b.test")
    assert leaf(made()).names == ()


def test_many_names_need_long_lengths():
    names = [f"host{n}.example.test" for n in range(3000)]
    assert leaf(made([x509.DNSName(name) for name in names])).names == tuple(names)


@pytest.mark.parametrize("year", [2026, 2049, 2050, 2099])
def test_end_in_both_forms_of_time(year):
    until = datetime.datetime(year, 12, 31, 23, 59, 58, tzinfo=datetime.UTC)
    assert leaf(made(until=until)).not_after == until


@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_channel_binding_uses_the_hash_of_the_signature(algorithm, kind):
    key = (
        ec.generate_private_key(ec.SECP384R1()) if kind == "ecdsa" else rsa.generate_private_key(65537, 2048)
    )
    der = made(key=key, algorithm=algorithm)
    digest = hashes.Hash(x509.load_der_x509_certificate(der).signature_hash_algorithm)
    digest.update(der)
    assert leaf(der).end_point == digest.finalize()


def test_channel_binding_is_empty_where_it_is_undefined():
    assert leaf(made(key=ed25519.Ed25519PrivateKey.generate(), algorithm=None)).end_point == b""
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    assert leaf(made(key=rsa.generate_private_key(65537, 2048), rsa_padding=pss)).end_point == b""


DER = made([x509.DNSName("a.test")])


@given(st.integers(0, len(DER) - 1), st.integers(0, 255))
def test_damaged_certificates_are_never_anything_but_value_errors(at, octet):
    for data in (DER[:at], DER[:at] + bytes([octet]) + DER[at + 1 :]):
        with contextlib.suppress(ValueError):
            leaf(data)


@given(st.binary(max_size=300))
def test_nor_is_garbage(data):
    with contextlib.suppress(ValueError):
        leaf(data)


def test_the_first_certificate_of_a_chain_file_behind_its_key(tmp_path):
    pair = trustme.CA().issue_cert("first.test")
    pair.private_key_and_cert_chain_pem.write_to_path(tmp_path / "all.pem")
    assert read_leaf(str(tmp_path / "all.pem")).names == ("first.test",)
    pair.private_key_pem.write_to_path(tmp_path / "key.pem")
    with pytest.raises(ValueError, match="no PEM certificate"):
        read_leaf(str(tmp_path / "key.pem"))
