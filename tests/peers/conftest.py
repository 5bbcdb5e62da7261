"""Real programs: a Postfix in a folder of its own, as next hop of ours and as client of ours, and what is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

POSTFIX = shutil.which("postfix", path="/usr/sbin:/usr/bin")
MASTER = Path("/usr/share/postfix/master.cf.dist")


def require(program: str) -> str:
    """The program's path; without it the test is skipped, except in CI where `make test` must have installed it."""
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        message = f"{program} is not installed (make test installs it when run as root)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


class Postfix:
    """One instance on ``port``: relays to ``next_hop``, keeps mail for sink.test in ``mail``."""

    def __init__(self, folder: Path, port: int, next_hop: int) -> None:
        self.folder, self.port, self.mail = folder, port, folder / "mail"
        self.etc = folder / "etc"
        for name in ("etc", "spool", "data", "mail"):
            (folder / name).mkdir(parents=True)
        user = pwd.getpwnam("nobody")
        os.chown(folder / "data", pwd.getpwnam("postfix").pw_uid, -1)
        os.chown(self.mail, user.pw_uid, user.pw_gid)
        master = MASTER.read_text().replace("smtp      inet", f"127.0.0.1:{port} inet", 1)
        rows = [line.split(None, 7) for line in master.splitlines() if line and line[0] not in "# \t"]
        for row in rows:
            row[4] = "n" if row[4] in {"y", "-"} else row[4]  # no chroot
        (self.etc / "master.cf").write_text("\n".join(" ".join(row) for row in rows) + "\n")
        (self.etc / "main.cf").write_text(self._main(next_hop, user.pw_uid, user.pw_gid))

    def _main(self, next_hop: int, uid: int, gid: int) -> str:
        return f"""\
compatibility_level = 3.6
queue_directory = {self.folder}/spool
data_directory = {self.folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = postfix.test
mydestination =
mynetworks = 127.0.0.0/8
biff = no
alias_maps =
alias_database =
maillog_file = /dev/stdout
maillog_file_prefixes = /dev
virtual_mailbox_domains = sink.test
virtual_mailbox_base = {self.mail}
virtual_mailbox_maps = inline:{{ok@sink.test=ok/, other@sink.test=other/}}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
default_transport = smtp:[127.0.0.1]:{next_hop}
smtp_tls_security_level = may
"""

    def start(self) -> Postfix:
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                ["/usr/sbin/postfix", "-c", str(self.etc), "start-fg"], stdout=log, stderr=subprocess.STDOUT
            )
        return self

    def stop(self) -> None:
        subprocess.run(["/usr/sbin/postfix", "-c", str(self.etc), "abort"], capture_output=True, check=False)
        self.process.wait(20)


@pytest.fixture
def program() -> Callable[[str], str]:
    """Call with a name; its path."""
    return require


@pytest.fixture
def postfix() -> Iterator[Callable[[int, int], Postfix]]:
    """Call with (port, next hop's port) to start one."""
    require("postfix")
    if os.getuid() != 0:
        pytest.skip("Postfix's own daemons need root to start")
    started: list[Postfix] = []

    def start(port: int, next_hop: int) -> Postfix:
        folder = Path(tempfile.mkdtemp(prefix="postfix-"))  # pytest's own folders are closed to other users
        folder.chmod(0o755)
        started.append(Postfix(folder, port, next_hop).start())
        return started[-1]

    yield start
    for instance in started:
        instance.stop()
        shutil.rmtree(instance.folder)
