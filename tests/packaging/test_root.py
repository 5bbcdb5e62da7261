"""Started as root: a low port is bound, then the process is an ordinary user for good."""

import contextlib
import os
import pwd
import re
import resource
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PORTS = (587, 589, 591, 601, 607)  # below 1024, seldom used
CONFIG = """\
hostname = "mail.example.test"
run_as = "nobody"
[smtp]
listen = ["127.0.0.1:{port}"]
[pop3]
listen = ["127.0.0.1:0"]
[log]
target = "mail.log"
[domains."example.test"]
[users."alice@example.test"]
password = "{{PLAIN}}wonderland"
"""


def free_low_port():
    for port in PORTS:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return pytest.skip("no free port below 1024 among those tried")


@pytest.fixture
def folder():
    """Not pytest's tmp_path: nobody cannot enter a directory of root's."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give privileges up")
    with tempfile.TemporaryDirectory(prefix="mailserver-root-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_a_server_started_as_root_serves_a_low_port_as_nobody(folder):
    port, config = free_low_port(), folder / "config.toml"
    config.write_text(CONFIG.format(port=port))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        os.chmod(folder / "notify", 0o777)
        manager.settimeout(20)
        server = subprocess.Popen(
            [sys.executable, "-m", "mailserver", "serve", "-c", str(config)],
            env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify")},
        )
        try:
            assert b"READY=1" in manager.recv(4096)
            status = Path(f"/proc/{server.pid}/status").read_text()
            limits = Path(f"/proc/{server.pid}/limits").read_text()
            with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
                client.sendmail("a@sender.test", ["alice@example.test"], "Subject: x\r\n\r\nhello\r\n")
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(20)
    nobody = pwd.getpwnam("nobody")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) == {str(nobody.pw_uid)}
    assert set(fields["Gid"].split()) == {str(nobody.pw_gid)}
    assert "0" not in fields["Groups"].split()
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert re.search(
        r"^Max core file size +0 +0 ", limits, re.MULTILINE
    )  # passwords and keys are in its memory
    assert code == 0
    (mail,) = (folder / "data/mail/example.test/alice/new").iterdir()
    assert mail.stat().st_uid == nobody.pw_uid
    for path in (folder / "data").rglob("*"):
        assert path.lstat().st_uid == nobody.pw_uid, path


@pytest.mark.parametrize("more", [1, 2, 3, 5])  # of one thread or another there is none
def test_a_start_without_enough_threads_ends_with_one_sentence(folder, more):
    """RLIMIT_NPROC counts all that a user runs."""
    nobody = pwd.getpwnam("nobody").pw_uid
    running = 0
    for task in Path("/proc").glob("[0-9]*/task/[0-9]*"):
        with contextlib.suppress(OSError):
            running += task.stat().st_uid == nobody
    config = folder / "config.toml"
    config.write_text(CONFIG.format(port=0))
    done = subprocess.run(
        [sys.executable, "-m", "mailserver", "serve", "-c", config], cwd=folder, capture_output=True, text=True,
        timeout=30, check=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (running + more,) * 2),
    )  # fmt: skip
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
