"""What we need of our own certificates, read from their DER (X.690, RFC 5280 4.1): names, end, channel binding.

The server does not load the 8 MB of a library for three fields of files that it trusts. What cannot be read is a
ValueError; certificates of others are never read here, that is OpenSSL's work.
"""

from __future__ import annotations

import datetime
import hashlib
import ssl
from collections.abc import Iterator
from typing import NamedTuple

_SUBJECT_ALT_NAME = bytes.fromhex("551d11")  # 2.5.29.17
_DNS_NAME, _EXTENSIONS, _VERSION, _UTC_TIME = 0x82, 0xA3, 0xA0, 0x17
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"

# Signature algorithm → hash of tls-server-end-point (RFC 5929 4.1: MD5 and SHA-1 are replaced by SHA-256).
_HASHES = {
    bytes.fromhex("2a864886f70d010104"): "sha256",  # md5WithRSAEncryption
    bytes.fromhex("2a864886f70d010105"): "sha256",  # sha1WithRSAEncryption
    bytes.fromhex("2a864886f70d01010b"): "sha256",
    bytes.fromhex("2a864886f70d01010c"): "sha384",
    bytes.fromhex("2a864886f70d01010d"): "sha512",
    bytes.fromhex("2a8648ce3d0401"): "sha256",  # ecdsa-with-SHA1
    bytes.fromhex("2a8648ce3d040302"): "sha256",
    bytes.fromhex("2a8648ce3d040303"): "sha384",
    bytes.fromhex("2a8648ce3d040304"): "sha512",
}


class Leaf(NamedTuple):
    """The first certificate of a file. ``names``: dNSNames in lower case, wildcards among them.

    ``end_point``: tls-server-end-point (RFC 5929), empty where it is not defined (Ed25519, RSA-PSS).
    """

    names: tuple[str, ...]
    not_after: datetime.datetime
    end_point: bytes


def read_leaf(path: str) -> Leaf:
    """Blocking. Raises OSError and ValueError."""
    with open(path, encoding="ascii", errors="replace") as file:
        text = file.read()
    begin = text.find(_BEGIN)
    end = text.find(_END, begin)
    if begin < 0 or end < 0:
        raise ValueError("no PEM certificate in it")
    return leaf(ssl.PEM_cert_to_DER_cert(text[begin : end + len(_END)]))


def leaf(der: bytes) -> Leaf:
    """Raises ValueError."""
    try:
        ((_, certificate),) = _elements(der)
        (_, signed), (_, algorithm), _ = _elements(certificate)
        fields = [field for field in _elements(signed) if field[0] != _VERSION]
        _serial, _signature, _issuer, (_, validity), _subject, _key, *rest = fields
        _from, (kind, until) = _elements(validity)
        (_, oid), *_parameters = _elements(algorithm)
        names = tuple(name for tag, content in rest if tag == _EXTENSIONS for name in _names(content))
        hash_name = _HASHES.get(oid)
        end_point = hashlib.new(hash_name, der).digest() if hash_name else b""
        return Leaf(names, _time(kind, until), end_point)
    except (IndexError, UnicodeError, ValueError) as error:
        raise ValueError("not a certificate") from error


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element in a row. One octet of tag, a definite length: that is DER here."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length >= 0x80:
            octets = length & 0x7F
            length, at = int.from_bytes(data[at : at + octets], "big"), at + octets
        if at + length > len(data):
            raise ValueError("cut off")
        yield tag, data[at : at + length]
        at += length


def _names(extensions: bytes) -> Iterator[str]:
    ((_, row),) = _elements(extensions)
    for _, extension in _elements(row):
        (_, oid), *rest = _elements(extension)
        if oid == _SUBJECT_ALT_NAME:
            ((_, names),) = _elements(rest[-1][1])  # behind the optional "critical"
            yield from (name.decode("ascii").lower() for tag, name in _elements(names) if tag == _DNS_NAME)


def _time(kind: int, text: bytes) -> datetime.datetime:
    form = "%y%m%d%H%M%SZ" if kind == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.datetime.strptime(text.decode("ascii"), form).replace(tzinfo=datetime.UTC)
