"""Giving up root for good (setresuid(2), prctl(2)); our answer to a privilege partition by many users.

Order in the program: bind ports and read keys → ``drop`` → ``no_new_privs`` → only then threads and the loop:
PR_SET_NO_NEW_PRIVS holds for the calling thread and the threads it starts later, not for its elder siblings.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import stat

PR_SET_NO_NEW_PRIVS = 38


class PrivilegeError(Exception):
    """We may not or cannot run as asked; ``str(error)`` says what to change."""


def drop(run_as: str | None, data_dir: str | None = None) -> bool:
    """Become ``run_as`` (a user name or number) when root, after giving it what root made in ``data_dir``.

    True when privileges were dropped, False when there were none. Raises PrivilegeError: root without
    ``run_as``, an unknown user, a user that is root or in root's group, or a kernel that lets us return.
    """
    if os.geteuid() != 0:
        return False
    user = _account(run_as)
    groups = [group for group in os.getgrouplist(user.pw_name, user.pw_gid) if group != 0]
    try:
        if data_dir is not None:
            _give(data_dir, user.pw_uid, user.pw_gid)
        os.setgroups(groups)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except OSError as error:
        raise PrivilegeError(f"cannot become {user.pw_name!r}: {error}") from error
    _verify(user)
    # Libraries and programs look for their files there: not in root's home, which is closed to us now.
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
    return True


def no_new_privs() -> None:
    """From here on no execve(2) gains privileges: set-uid programs and file capabilities are void."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise PrivilegeError(f"prctl(PR_SET_NO_NEW_PRIVS): {os.strerror(number)}")


def no_cores() -> None:
    """No core file of us or of the programs we start (setrlimit(2)): passwords and keys are in our memory.

    Programs that take cores from the kernel (core(5)), systemd-coredump among them, respect the limit."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _account(run_as: str | None) -> pwd.struct_passwd:
    if run_as is None:
        raise PrivilegeError(
            'started as root without run_as: set run_as = "mail" (any ordinary user) at the top of the '
            "configuration, or start as that user"
        )
    user = user_of(run_as)
    if user is None or unsuitable(run_as, user) is not None:
        raise PrivilegeError(": ".join(("run_as", *(unsuitable(run_as, user) or ()))))
    return user


def user_of(run_as: str) -> pwd.struct_passwd | None:
    """The user of this name or number, if there is one."""
    try:
        return pwd.getpwuid(int(run_as)) if run_as.isdecimal() else pwd.getpwnam(run_as)
    except (KeyError, OverflowError):
        return None


def unsuitable(run_as: str, user: pwd.struct_passwd | None) -> tuple[str, str] | None:
    """What is wrong with running as that user, and what would be right; None: nothing."""
    if user is None:
        return f"there is no user {run_as!r}", f"`useradd --system {run_as}` makes one"
    if user.pw_uid == 0 or user.pw_gid == 0:
        return f"{run_as!r} is root, or its group is", "name an ordinary user"
    return None


def _verify(user: pwd.struct_passwd) -> None:
    if set(os.getresuid()) != {user.pw_uid} or set(os.getresgid()) != {user.pw_gid} or 0 in os.getgroups():
        raise PrivilegeError("privileges were not dropped completely")
    for name, regain in (("uid", os.setuid), ("gid", os.setgid)):
        try:
            regain(0)
        except PermissionError:
            continue
        raise PrivilegeError(f"{name} 0 could be taken back: a capability was kept")


def _give(data_dir: str, uid: int, gid: int) -> None:
    """chown what belongs to root in ``data_dir``.

    Below the first level only directories that are still root's own are entered, so a store of a million
    messages costs nothing. Links are not followed, and a file with a second name is left alone: the user we
    become could have put a name of somebody else's file there.
    """
    os.makedirs(data_dir, mode=0o750, exist_ok=True)
    for path, directories, files, fd in os.fwalk(data_dir, follow_symlinks=False):
        for name in files:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if status.st_uid == 0 and status.st_nlink == 1 and stat.S_ISREG(status.st_mode):
                os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
        if path != data_dir:
            directories[:] = [name for name in directories if os.stat(name, dir_fd=fd).st_uid == 0]
        if os.fstat(fd).st_uid == 0:
            os.fchown(fd, uid, gid)
