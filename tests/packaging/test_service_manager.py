"""The server under a service manager: ready, alive, reloading, with inherited sockets (sd_notify(3))."""

import os
import signal
import smtplib
import socket
import subprocess
import sys

import pytest

CONFIG = """\
hostname = "mail.example.test"
data_dir = "data"
[smtp]
listen = ["127.0.0.1:0"]
[pop3]
listen = []
[domains."example.test"]
"""
# What the service manager does between fork and exec.
EXEC = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "smtp"}
os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(20)
        yield receiver


def wait_for(manager, variable):
    """The first message that sets ``variable``."""
    while True:
        message = manager.recv(4096).decode().split("\n")
        if variable in message:
            return message


def test_a_service_manager_hears_ready_alive_reloading_and_stopping(tmp_path, manager):
    (tmp_path / "config.toml").write_text(CONFIG)
    listener = socket.create_server(("127.0.0.1", 0))
    command = ["-m", "mailserver", "serve", "-c", str(tmp_path / "config.toml")]
    server = subprocess.Popen(
        [sys.executable, "-c", EXEC, str(listener.fileno()), *command],
        pass_fds=[listener.fileno()],
        env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"},
    )
    try:
        wait_for(manager, "READY=1")
        with smtplib.SMTP(*listener.getsockname(), timeout=20) as client:
            assert client.noop()[0] == 250
        wait_for(manager, "WATCHDOG=1")
        server.send_signal(signal.SIGHUP)
        assert any(variable.startswith("MONOTONIC_USEC=") for variable in wait_for(manager, "RELOADING=1"))
        wait_for(manager, "READY=1")
        server.send_signal(signal.SIGTERM)
        wait_for(manager, "STOPPING=1")
        assert server.wait(20) == 0
    finally:
        listener.close()
        server.kill()
        server.wait()
