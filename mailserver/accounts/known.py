"""What the database holds, in the form that checking a configuration needs."""

from __future__ import annotations

import os

from mailserver.accounts.database import Database
from mailserver.config.recipients import Known
from mailserver.config.schema import Config

FILE = "accounts.sqlite"  # below data_dir


def database_of(config: Config) -> Database:
    """The accounts file that belongs to this configuration."""
    return Database(os.path.join(config.data_dir, FILE))


def known(config: Config) -> Known:
    """For ``config.load.load``. Blocking; raises AccountsUnavailable."""
    database = database_of(config)
    try:
        return Known(
            frozenset(user.address for user in database.users()),
            frozenset(domain.name for domain in database.domains()),
            {alias.address: alias.targets for alias in database.aliases()},
        )
    finally:
        database.close()
