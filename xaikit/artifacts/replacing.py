"""Files that appear whole or not at all: written aside, flushed to the disk, then renamed.

What is written aside is locked for as long as its process lives, whatever machine or container
that process is in, so that a later run can tell what a killed one left behind and removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from xaikit.errors import UsageError, XaikitError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and nothing of another process removed.
    fcntl = None  # type: ignore[assignment]

_OURS = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.partial")
_WRONG_PLACE = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "ELOOP")
) | {errno.ENAMETOOLONG, errno.EINVAL}
_unfinished: set[Path] = set()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name beside `path` and rename it to `path` on success.

    A link stays one, and what it points to is replaced. The file's mode follows the umask. What
    killed processes left of the same file is removed first.

    Raises
    ------
    UsageError
        `path` is empty, a folder, a device, a pipe or a socket, or its folder cannot be written
        to.
    XaikitError
        The disk is full or broken.
    """
    target = _target(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent, target.name)
        handle, temporary = _create(target)
        try:
            yield temporary
            _flush(temporary)
            os.replace(temporary, target)
            _flush_folder(target.parent)
        finally:
            os.close(handle)
    except BrokenPipeError:
        raise
    except OSError as error:
        # The body may fail at another file, whose name the error carries.
        ours = (None, str(path), str(target), str(target.parent), str(temporary))
        if error.filename is not None and os.fsdecode(error.filename) not in ours:
            raise
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            _unfinished.discard(temporary)


def cannot_write(path: str | os.PathLike[str], error: OSError) -> XaikitError:
    """One line for a place that cannot be written to, or for a disk that is full or broken."""
    kind = UsageError if error.errno in _WRONG_PLACE else XaikitError
    return kind(f"cannot write {path}: {(error.strerror or str(error)).lower()}")


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left of unfinished files in `folder`.

    Parameters
    ----------
    folder : Path
    name : str, optional
        Only what was to become this file; by default whatever `replacing` made.
    """
    # The second form is that of earlier versions, whose names do not say enough without `name`.
    ours = (
        _OURS
        if name is None
        else re.compile(
            rf"\.{re.escape(_short(name))}\.(\d+-[0-9a-f]{{8}}|[a-z0-9_]{{8}})\.partial"
        )
    )
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if ours.fullmatch(entry.name) and _is_abandoned(entry.path):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def remove_unfinished() -> None:
    """Remove this process's own unfinished files: for an end that nothing else can wait for."""
    for path in list(_unfinished):
        with contextlib.suppress(OSError):
            path.unlink()


def _target(path: str | os.PathLike[str]) -> Path:
    """The file to replace: what `path` points to, if it may be replaced at all."""
    if not os.fspath(path):
        raise UsageError("a file name to write to is empty")
    try:
        target = Path(os.path.realpath(path) if os.path.islink(path) else path)
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot write {path}: {words.lower()}") from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a folder; pass a file name to write to")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is {_kind(mode)}, which cannot hold a file; pass a file name")
    if not os.access(target, os.W_OK):
        raise UsageError(f"cannot write {path}: it is write-protected")
    return target


def _kind(mode: int) -> str:
    kinds = {stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a pipe")


def _short(name: str) -> str:
    """So much of a file's name as leaves room for what a temporary name adds."""
    return os.fsdecode(os.fsencode(name)[:200])


def _create(target: Path) -> tuple[int, Path]:
    """A new, locked file beside `target`: its handle and name."""
    while True:
        tail = f"{os.getpid()}-{secrets.token_hex(4)}"
        path = target.parent / f".{_short(target.name)}.{tail}.partial"
        _unfinished.add(path)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError as error:
            # It is not ours to remove, and its name says nothing to whoever asked for `target`.
            _unfinished.discard(path)
            error.filename = str(target)
            raise
        try_lock(handle)
        # Another run may have taken it for abandoned before it was locked.
        if os.fstat(handle).st_nlink:
            return handle, path
        os.close(handle)
        _unfinished.discard(path)


def try_lock(handle: int) -> bool | None:
    """Whether this process now holds the file; None where the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def wait_for_lock(handle: int) -> None:
    """Hold the file as soon as nobody else does."""
    assert fcntl is not None
    fcntl.flock(handle, fcntl.LOCK_EX)


def _is_abandoned(path: str) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(handle).st_mode) and try_lock(handle) is True
    finally:
        os.close(handle)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(folder: Path) -> None:
    # The file is whole by now; some file systems do not flush folders.
    with contextlib.suppress(OSError):
        _flush(folder)
