"""The call that a promise rests on: content and names of a whole batch, durable at once.

Where the file system has one log (journal.py) an fsync of the file that was named last is enough. Elsewhere it is one
syncfs, but a small batch that comes alone, and one that meets somebody else's data again and again, is synced file by
file.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from mailserver.store.belt import Orders
from mailserver.store.journal import has_one_log
from mailserver.store.parcel import How
from mailserver.store.task import Task
from mailserver.store.write import OpenFile

# A batch with so few files and names that comes after REST seconds without a batch with files is synced file by file: a
# syncfs would write what others left in the cache meanwhile. Within a flow of mail it is always the faster one.
SMALL, REST = 4, 0.1
# Seconds, and for each file: syncfs calls that take longer write somebody else's data. After SLOW_ROW of them in a
# row fsync is faster, and the next SLOW_BATCHES go file by file. Then one more slow one is enough.
SLOW_SYNC, SLOW_FILE, SLOW_ROW, SLOW_BATCHES = 0.01, 0.001, 4, 32

_libc = ctypes.CDLL(None, use_errno=True)


class Sync:
    """What is known of the file systems and of how long they take. ``folders``: those in which most files begin;
    ``now``: seconds, monotonic; ``one_log``: says so of a device (journal.py)."""

    def __init__(
        self, folders: Sequence[str], now: Callable[[], float], one_log: Callable[[int], bool] = has_one_log
    ) -> None:
        self._now, self._one_log = now, one_log
        self._usual: dict[str, int] = {}
        self._ordered: dict[int, bool] = {}  # by device
        with suppress(OSError):
            self._usual = dict.fromkeys(folders, os.stat(folders[0]).st_dev) if folders else {}
        for device in set(self._usual.values()):
            self._is_ordered(device)  # now, while there are descriptors to look with
        self._slow = 0  # syncfs calls in a row
        self._avoid_syncfs = 0  # batches

    def orders(self) -> Orders:
        """For batches that compiled code does alone."""
        ordered = any(map(self._is_ordered, self._usual.values()))  # they are of one device
        flow = How.NOTHING if self._avoid_syncfs else How.WHOLE
        return Orders(How.LAST if ordered else flow, REST, SLOW_SYNC, SLOW_FILE)

    def how(self, folder: str | None, files: int, names: int, *, rested: bool) -> How:
        """The last step of a batch that begins in ``folder``; asked once for each. ``rested``: it comes alone."""
        if not files:  # removals are not synced
            return How.NOTHING
        device = self._usual.get(folder or "")
        if device is not None and self._is_ordered(device):
            return How.LAST
        if self._avoid_syncfs:
            self._avoid_syncfs -= 1
            return How.NOTHING
        return How.NOTHING if rested and files + names <= SMALL else How.WHOLE

    def was_fast(self) -> None:
        """The last syncfs, of which there is nothing else to say."""
        self._slow = 0

    def took(self, seconds: float, files: int, error: int) -> None:
        """A syncfs; ``error``: errno, or 0."""
        slow = seconds > SLOW_SYNC + SLOW_FILE * files
        self._slow = self._slow + 1 if slow else 0
        if self._slow >= SLOW_ROW or error:  # an error may be of somebody else's data again and again
            self._slow, self._avoid_syncfs = SLOW_ROW - 1, SLOW_BATCHES

    def all(self, tasks: Sequence[Task], how: How) -> None:
        """Sync content and names of ``tasks``, whose content is on the device already and whose names were made in
        this order; a task that cannot be synced fails. ``how``: no syncfs if that says NOTHING."""
        devices: dict[int, list[tuple[Task, OpenFile]]] = {}
        for task in tasks:
            if task.error is None:
                for file in task.named:
                    devices.setdefault(self._device(file), []).append((task, file))
        for device, files in devices.items():
            # Whom another device has failed is undone, and its descriptors are closed.
            named = [(task, file) for task, file in files if task.error is None]
            if not named:
                continue
            if self._is_ordered(device):
                _sync_last(named)
            elif how is How.NOTHING:
                _file_by_file(named)
            else:
                self._sync_whole(named)

    def _device(self, file: OpenFile) -> int:
        return self._usual.get(file.folder) or os.fstat(file.fd).st_dev

    def _is_ordered(self, device: int) -> bool:
        if device not in self._ordered:
            self._ordered[device] = self._one_log(device)
        return self._ordered[device]

    def _sync_whole(self, named: Sequence[tuple[Task, OpenFile]]) -> None:
        """If that fails an fsync of each file would find out nothing: it says that all is well although a block of
        many files' inodes, which syncfs could not write, is lost (ext4 without a journal)."""
        start = self._now()
        error = ctypes.get_errno() if _libc.syncfs(named[0][1].fd) < 0 else 0
        self.took(self._now() - start, len(named), error)
        if error:
            _fail_all(named, OSError(error, os.strerror(error)))


def _sync_last(named: Sequence[tuple[Task, OpenFile]]) -> None:
    """The log up to the last name. If that fails nobody can be told apart, nor would a second try tell the truth."""
    try:
        os.fsync(named[-1][1].fd)
    except OSError as error:
        _fail_all(named, error)


def _fail_all(named: Sequence[tuple[Task, OpenFile]], error: OSError) -> None:
    for task, _ in named:
        if task.error is None:
            task.fail(error)


def _file_by_file(named: Sequence[tuple[Task, OpenFile]]) -> None:
    for task, file in named:
        if task.error is None:
            try:
                os.fsync(file.fd)  # the first one commits the journal for all
            except OSError as error:
                task.fail(error)
    _sync_directories({task: None for task, _ in named if task.error is None})


def _sync_directories(tasks: Iterable[Task]) -> None:
    """Each directory once; its failure is that of every job that has a name there."""
    synced: dict[str, OSError | None] = {}
    for task in tasks:
        for folder in {name.rpartition("/")[0] for file in task.files for name in file.spec.names}:
            if folder not in synced:
                synced[folder] = sync_directory(folder)
            error = synced[folder]
            if error is not None and task.error is None:
                task.fail(error)


def sync_directory(folder: str) -> OSError | None:
    """Make the names in ``folder`` durable; what prevented it, if anything. Blocking."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        return error
    return None
