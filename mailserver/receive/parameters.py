"""Arguments of MAIL and RCPT: path and ESMTP parameters (RFC 5321 3.3, 4.1.2; 1870, 3030, 3461, 4954, 6152,
6531).

Strict: ``FROM:<a@b>`` with its angle brackets, nothing between colon and path, every parameter known and
given once. A source route is checked and forgotten (RFC 5321 4.1.1.3). Pure functions of the argument's
text; faults are raised as BadParameter, which carries the reply.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from mailserver import reply
from mailserver.message.address import Address, AddressError, normalise_domain, parse
from mailserver.reply import Reply

_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_PLAIN = re.compile(rf"<({_ATEXT}(?:\.{_ATEXT})*@[A-Za-z0-9.-]+)>\Z")
_PATH = re.compile(
    r"<(?:(?P<route>@[^\s<>:\"]+):)?(?P<address>(?:\"(?:[^\"\\]|\\.)*\"|[^\s<>\"\\])*)>"
    r"(?: +(?P<rest>.*?))? *\Z"
)
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20=\x7f]+))?\Z")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+\Z")
_PRINTABLE = r"(?:[!-*,-<>-~]|\+(?:09|[2-6][0-9A-F]|7[0-9A-E]))+\Z"  # RFC 3461 4.2, 4.4: nothing else inside
_ENVID = re.compile(_PRINTABLE)
_ORCPT = re.compile(r"[A-Za-z0-9-]+;" + _PRINTABLE)
_UTF8_ORCPT = re.compile(r"(?i:utf-8);[^\x00-\x20=\x7f]+\Z")
_REPORTS = frozenset({"SUCCESS", "FAILURE", "DELAY"})
ENVID_MAX = 100  # octets, RFC 3461 4.4
ORCPT_MAX = 500  # octets, RFC 3461 4.2


class BadParameter(ValueError):  # noqa: N818 - named for what it is about; it carries a reply, not a fault
    """``reply`` is what the client is told."""

    def __init__(self, answer: Reply) -> None:
        super().__init__(answer.text)
        self.reply = answer


class Mail(NamedTuple):
    """What MAIL said. ``sender`` None is the null sender; ``envid`` is xtext as received; ``size`` 0 = not
    given."""

    sender: Address | None
    size: int = 0
    body: str = "7BIT"
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None
    options: tuple[str, ...] = ()
    international: bool = False  # something in it is not ASCII


class Rcpt(NamedTuple):
    """What RCPT said. ``address`` None is the bare ``<postmaster>``; ``orcpt`` and ``notify`` as received."""

    address: Address | None
    notify: tuple[str, ...] = ()
    orcpt: str | None = None
    international: bool = False  # something in it is not ASCII


@lru_cache(maxsize=1024)
def parse_mail(argument: str) -> Mail:
    """``FROM:<a@b> SIZE=1000`` → Mail. Raises BadParameter."""
    if argument[:5].upper() != "FROM:":
        raise BadParameter(reply.BAD_MAIL)
    path = argument[5:]
    if match := _PLAIN.match(path):
        return Mail(_address(match[1], reply.BAD_SENDER_SYNTAX))
    text, rest = _split_path(path, reply.BAD_SENDER_SYNTAX)
    sender = _address(text, reply.BAD_SENDER_SYNTAX) if text else None
    values = _parameters(rest, _MAIL_KEYWORDS)
    return Mail(
        sender,
        size=_size(values),
        body=_one_of(values, "BODY", ("7BIT", "8BITMIME", "BINARYMIME")) or "7BIT",
        smtputf8=_flag(values, "SMTPUTF8"),
        ret=_one_of(values, "RET", ("FULL", "HDRS")),
        envid=_envid(values),
        options=_auth_checked(values, rest),
        international=not path.isascii(),
    )


@lru_cache(maxsize=4096)
def parse_rcpt(argument: str) -> Rcpt:
    """``TO:<a@b> NOTIFY=NEVER`` → Rcpt. Raises BadParameter."""
    if argument[:3].upper() != "TO:":
        raise BadParameter(reply.BAD_RCPT)
    path = argument[3:]
    if match := _PLAIN.match(path):
        return Rcpt(_address(match[1], reply.BAD_RECIPIENT_SYNTAX))
    text, rest = _split_path(path, reply.BAD_RECIPIENT_SYNTAX)
    if not text:
        raise BadParameter(reply.BAD_RECIPIENT_SYNTAX)
    address = None if text.lower() == "postmaster" else _address(text, reply.BAD_RECIPIENT_SYNTAX)
    values = _parameters(rest, _RCPT_KEYWORDS)
    return Rcpt(address, _notify(values), _orcpt(values), not path.isascii())


_MAIL_KEYWORDS = frozenset({"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"})
_RCPT_KEYWORDS = frozenset({"NOTIFY", "ORCPT"})


def _split_path(path: str, bad: Reply) -> tuple[str, str]:
    """``<@relay:a@b> REST`` → address text and REST; the source route is checked and dropped."""
    match = _PATH.match(path)
    if match is None:
        raise BadParameter(bad)
    if route := match["route"]:
        for hop in route.split(","):
            try:
                normalise_domain(hop[1:] if hop.startswith("@") else "")
            except AddressError:
                raise BadParameter(bad) from None
        if not match["address"]:
            raise BadParameter(bad)
    return match["address"], match["rest"] or ""


def _address(text: str, bad: Reply) -> Address:
    try:
        return parse(text)
    except AddressError:
        raise BadParameter(bad) from None


def _parameters(rest: str, known: frozenset[str]) -> dict[str, str | None]:
    """Keyword (upper case) → value. An unknown one is 555, a malformed or repeated one 501."""
    values: dict[str, str | None] = {}
    for word in rest.split():
        match = _PARAMETER.match(word)
        if match is None:
            raise BadParameter(reply.BAD_ARGUMENT)
        keyword = match[1].upper()
        if keyword not in known:
            raise BadParameter(reply.UNKNOWN_PARAMETER)
        if keyword in values:
            raise BadParameter(reply.BAD_ARGUMENT)
        values[keyword] = match[2]
    return values


def _size(values: dict[str, str | None]) -> int:
    """RFC 1870 5: one to twenty digits."""
    if "SIZE" not in values:
        return 0
    text = values["SIZE"] or ""
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise BadParameter(reply.BAD_ARGUMENT)
    return int(text)


def _one_of(values: dict[str, str | None], keyword: str, allowed: tuple[str, ...]) -> str | None:
    if keyword not in values:
        return None
    text = (values[keyword] or "").upper()
    if text not in allowed:
        raise BadParameter(reply.BAD_ARGUMENT)
    return text


def _flag(values: dict[str, str | None], keyword: str) -> bool:
    if values.get(keyword) is not None:
        raise BadParameter(reply.BAD_ARGUMENT)
    return keyword in values


def _envid(values: dict[str, str | None]) -> str | None:
    if "ENVID" not in values:
        return None
    text = values["ENVID"] or ""
    if len(text) > ENVID_MAX or not _ENVID.match(text):
        raise BadParameter(reply.BAD_ARGUMENT)
    return text


def _auth_checked(values: dict[str, str | None], rest: str) -> tuple[str, ...]:
    """AUTH= is checked and not believed: we trust nobody's word about who wrote a message (RFC 4954 5)."""
    if "AUTH" in values and not _XTEXT.match(values["AUTH"] or ""):
        raise BadParameter(reply.BAD_ARGUMENT)
    return tuple(rest.split())


def _notify(values: dict[str, str | None]) -> tuple[str, ...]:
    """NEVER alone, or some of SUCCESS, FAILURE, DELAY (RFC 3461 4.1)."""
    if "NOTIFY" not in values:
        return ()
    words = tuple((values["NOTIFY"] or "").upper().split(","))
    if words != ("NEVER",) and (not _REPORTS.issuperset(words) or len(set(words)) != len(words)):
        raise BadParameter(reply.BAD_ARGUMENT)
    return words


def _orcpt(values: dict[str, str | None]) -> str | None:
    """``type;xtext``, or ``utf-8;…`` (RFC 3461 4.2, RFC 6533 3)."""
    if "ORCPT" not in values:
        return None
    text = values["ORCPT"] or ""
    if len(text) > ORCPT_MAX or not (_ORCPT.match(text) or _UTF8_ORCPT.match(text)):
        raise BadParameter(reply.BAD_ARGUMENT)
    return text
