"""The start of the process: configuration, sockets and keys while we may be root, then an ordinary user, then the loop.

The order is the point: bind → read keys → give up root → take the data directory → confine → only now threads
and the loop.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import uvloop

from mailserver import events
from mailserver.app import STOPPERS, App
from mailserver.config.faults import ConfigError
from mailserver.config.load import Loaded, load
from mailserver.host import privileges
from mailserver.host.confinement import confine
from mailserver.host.heap import return_large_blocks
from mailserver.host.lock import DataDirLock
from mailserver.host.secrets import exposed
from mailserver.host.surroundings import certificates
from mailserver.host.tls_contexts import tls_contexts
from mailserver.listeners import Listeners


def serve(config_path: Path) -> int:
    """Run the server until SIGTERM. Exit code: 0 drained, 1 could not start, 2 wrong configuration."""
    try:
        loaded = load(config_path, around=certificates)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 - there is no log yet
        return 2
    data_dir = str(loaded.config.data_dir)
    return_large_blocks()
    try:
        listeners = Listeners(loaded.config)
        os.umask(0o077)
        # Before root goes: the key may be readable for root alone.
        tls = tls_contexts(loaded.config.tls, data_dir, loaded.config.hostname)
        _become_ordinary(loaded)
        with DataDirLock(data_dir):
            noticed = _confined(config_path, loaded)
            return uvloop.run(App(config_path, loaded, listeners, tls, noticed).run())
    except STOPPERS as error:
        print(f"mailserver: {error}", file=sys.stderr)  # noqa: T201 - the log may not exist
        return 1
    except RuntimeError as error:  # an executor begins its threads when it is first needed
        if "start new thread" not in str(error):
            raise
        print(f"mailserver: {error}; how many there may be is limited", file=sys.stderr)  # noqa: T201 - same
        return 1


def _become_ordinary(loaded: Loaded) -> None:
    """Give up root after binding (docs/decisions/004-root-on-loopback.md). Raises PrivilegeError."""
    data_dir = str(loaded.config.data_dir)
    if os.geteuid() == 0 and loaded.config.run_as is None and not loaded.config.faces_network():
        print("mailserver: warning: running as root on loopback only; set run_as", file=sys.stderr)  # noqa: T201 - same
    else:
        privileges.drop(loaded.config.run_as, data_dir)
    privileges.no_new_privs()
    privileges.no_cores()
    os.makedirs(data_dir, mode=0o700, exist_ok=True)


def _confined(config_path: Path, loaded: Loaded) -> list[events.Event]:
    """From here on the kernel lets us touch only what we need; what there is to say about that and about secrets."""
    said = confine(loaded.config, config_path)
    fine = said.active or not said.wanted
    confinement = events.Notice("confine", said.text) if fine else events.Warned("confine", said.text)
    open_secrets = [events.Warned("secrets", str(one)) for one in exposed(loaded.config, config_path)]
    return [confinement, *open_secrets]
