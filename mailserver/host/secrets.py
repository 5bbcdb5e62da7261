"""Whether secrets are kept from others: modes and owners of the files that hold them (FEATURES C02).

For `mailserver check` and the log at start-up. A mode says who could read a file if its folders let him; they are not
looked at, because a folder's mode is changed sooner than anybody remembers what lay in it.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from mailserver.config.schema import Config
from mailserver.host.privileges import user_of

_GROUP_READ, _OTHERS_READ = stat.S_IRGRP, stat.S_IROTH
_SHARED_WRITE = stat.S_IWGRP | stat.S_IWOTH
_SHARED = stat.S_IRWXG | stat.S_IRWXO


class Exposed(NamedTuple):
    """``path`` is open to others: what is ``wrong`` and what would be ``right``."""

    path: str
    wrong: str
    right: str

    def __str__(self) -> str:
        return f"{self.path}: {self.wrong}, {self.right}"


def exposed(config: Config, config_path: Path) -> list[Exposed]:
    """Everything that is open to more people than it should be. Blocking; files we may not look at are left out."""
    server = _Server.of(config)
    data_dir = str(config.data_dir)
    found: list[Exposed] = []
    if config.users:
        found += _shared(str(config_path), "the password hashes in it", server)
    elif any(urlsplit(backend.url or "").password for backend in config.backends.values()):
        found += _shared(str(config_path), "the database password in it", server)
    found += _writable(str(config_path), server)
    for key in _keys(config):
        found += _readable_by_all(key, "the TLS key in it")
        found += _writable(key, server)
    for name in ("accounts.sqlite", "accounts.sqlite-wal", "accounts.sqlite-shm"):
        found += _closed(os.path.join(data_dir, name), "the accounts' password hashes", 0o600)
    found += _closed(os.path.join(data_dir, "control.sock"), "the control of the server", 0o600)
    for name in ("mail", "queue"):
        found += _closed_to_others(os.path.join(data_dir, name), "everybody's mail")
    return found


class _Server(NamedTuple):
    """Who the server is: users that may own its files, groups it is in."""

    uids: frozenset[int]
    gids: frozenset[int]

    @classmethod
    def of(cls, config: Config) -> _Server:
        uids, gids = {0, os.geteuid()}, {0, os.getegid(), *os.getgroups()}
        if config.run_as is not None:
            user = user_of(config.run_as)
            if user is None:  # starting will say so
                return cls(frozenset(uids), frozenset(gids))
            uids.add(user.pw_uid)
            gids |= set(os.getgrouplist(user.pw_name, user.pw_gid))
        return cls(frozenset(uids), frozenset(gids))


def _keys(config: Config) -> list[str]:
    """Private keys, those beside their certificates among them."""
    tls = config.tls
    paths = [tls.key or tls.certificate, *(pair.key or pair.certificate for pair in tls.certificates)]
    if tls.certificate is None:
        paths.append(config.data_dir / "tls" / "key.pem")
    return list(dict.fromkeys(str(path) for path in paths if path is not None))


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _shared(path: str, what: str, server: _Server) -> Iterator[Exposed]:
    """Read by everybody, or by a group that is not the server's."""
    status = _status(path)
    if status is None:
        return
    if status.st_mode & _OTHERS_READ:
        yield Exposed(path, f"everybody on this machine may read {what}", f"chmod o-rwx {path}")
    if status.st_mode & _GROUP_READ and status.st_gid not in server.gids:
        wrong = f"group {_group(status.st_gid)} may read {what}"
        yield Exposed(path, wrong, f"chmod g-rwx {path}, or chgrp it to the server's group")


def _readable_by_all(path: str, what: str) -> Iterator[Exposed]:
    status = _status(path)
    if status is not None and status.st_mode & _OTHERS_READ:
        yield Exposed(path, f"everybody on this machine may read {what}", f"chmod o-rwx {path}")


def _writable(path: str, server: _Server) -> Iterator[Exposed]:
    status = _status(path)
    if status is None:
        return
    if status.st_mode & _SHARED_WRITE:
        yield Exposed(path, "others may change it", f"chmod go-w {path}")
    if status.st_uid not in server.uids:
        yield Exposed(
            path, f"it belongs to {name_of(status.st_uid)}, who may change it", f"chown root {path}"
        )


def _closed(path: str, what: str, mode: int) -> Iterator[Exposed]:
    status = _status(path)
    if status is not None and status.st_mode & _SHARED:
        wrong = f"mode {stat.S_IMODE(status.st_mode):04o} opens {what} to others"
        yield Exposed(path, wrong, f"chmod {mode:04o} {path}")


def _closed_to_others(path: str, what: str) -> Iterator[Exposed]:
    status = _status(path)
    if status is not None and status.st_mode & stat.S_IRWXO:
        wrong = f"mode {stat.S_IMODE(status.st_mode):04o} opens {what} to everybody on this machine"
        yield Exposed(path, wrong, f"chmod o-rwx {path}")


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def name_of(uid: int) -> str:
    """A user as people call it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
