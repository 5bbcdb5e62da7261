"""The process and its surroundings: service manager, limits, lock, disk."""

import fcntl
import os
import re
import resource
import shutil
import socket
import struct
import subprocess
import sys
import time

import pytest

from mailserver.events import DiskLow, DiskRecovered, Problem
from mailserver.host import limits, notify
from mailserver.host.disk import DiskWatch
from mailserver.host.lock import DataDirLock, DirectoryInUseError

EXT4_IOC_SHUTDOWN = 0x8004587D  # linux/ext4.h


# ---- sd_notify(3) ----
@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    name = f"@mailserver-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield receiver


def told(manager):
    return manager.recv(4096).decode().split("\n")


def test_the_service_manager_hears_every_step(manager):
    assert notify.ready("3 listeners")
    assert told(manager) == ["READY=1", "STATUS=3 listeners"]
    before = time.monotonic_ns() // 1000
    assert notify.reloading()
    first, stamp, _status = told(manager)
    assert first == "RELOADING=1"
    assert before <= int(re.fullmatch(r"MONOTONIC_USEC=(\d+)", stamp)[1]) <= time.monotonic_ns() // 1000
    assert notify.watchdog()
    assert told(manager) == ["WATCHDOG=1"]
    assert notify.status("two\nlines")
    assert told(manager) == ["STATUS=two lines"]
    assert notify.stopping()
    assert told(manager)[0] == "STOPPING=1"


def test_without_or_with_a_dead_service_manager_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert notify.ready() is False
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert notify.watchdog() is False


def test_the_watchdog_is_fed_twice_in_its_time(monkeypatch):
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert notify.watchdog_interval() is None
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert notify.watchdog_interval() == 15.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert notify.watchdog_interval() is None


# ---- limits ----
def test_the_soft_limit_on_descriptors_becomes_the_hard_one():
    saved = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, saved[1]))
        assert limits.raise_nofile() == (512, saved[1])
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (saved[1], saved[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, saved)


# ---- lock ----
HOLD = """
import sys
from mailserver.host.lock import DataDirLock
DataDirLock(sys.argv[1]).acquire()
print("held", flush=True)
input()
"""


def test_a_second_server_is_told_the_pid_and_a_killed_one_leaves_no_lock(tmp_path):
    data = tmp_path / "new" / "data"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DirectoryInUseError, match=f"pid {holder.pid}") as caught:
            DataDirLock(str(data)).acquire()
        assert caught.value.pid == holder.pid
        holder.kill()
    with DataDirLock(str(data)):
        assert (data / "lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(DirectoryInUseError, match=f"pid {os.getpid()}"):
            DataDirLock(str(data)).acquire()
    DataDirLock(str(data)).acquire()


def test_a_disk_without_room_for_the_pid_prevents_no_start(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # EFBIG at the first octet, where a full disk says ENOSPC.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with DataDirLock(str(tmp_path)), pytest.raises(DirectoryInUseError):
            DataDirLock(str(tmp_path)).acquire()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ---- disk ----
def test_low_space_is_said_once_and_recovery_needs_a_margin(tmp_path):
    seen = []
    status = os.statvfs(tmp_path)
    space = status.f_bavail * status.f_frsize
    watch = DiskWatch(str(tmp_path), reserve=0, emit=seen.append)
    assert watch.check()
    watch.reserve = space * 2
    assert not watch.check()
    assert not watch.check()
    (low,) = seen
    assert isinstance(low, DiskLow)
    assert (low.path, low.reserve) == (str(tmp_path), space * 2)
    watch.reserve = int(space * 0.95)  # enough, but less than a tenth more than enough
    assert not watch.check()
    watch.reserve = space // 2
    assert watch.check()
    assert watch.check()
    assert isinstance(seen[1], DiskRecovered)
    assert len(seen) == 2


def test_a_directory_that_is_gone_counts_as_full(tmp_path):
    seen = []
    watch = DiskWatch(str(tmp_path / "gone"), reserve=0, emit=seen.append)
    assert not watch.check()
    assert not watch.check()
    (problem,) = seen
    assert isinstance(problem, Problem)
    (tmp_path / "gone").mkdir()
    assert watch.check() and watch.check()
    assert [type(event) for event in seen] == [Problem, DiskRecovered]


def test_a_read_only_file_system_counts_as_full_until_it_is_writable(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=False).returncode:
        pytest.skip("not allowed to mount")
    seen = []
    watch = DiskWatch(str(tmp_path), reserve=0, emit=seen.append)
    try:
        assert watch.has_room()
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        assert not watch.check() and not watch.has_room()
        (problem,) = seen
        assert isinstance(problem, Problem) and "read-only" in problem.text
        subprocess.run(["mount", "-o", "remount,rw", tmp_path], check=True)
        assert watch.check()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.fixture
def ext4(tmp_path):
    """A small file system of its own at ``data``, and what shuts it down. statvfs(2) shows nothing of it: that is how
    ext4 and XFS give up a device that fails."""
    image, folder = tmp_path / "image", tmp_path / "data"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    if not shutil.which("mkfs.ext4"):
        pytest.skip("no mkfs.ext4")
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    mount = ["mount", "-o", "loop", image, folder]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("not allowed to mount")

    def shut_down():
        fd = os.open(folder, os.O_RDONLY)
        fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", 2))  # without flushing its log
        os.close(fd)

    yield folder, mount, shut_down
    subprocess.run(["umount", folder], check=False)


def test_a_file_system_that_shut_down_is_found_sick_by_writing_until_it_is_well(ext4):
    folder, mount, shut_down = ext4
    seen = []
    watch = DiskWatch(str(folder), reserve=0, emit=seen.append)
    watch.try_writing()
    assert not watch.sick and watch.check() and os.listdir(folder) == ["lost+found"]  # nothing is left behind
    shut_down()
    watch.try_writing()
    assert watch.sick and not watch.has_room() and not watch.check()
    (problem,) = seen
    assert isinstance(problem, Problem) and "cannot write" in problem.text
    subprocess.run(["umount", folder], check=True)
    subprocess.run(mount, check=True)
    watch.try_writing()
    assert not watch.sick and watch.has_room() and watch.check()
    assert [type(event) for event in seen] == [Problem, DiskRecovered]


def test_a_commit_that_fails_closes_the_door_before_the_next_message_is_sent_in_vain(ext4, server_factory):
    _, _, shut_down = ext4
    server = server_factory('[limits]\ndisk_reserve = "1 MiB"\n')
    with server.smtp() as client:
        client.ehlo()
        client.mail("a@remote.test")
        client.rcpt("alice@example.test")
        shut_down()
        assert client.data(b"in vain")[0] == 451
        deadline = time.monotonic() + 10
        while (reply := client.mail("a@remote.test"))[0] == 250 and time.monotonic() < deadline:
            client.rset()
    assert reply[0] == 452
    assert server.stop() == 0
    (problem,) = [event for event in server.events() if event.get("component") == "disk"]
    assert "cannot write" in problem["text"]


def test_a_folder_that_only_permits_no_new_names_is_not_a_sick_disk(tmp_path):
    """What is written lies further below, and one broken mailbox must not close the door for all others."""
    (tmp_path / "mail").mkdir()
    if subprocess.run(["chattr", "+i", tmp_path], check=False, capture_output=True).returncode:
        pytest.skip("not allowed to make a folder immutable")
    try:
        with pytest.raises(PermissionError):
            (tmp_path / "new").touch()
        (tmp_path / "mail" / "new").touch()
        watch = DiskWatch(str(tmp_path), reserve=0, emit=lambda event: pytest.fail(str(event)))
        watch.try_writing()
        assert not watch.sick and watch.check()
    finally:
        subprocess.run(["chattr", "-i", tmp_path], check=True)


def test_a_disk_that_could_not_be_tried_for_want_of_a_descriptor_is_not_called_sick(tmp_path):
    watch = DiskWatch(str(tmp_path), reserve=0, emit=lambda event: pytest.fail(str(event)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        watch.try_writing()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not watch.sick and watch.check()
