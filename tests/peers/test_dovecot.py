"""A real Dovecot as next hop by LMTP (RFC 2033): one answer for each recipient after the dot."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import require
from test_postfix import RULE, connect, wait_for

pytestmark = pytest.mark.timeout(120)
HEAD = "From: a@sender.test\r\nSubject: by LMTP\r\n\r\n"


class Dovecot:
    """LMTP on ``port``; mailboxes are made on demand, except for who is not in the passwd file."""

    def __init__(self, folder: Path, port: int) -> None:
        nobody = pwd.getpwnam("nobody")
        self.folder, self.mail = folder, folder / "mail"
        self.mail.mkdir()
        os.chown(self.mail, nobody.pw_uid, nobody.pw_gid)
        (folder / "passwd").write_text(
            "ok:{PLAIN}x::::::\nsmall:{PLAIN}x::::::userdb_quota_rule=*:bytes=2000\n"
        )
        self.config = folder / "dovecot.conf"
        self.config.write_text(f"""\
base_dir = {folder}/base
state_dir = {folder}/state
instance_name = test-{port}
protocols = lmtp
listen = 127.0.0.1
ssl = no
log_path = {folder}/log
auth_username_format = %n
mail_location = maildir:{self.mail}/%n
first_valid_uid = 1
mail_plugins = quota
plugin {{
  quota = maildir:User quota
}}
passdb {{
  driver = passwd-file
  args = {folder}/passwd
}}
userdb {{
  driver = passwd-file
  args = {folder}/passwd
  override_fields = uid={nobody.pw_uid} gid={nobody.pw_gid} home={self.mail}/%n
}}
service lmtp {{
  inet_listener lmtp {{
    port = {port}
  }}
}}
""")

    def received(self, user: str) -> list[bytes]:
        return [file.read_bytes() for file in (self.mail / user).glob("new/*")]


@pytest.fixture
def dovecot() -> Iterator[Callable[[int], Dovecot]]:
    """Call with a port to start one."""
    require("dovecot")
    if not Path("/usr/lib/dovecot/lmtp").exists():
        pytest.skip("Dovecot's LMTP server is not installed (dovecot-lmtpd)")
    if os.getuid() != 0:
        pytest.skip("Dovecot needs root to start")
    running: list[tuple[Dovecot, subprocess.Popen[bytes]]] = []

    def start(port: int) -> Dovecot:
        folder = Path(tempfile.mkdtemp(prefix="dovecot-"))  # pytest's own folders are closed to other users
        folder.chmod(0o755)
        peer = Dovecot(folder, port)
        running.append((peer, subprocess.Popen([require("dovecot"), "-F", "-c", peer.config])))
        return peer

    yield start
    for peer, process in running:
        process.terminate()
        process.wait(20)
        shutil.rmtree(peer.folder)


def test_every_recipient_gets_an_answer_of_its_own(
    server_factory: Callable[..., Any], dovecot: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    port = free_port()
    peer = dovecot(port)
    connect(port).quit()
    extra = f'{RULE}[routes]\n"lists.test" = "lmtp://127.0.0.1:{port}"\n[queue]\nretry = "1s"\n'
    server = server_factory(extra)
    text = HEAD + ".dot\r\n" + "x" * 70 + "\r\n"
    everybody = ["ok@lists.test", "unknown@lists.test", "small@lists.test"]
    with server.smtp() as smtp:
        smtp.sendmail("alice@example.test", everybody, text)
        wait_for(lambda: server.pop3().stat()[0] == 1)  # unknown, at RCPT
        smtp.sendmail("alice@example.test", everybody[::2], text + ("y" * 70 + "\r\n") * 40)
        wait_for(lambda: server.pop3().stat()[0] == 2)  # over quota, after the dot
    wait_for(lambda: server.run("queue", "list", "--json").stdout.strip() == "[]")
    reports = [b"\n".join(server.pop3().retr(n)[1]) for n in (1, 2)]
    assert b"Final-Recipient: rfc822; unknown@lists.test" in reports[0]
    assert b"\nStatus: 5.1.1" in reports[0]
    assert b"Final-Recipient: rfc822; small@lists.test" in reports[1]
    assert b"\nStatus: 5.2.2" in reports[1]
    assert b"Diagnostic-Code: smtp; 552 5.2.2" in reports[1]
    assert not any(b"ok@lists.test" in report for report in reports)
    assert (len(peer.received("ok")), len(peer.received("small"))) == (2, 1)
    stored = text.replace("\r\n", "\n").encode()
    assert any(message.endswith(stored) for message in peer.received("ok"))
    assert peer.received("small")[0].endswith(stored)
