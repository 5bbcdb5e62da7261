"""Failures that are no bugs: one sentence on standard error and the contract's exit code."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from mailserver.cli.output import escaped


def fail(text: str, code: int = 1) -> NoReturn:
    """End the command: 1 failed, 2 wrong usage or configuration."""
    print(f"mailserver: {escaped(text)}", file=sys.stderr)
    raise typer.Exit(code)


def explained(error: Exception) -> int | None:
    """Print what ``error`` means for the user; the exit code, or None for a bug (which deserves its
    traceback)."""
    from mailserver.accounts.errors import AccountsError, AccountsUnavailable
    from mailserver.config.faults import ConfigError
    from mailserver.control.client import CommandFailed, ServerDown

    if isinstance(error, ConfigError):
        for fault in error.faults:
            print(escaped(str(fault)), file=sys.stderr)
        return 2
    if isinstance(error, ServerDown):
        print(f"mailserver: the server is not running ({escaped(str(error))})", file=sys.stderr)
        return 1
    if isinstance(error, UnicodeEncodeError) and any("\udc80" <= c <= "\udcff" for c in error.object):
        print("mailserver: what you gave is not UTF-8 text", file=sys.stderr)  # its octets came as surrogates
        return 2
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        print(
            f"mailserver: {escaped(os.fsdecode(error.filename))}: {error.strerror.lower()}", file=sys.stderr
        )
        return 1
    if isinstance(error, (AccountsError, AccountsUnavailable, CommandFailed, OSError)):
        for line in str(error).splitlines():
            print(f"mailserver: {escaped(line)}", file=sys.stderr)
        return 1
    return None
