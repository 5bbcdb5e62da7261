"""The two ways the accounts room says no: the request is wrong, or the place where accounts are kept does
not work."""

from __future__ import annotations


class AccountsError(Exception):
    """A request that cannot be granted: it exists already, it is unknown, it belongs to the configuration
    file.

    ``str(error)`` is one sentence for the administrator that says what would be right.
    """


class AccountsUnavailable(Exception):  # noqa: N818 - the name the team agreed on
    """Nobody can say now whether a login is right; the client is told to try again later (SMTP 454 4.7.0,
    POP3 ``-ERR [SYS/TEMP]``). Never to be answered like a wrong password: clients throw passwords away
    then."""
