"""Putting content into an open file: parts in memory and slices of files. Short writes are continued."""

from __future__ import annotations

import ctypes
import errno
import os

from mailserver.store.job import FileSlice, NewFile

_IOV_MAX = 1024  # limits.h
START_WRITING, WRITE_AND_WAIT = 2, 7  # flags of sync_file_range(2)
_NOT_ANONYMOUS = {
    errno.EOPNOTSUPP,
    errno.EISDIR,
    errno.EINVAL,
    errno.ENOENT,
}  # the last: a folder was removed
_NO_SUCH_CALL = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ESPIPE}
_sync_file_range = ctypes.CDLL(None, use_errno=True).sync_file_range
_sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]


class OpenFile:
    """A file being written, begun in ``folder``. ``tmp``: its name there, if any; ``grown``: length before, if
    adopted, else -1; ``pushed``: its content is on the device."""

    __slots__ = ("fd", "folder", "grown", "pushed", "spec", "tmp")

    def __init__(
        self, spec: NewFile, fd: int, folder: str, tmp: str | None, grown: int = -1, *, pushed: bool = False
    ) -> None:
        self.spec, self.fd, self.folder, self.tmp, self.grown = spec, fd, folder, tmp, grown
        self.pushed = pushed


def create(spec: NewFile, nursery: str | None = None) -> OpenFile:
    """Open what ``spec`` is to be written to, at its end: in the folder ``nursery``, without a name, where there is
    one and the file system can; else below ``tmp/``, which is made where it is missing."""
    if spec.adopt is not None:
        fd = os.open(spec.adopt, os.O_RDWR | os.O_CLOEXEC)
        return OpenFile(spec, fd, spec.adopt.rpartition("/")[0], spec.adopt, os.lseek(fd, 0, os.SEEK_END))
    if nursery is not None and not spec.replace:
        try:
            fd = os.open(nursery, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            return OpenFile(spec, fd, nursery, None)
        except OSError as error:
            if error.errno not in _NOT_ANONYMOUS:
                raise
    folder = spec.tmp.rpartition("/")[0]
    try:
        fd = _create_named(spec.tmp)
    except FileNotFoundError:
        # Somebody tidied it away, as it was empty. Not synced, as what is in it is not.
        os.mkdir(folder, 0o700)
        fd = _create_named(spec.tmp)
    return OpenFile(spec, fd, folder, spec.tmp)


def _create_named(path: str) -> int:
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)


def fill(fd: int, parts: tuple[bytes | FileSlice, ...]) -> None:
    """Write all of ``parts`` at the descriptor's position."""
    plain = [part for part in parts if type(part) is bytes]
    if len(plain) == len(parts) <= _IOV_MAX:
        size = sum(map(len, plain))
        written = os.writev(fd, plain)
        if written < size:  # a disk filling up takes what it can and says why at the next call
            _write(fd, b"".join(plain)[written:])
        return
    for part in parts:
        if isinstance(part, FileSlice):
            source = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                copy(fd, source, part.offset, part.length)
            finally:
                os.close(source)
        else:
            _write(fd, part)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def copy(target: int, source: int, offset: int, length: int) -> None:
    while length:
        copied = os.sendfile(target, source, offset, length)
        if not copied:
            raise OSError(errno.EIO, "file to copy from is shorter than it should be")
        offset += copied
        length -= copied


def start_writing(fd: int) -> None:
    """Begin to bring the content to the device; errors are those of ``wait_written``."""
    _sync_file_range(fd, 0, 0, START_WRITING)


def wait_written(fd: int) -> bool:
    """Until the content is on the device: no metadata, no flush of its cache. Raises OSError; False where the file
    system cannot do that."""
    if _sync_file_range(fd, 0, 0, WRITE_AND_WAIT) == 0:
        return True
    number = ctypes.get_errno()
    if number not in _NO_SUCH_CALL:
        raise OSError(number, os.strerror(number))
    return False
