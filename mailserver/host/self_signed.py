"""A program of its own: python -m mailserver.host.self_signed CERTIFICATE KEY HOSTNAME

Run once by host/certificate.py; the server itself never loads these 8 MB of cryptography.
"""

from __future__ import annotations

import datetime
import os
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailserver.message.address import AddressError, normalise_domain

VALID = datetime.timedelta(days=3650)  # nobody checks the date of a certificate that nobody vouches for
COMMON_NAME_MAX = 64  # RFC 5280 appendix A, ub-common-name


def write_pair(certificate: str, key: str, hostname: str) -> None:
    """Write an ECDSA P-256 key (mode 0600) and its certificate for ``hostname``; directories are made (0700).

    Existing files are overwritten. Raises OSError.
    """
    for path in (certificate, key):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    secret = ec.generate_private_key(ec.SECP256R1())
    signed = _certificate(secret, hostname)
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    _write(key, secret.private_bytes(pem, *private), 0o600)
    _write(certificate, signed.public_bytes(pem), 0o644)


def _certificate(secret: ec.EllipticCurvePrivateKey, hostname: str) -> x509.Certificate:
    try:
        host = normalise_domain(hostname)
    except AddressError:  # the machine's own name may be anything
        host = "localhost"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:COMMON_NAME_MAX])])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks differ
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(secret, hashes.SHA256())
    )


def _write(path: str, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(fd, "wb") as file:
        os.fchmod(fd, mode)  # before the first octet, also when the file was there with a wider mode
        file.write(data)


if __name__ == "__main__":
    write_pair(*sys.argv[1:])
