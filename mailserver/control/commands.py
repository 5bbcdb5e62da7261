"""What may be asked over the control socket: command name → the Struct its arguments must fit.

Server and client read this one table, so they agree on names, types and defaults. Handlers get the
arguments as a dict with every field present. What comes back stands beside each name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of a command that takes none."""


class AddressOnly(Arguments, frozen=True):
    address: str


class UserRemoval(Arguments, frozen=True):
    """``force``: although aliases lead nowhere then."""

    address: str
    force: bool = False


class Password(Arguments, frozen=True):
    """``hashed``: ``password`` is a stored form made elsewhere."""

    address: str
    password: str
    hashed: bool = False


class NewUsers(Arguments, frozen=True):
    """Pairs of an address and a stored form of its password, made elsewhere."""

    users: list[tuple[str, str]]


class NewPassword(Password, frozen=True):
    """``old``: the password until now, where it must be shown."""

    old: str | None = None


class AppPassword(Arguments, frozen=True):
    """``scopes``: the services it is for, none: all."""

    address: str
    name: str
    scopes: list[str] = []


class AppPasswordName(Arguments, frozen=True):
    address: str
    name: str


class DomainName(Arguments, frozen=True):
    name: str


class OfDomain(Arguments, frozen=True):
    """A listing; ``domain`` None: of all."""

    domain: str | None = None


class AliasTargets(Arguments, frozen=True):
    address: str
    targets: list[str]


class QueueOf(Arguments, frozen=True):
    """A listing; ``account`` None: of all."""

    account: str | None = None


class QueueSome(Arguments, frozen=True):
    """These, and all that ``account`` sent."""

    ids: list[str] = []
    account: str | None = None


class QueueRetry(Arguments, frozen=True):
    """``ids`` None: everything that waits."""

    ids: list[str] | None = None


class QueueId(Arguments, frozen=True):
    id: str


class GuardClear(Arguments, frozen=True):
    """``what``: an address or an account; None: everything."""

    what: str | None = None


class Explain(Arguments, frozen=True):
    """The arguments of policy.explain.explain. ``sender`` "": the null sender. ``client``: an IP address."""

    sender: str
    recipient: str
    client: str
    authenticated: bool = False


COMMANDS: Mapping[str, type[Arguments]] = MappingProxyType(
    {
        "status": Arguments,  # an object
        "health": Arguments,  # the listeners: [{"service", "host", "port", "tls"}]
        "reload": Arguments,  # a sentence; an error when nothing was changed
        "stop": Arguments,  # a word; answered first, done then
        "user.add": Password,  # {"address"}
        "user.import": NewUsers,  # {"added": how many, "refused": [[address, reason], …]}
        "user.list": OfDomain,  # a list of objects, like the other listings
        "user.passwd": NewPassword,
        "user.remove": UserRemoval,
        "user.app-password.add": AppPassword,  # {"address", "name", "scopes", "password"}
        "user.app-password.list": AddressOnly,
        "user.app-password.remove": AppPasswordName,  # {"address"}
        "domain.add": DomainName,  # {"name"}
        "domain.list": Arguments,
        "domain.remove": DomainName,
        "alias.set": AliasTargets,
        "alias.list": OfDomain,
        "alias.remove": AddressOnly,
        "queue.list": QueueOf,
        "queue.show": QueueId,
        "queue.retry": QueueRetry,  # {"count"}, like the next three
        "queue.hold": QueueSome,
        "queue.release": QueueSome,
        "queue.remove": QueueSome,
        "guard.list": Arguments,  # policy.guard.Slowed objects
        "guard.clear": GuardClear,  # {"count"}
        "explain": Explain,  # policy.explain.Explanation
    }
)
