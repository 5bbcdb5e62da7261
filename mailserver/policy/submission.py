"""May this account use this sender address (RFC 6409 6.1). Pure.

An account may send as itself, as every address whose mail reaches its mailbox (aliases, lists it is on,
catch-alls and role addresses), and as what ``[submission] senders`` gives it. The null sender is everybody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mailserver import reply
from mailserver.message.address import Address, normalise_domain, parse
from mailserver.message.envelope import Local
from mailserver.policy.admission import Unavailable
from mailserver.reply import Reply
from mailserver.routing.resolve import Leaves, Resolution

ANY = "*"  # any sender at all
_ANY_OF = "*@"  # any sender of the domain behind it


def sender_key(text: str) -> str:
    """What senders are compared by: an address, ``*@example.test`` or ``*``. Raises AddressError."""
    if text == ANY:
        return text
    if text.startswith(_ANY_OF):
        return _ANY_OF + normalise_domain(text.removeprefix(_ANY_OF))
    return parse(text).key


class Senders:
    """``[submission] senders``, compiled. Raises AddressError."""

    def __init__(self, senders: Mapping[str, Iterable[str]]) -> None:
        self._of = {
            parse(account).key: frozenset(map(sender_key, patterns)) for account, patterns in senders.items()
        }

    def names(self, account: str, sender: Address) -> bool:
        """Whether it is the account's own address or one that it is given."""
        key = sender.key
        if key == account:
            return True
        given = self._of.get(account)
        return given is not None and not given.isdisjoint((key, _ANY_OF + sender.domain, ANY))


def sender_answer(found: Resolution | Unavailable, account: str) -> tuple[str, Reply]:
    """The answer to MAIL where mail to the sender's address goes to ``found``, and what the log says of it."""
    if isinstance(found, Unavailable):
        return found.reason, reply.SENDER_LOOKUP_FAILED
    if isinstance(found, Leaves) and Local(account) in [leaf.route for leaf in found.leaves]:
        return "", reply.SENDER_OK
    return f"no address of {account}, nor in [submission] senders", reply.SENDER_NOT_YOURS
