"""Which files this server needs, and so all it is allowed (landlock.py): data_dir to write in, programs, libraries,
configuration and certificates to read."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

import mailserver
from mailserver.config.schema import Config
from mailserver.host import landlock

_PROGRAMS = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix/store", "/gnu/store")
# Name service, certificates, the clock's zone; /proc says who holds a port, and our own state; /sys whether ext4 has a
# journal.
_SYSTEM = (
    "/etc", "/proc", "/sys/fs/ext4", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/nscd",
    "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom",
)  # fmt: skip
_WRITABLE_DEVICES = ("/dev/null", "/dev/zero", "/dev/full")


class Confinement(NamedTuple):
    """``text`` is for the log; ``wanted`` but not ``active`` deserves a warning."""

    active: bool
    wanted: bool
    text: str


class Places(NamedTuple):
    """Where programs may be run from, what else may be read, and what may be written."""

    run: tuple[str, ...]
    read: tuple[str, ...]
    write: tuple[str, ...]


def confine(config: Config, config_path: Path) -> Confinement:
    """Take away what is not needed, for good. Before any thread exists; see landlock.py. Never raises.

    Temporary files of libraries and children go to data_dir/tmp from here on (TMPDIR).
    """
    if not config.confine.landlock:
        return Confinement(False, False, "not confined: [confine] landlock = false")
    data_dir = str(config.data_dir)
    scratch = os.path.join(data_dir, "tmp")
    try:
        os.makedirs(scratch, mode=0o700, exist_ok=True)
        places = needed(config, config_path)
        version = landlock.restrict(*places)
    except (landlock.LandlockError, OSError) as error:
        return Confinement(False, True, f"not confined: {error}")
    os.environ["TMPDIR"] = scratch
    return Confinement(
        True, True, f"confined (Landlock ABI {version}): writes to {', '.join(_own(config))} only"
    )


def needed(config: Config, config_path: Path) -> Places:
    """The places of one configuration. A reload cannot add to them: a file elsewhere needs a restart."""
    run = {*_PROGRAMS, *_interpreter(), *map(str, config.confine.read), *_account_programs(config)}
    read = {*_SYSTEM, *_packages(), *_around(str(config_path)), *_account_files(config)}
    for path in ("/etc/resolv.conf", "/etc/hosts", "/etc/localtime"):  # links, often
        read.update(_around(path))
    tls = config.tls
    files = [tls.certificate, tls.key, tls.client_ca]
    for pair in tls.certificates:
        files += [pair.certificate, pair.key]
    for file in files:
        if file is not None:
            read.update(_around(str(file)))
    devices = [path for path in _WRITABLE_DEVICES if os.path.exists(path)]
    return Places(tuple(sorted(run)), tuple(sorted(read)), (*_own(config), *devices))


def _own(config: Config) -> list[str]:
    """data_dir, the folders elsewhere that its first two levels are links to, the log's, and what is configured."""
    data_dir = str(config.data_dir)
    found = [data_dir]
    for folder in (data_dir, os.path.join(data_dir, "mail"), os.path.join(data_dir, "queue")):
        if os.path.isdir(folder):
            with os.scandir(folder) as entries:
                found += [
                    os.path.realpath(entry.path) for entry in entries if entry.is_symlink() and entry.is_dir()
                ]
    if os.path.isabs(config.log.target):
        found.append(os.path.dirname(config.log.target))
    return [*dict.fromkeys(found), *map(str, config.confine.write)]


def _interpreter() -> Iterator[str]:
    yield from (
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
        os.path.dirname(os.path.realpath(sys.executable)),
    )


def _packages() -> Iterator[str]:
    """Ourselves and what we import; the interpreter's own are in its folders."""
    yield os.path.dirname(os.path.dirname(os.path.abspath(mailserver.__file__)))
    yield from (os.path.abspath(path) for path in sys.path if path and os.path.abspath(path) != "/")


def _account_programs(config: Config) -> Iterator[str]:
    """Folders of the programs that know accounts, and files that their arguments name."""
    backends = config.backends.values()
    for command in (config.bearer.program, *(command for b in backends for command in (b.program, b.exists))):
        yield from (place for path in command if os.path.isabs(path) for place in _around(path))


def _account_files(config: Config) -> Iterator[str]:
    """Files that a database's address names: passfile, sslrootcert and the like."""
    for backend in config.backends.values():
        for _, value in parse_qsl(urlsplit(backend.url or "").query):
            if os.path.isabs(value) and os.path.isfile(value):
                yield from _around(value)


def _around(path: str) -> Iterator[str]:
    """The folder of a file, which may be replaced there, and that of the file it is a link to (certbot)."""
    for place in {os.path.abspath(path), os.path.realpath(path)}:
        folder = os.path.dirname(place)
        yield folder if folder != "/" else place
