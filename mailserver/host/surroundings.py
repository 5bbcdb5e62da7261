"""What the configuration asks of this machine and may not get: files, a user, a folder, addresses, secrets kept.

``config.load.load`` takes these findings beside its own, so that one reading tells everything with its line.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import NamedTuple

from mailserver.accounts.program import PATH
from mailserver.config.lines import Path as KeyPath
from mailserver.config.schema import Config
from mailserver.config.shape import Finding
from mailserver.config.units import SocketAddress
from mailserver.host import pem, privileges
from mailserver.host.ports import holder
from mailserver.host.secrets import exposed, name_of
from mailserver.host.sockets import ListenError, try_address


def everything(config_path: Path, own: Set[SocketAddress] | None) -> Callable[[Config], Iterator[Finding]]:
    """For `mailserver check`. ``own``: addresses that a running server of this configuration has; None: it has some,
    and nobody tells us which. Blocking."""

    def findings(config: Config) -> Iterator[Finding]:
        yield from certificates(config)
        yield from _user(config)
        yield from _data_dir(config)
        yield from _read_again(config, config_path)
        yield from _programs(config)
        if own is not None:
            yield from _addresses(config, own)
        for one in exposed(config, config_path):
            accounts = os.path.basename(one.path).startswith("accounts.sqlite")
            key = _key_of(one.path, config, config_path)
            yield Finding(key, f"{one.path}: {one.wrong}", one.right, warning=not accounts)

    return findings


def certificates(config: Config) -> Iterator[Finding]:
    """Unusable PEM files; the warnings among them are of certificates that have ended. Blocking."""
    now, tls = datetime.datetime.now(datetime.UTC), config.tls
    pairs: list[tuple[KeyPath, Path | None, Path | None]] = [(("tls",), tls.certificate, tls.key)]
    pairs += [
        (("tls", "certificates", n), p.certificate, p.key or p.certificate)
        for n, p in enumerate(tls.certificates)
    ]
    for where, certificate, key in pairs:
        if (
            certificate is not None and key is not None
        ):  # one of the two is a fault that needs no look at the disk
            for fault in pem.pair_faults(str(certificate), str(key), now):
                yield Finding((*where, fault.part), fault.wrong, fault.right, fault.warning)
    if tls.client_ca is not None and (said := pem.authority_fault(str(tls.client_ca))) is not None:
        yield Finding(("tls", "client_ca"), *said)


def _user(config: Config) -> Iterator[Finding]:
    if config.run_as is not None:
        said = privileges.unsuitable(config.run_as, privileges.user_of(config.run_as))
        if said is not None:
            yield Finding(("run_as",), *said)


class _Server(NamedTuple):
    """The user the server would run as; ``here``: that is us."""

    uid: int
    gids: Set[int]
    here: bool

    @classmethod
    def of(cls, config: Config) -> _Server | None:
        """None: nobody can tell, root was not told whom to become."""
        if config.run_as is not None:
            user = privileges.user_of(config.run_as)
            if user is None:
                return None
            groups = frozenset(os.getgrouplist(user.pw_name, user.pw_gid))
            return cls(user.pw_uid, groups, user.pw_uid == os.geteuid())
        return cls(os.geteuid(), {os.getegid(), *os.getgroups()}, True) if os.geteuid() else None

    def may_read(self, path: str) -> bool:
        """By the mode bits of the file and of its folders. Raises OSError."""
        folders = (str(folder) for folder in Path(os.path.realpath(path)).parents)
        return self._has(os.stat(path), 4) and all(self._has(os.stat(folder), 1) for folder in folders)

    def _has(self, status: os.stat_result, bits: int) -> bool:
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid in self.gids else 0
        return (status.st_mode >> shift) & bits == bits

    def may_write(self, status: os.stat_result) -> bool:
        """By the mode bits: make, find and read files there."""
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid == self.uid:
            return mode & 0o700 == 0o700
        return (mode & 0o070 == 0o070) if status.st_gid in self.gids else mode & 0o007 == 0o007


def _read_again(config: Config, config_path: Path) -> Iterator[Finding]:
    """Files that root reads at the start and the ordinary user cannot, at a reload or when they are renewed."""
    server = _Server.of(config)
    if os.geteuid() != 0 or server is None or server.here:
        return
    tls = config.tls
    files = [config_path, tls.client_ca, tls.certificate, tls.key]
    files += [file for pair in tls.certificates for file in (pair.certificate, pair.key)]
    for path in dict.fromkeys(str(file) for file in files if file is not None):
        with contextlib.suppress(OSError):  # said elsewhere
            if not server.may_read(path):
                name = name_of(server.uid)
                what = "a reload" if path == str(config_path) else "a renewal"
                wrong = f"{path}: {name} may not read it, {what} will fail"
                yield Finding(
                    _key_of(path, config, config_path), wrong,
                    f"let {name} read it and enter its folders, by a group for instance", warning=True,
                )  # fmt: skip


def _programs(config: Config) -> Iterator[Finding]:
    """What is to be asked about logins and is no program: whoever logs in would be put off for ever."""
    named: list[tuple[KeyPath, tuple[str, ...]]] = [(("bearer", "program"), config.bearer.program)]
    for name, backend in config.backends.items():
        named += [(("backends", name, key), getattr(backend, key)) for key in ("program", "exists")]
    for where, command in named:
        if command and shutil.which(command[0], path=PATH) is None:
            yield Finding(where, f"{command[0]} is no program", "name one that the server's user may run")


def _data_dir(config: Config) -> Iterator[Finding]:
    """Whether it can be made and written to."""
    path, key = os.path.abspath(config.data_dir), ("data_dir",)
    try:
        place, status = _nearest(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        yield Finding(key, f"{path}: {reason}", "name a folder that the server's user may reach")
        return
    server = _Server.of(config)
    if not stat.S_ISDIR(status.st_mode):
        yield Finding(key, f"{place} is no folder", "name a folder, or a place where one can be made")
    elif os.statvfs(place).f_flag & os.ST_RDONLY:
        yield Finding(key, f"{place} is on a read-only file system", "name a folder that can be written to")
    elif place != path:
        if os.geteuid() != 0 and server is not None and server.here and not server.may_write(status):
            wrong = f"{path} cannot be made: {name_of(server.uid)} may not write in {place}"
            yield Finding(key, wrong, "make it as root and give it to that user, or name another folder")
    elif server is not None and status.st_uid != server.uid:
        given = status.st_uid == 0 and config.run_as is not None  # root gives it away when it starts
        if not given and not server.may_write(status):
            wrong = (
                f"{path} belongs to {name_of(status.st_uid)}, the server would run as {name_of(server.uid)}"
            )
            yield Finding(key, wrong, f"`chown -R {name_of(server.uid)} {path}`, or start as the owner")
    elif server is not None and not server.may_write(status):
        yield Finding(key, f"{path}: its owner may not write there", f"`chmod u+rwx {path}`")


def _nearest(path: str) -> tuple[str, os.stat_result]:
    """``path``, or the nearest folder above it that exists. Raises OSError, also for a link that leads nowhere."""
    while True:
        try:
            return path, os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.islink(path):
                raise
            path = os.path.dirname(path)


def _addresses(config: Config, own: Set[SocketAddress]) -> Iterator[Finding]:
    """Addresses that are not there or taken. Those that need a privilege are left out: whoever starts us may have it,
    and so are sockets that the service manager holds for us."""
    for service in ("smtp", "submission", "lmtp", "pop3"):
        section = getattr(config, service)
        for name in ("listen", "listen_tls") if section.enabled else ():
            addresses: tuple[SocketAddress, ...] = getattr(section, name, ())
            for n, address in enumerate(addresses):
                if (
                    address.port
                    and address not in own
                    and (error := _in_the_way(address, service)) is not None
                ):
                    path: KeyPath = (service, name, n) if len(addresses) > 1 else (service, name)
                    yield Finding(path, f"{address}: {error.wrong}", error.right)


def _in_the_way(address: SocketAddress, service: str) -> ListenError | None:
    try:
        try_address(address, service)
    except ListenError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return None
        by = holder(address) if error.errno == errno.EADDRINUSE else None
        return None if by is not None and by.program == "systemd" else error
    return None


def _key_of(path: str, config: Config, config_path: Path) -> KeyPath:
    """The key that names this file, or the folder it is in."""
    if path == str(config_path):
        return ("file",)
    return ("data_dir",) if path.startswith(f"{config.data_dir}{os.sep}") else ("tls",)
