"""Files are replaced whole, flushed, through links, and never in place of a device."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys

import pytest
import torch

from xaikit.artifacts import replacing as module
from xaikit.artifacts.files import write_json, write_tensors
from xaikit.artifacts.replacing import remove_abandoned, remove_unfinished, replacing
from xaikit.errors import UsageError, XaikitError


def write(path, text="new"):
    with replacing(path) as temporary:
        temporary.write_text(text)


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "a"
    write(path, "old")
    inode = path.stat().st_ino
    with path.open() as reader:
        with replacing(path) as temporary:
            temporary.write_text("new")
            made = temporary.stat().st_ino
            assert path.read_text() == "old"
        assert reader.read() == "old"
    # Renamed, not copied: the file that was written aside is the file.
    assert path.stat().st_ino == made != inode
    assert names(tmp_path) == ["a"]


def test_data_is_on_the_disk_before_the_name_and_the_name_after(tmp_path, monkeypatch):
    steps = []

    def told(name, real, describe):
        def call(*args, **more):
            steps.append((name, describe(*args)))
            return real(*args, **more)

        monkeypatch.setattr(os, name, call)

    def synced(handle):
        status = os.fstat(handle)
        return "folder" if stat.S_ISDIR(status.st_mode) else status.st_size

    told("fsync", os.fsync, synced)
    told("replace", os.replace, lambda source, target: os.path.basename(target))
    write(tmp_path / "a", "four")
    assert steps == [("fsync", 4), ("replace", "a"), ("fsync", "folder")]


def fail_while_writing(path, error):
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise error


def test_what_fails_leaves_what_was_there(tmp_path):
    write(tmp_path / "a", "old")
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error):
            fail_while_writing(tmp_path / "a", error)
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077])
@pytest.mark.parametrize("save", [write, lambda p: write_json(p, {"a": 1})])
def test_modes_follow_the_umask(tmp_path, mask, save):
    before = os.umask(mask)
    try:
        save(tmp_path / "a")
        write_tensors(tmp_path / "b", {"x": torch.zeros(2)}, {})
    finally:
        os.umask(before)
    for name in "ab":
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask


def test_links_stay_links(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "t").write_text("old")
    (tmp_path / "link").symlink_to("big/t")
    (tmp_path / "chain").symlink_to("link")
    (tmp_path / "dangling").symlink_to("big/new")
    write(tmp_path / "chain", "through")
    assert (tmp_path / "big" / "t").read_text() == "through"
    write(tmp_path / "dangling", "made")
    assert (tmp_path / "big" / "new").read_text() == "made"
    assert all((tmp_path / name).is_symlink() for name in ("link", "chain", "dangling"))
    assert names(tmp_path / "big") == ["new", "t"]


def refused(path, *words):
    with pytest.raises(UsageError) as caught, replacing(path):
        pytest.fail("was opened")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_what_is_no_file_is_refused_and_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    os.symlink("fifo", "to-fifo")
    os.symlink("loop", "loop")
    os.mkdir("folder")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("sock")
        before = {name: os.lstat(name) for name in names(tmp_path)}
        refused("fifo", "fifo", "a pipe")
        refused("to-fifo", "a pipe")
        refused("sock", "a socket")
        refused("folder", "is a folder")
        refused("loop", "loop")
        refused("", "empty")
        refused("a\0b", "a\0b")
        refused("x" * 300, "name too long")
        assert {name: os.lstat(name) for name in names(tmp_path)}.keys() == before.keys()
        for name, status in before.items():
            assert (os.lstat(name).st_ino, os.lstat(name).st_mode) == (
                status.st_ino,
                status.st_mode,
            )


def test_devices_are_refused_by_what_they_are(tmp_path, monkeypatch):
    # No real device is named: one kept from a test is worth more than a line less here.
    path = tmp_path / "null"
    path.write_text("stays")
    status = os.stat(path)
    device = os.stat_result((stat.S_IFCHR | 0o666, *status[1:]))
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda p, **k: device if p == path else real(p, **k))
    refused(path, "a device")
    monkeypatch.undo()
    assert path.read_text() == "stays"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_write_protected_files_are_refused(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o444)
    refused(tmp_path / "a", "write-protected")


def test_a_long_name_has_room_for_what_a_temporary_one_adds(tmp_path):
    for name in ("x" * 255, "é" * 127):
        write(tmp_path / name)
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, XaikitError), (errno.EIO, XaikitError), (errno.EROFS, UsageError)],
)
def test_a_full_or_broken_disk_is_one_line(tmp_path, monkeypatch, number, kind):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind, match=f"cannot write .*a: {os.strerror(number).lower()}") as caught:
        write(tmp_path / "a")
    assert caught.type is kind
    assert names(tmp_path) == []


def test_errors_at_other_files_keep_their_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), replacing(tmp_path / "a"):
        (tmp_path / "elsewhere").read_text()


def killed_while_writing(path):
    """Leave what a killed process leaves."""
    script = (
        "import os, signal, sys\n"
        "from xaikit.artifacts.replacing import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=60)


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    killed_while_writing(tmp_path / "a")
    (left,) = names(tmp_path)
    assert left.startswith(".a.")
    assert left.endswith(".partial")
    (tmp_path / ".a.k3jd_9xz.partial").write_text("of an earlier version")
    write(tmp_path / "a")
    assert names(tmp_path) == ["a"]


def test_only_what_a_run_made_is_its_to_remove(tmp_path):
    mine = [".a.partial", ".film.mkv.partial", ".a.notes.partial", "a.1-12345678.partial", ".b"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".a.1-12345678.partial").mkdir()
    write(tmp_path / "a")
    remove_abandoned(tmp_path)
    assert names(tmp_path) == sorted([*mine, ".a.1-12345678.partial", "a"])


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    with replacing(tmp_path / "a") as first:
        first.write_text("first")
        with replacing(tmp_path / "a") as second:
            second.write_text("second")
        remove_abandoned(tmp_path)
        assert first.read_text() == "first"
    assert (tmp_path / "a").read_text() == "first"


def test_only_a_plain_file_that_is_locked_for_sure_is_anybody_s_leftover(tmp_path, monkeypatch):
    """Neither a pipe of such a name, nor anything on a file system that has no locks."""
    os.mkfifo(tmp_path / ".a.1-12345678.partial")
    remove_abandoned(tmp_path)
    assert names(tmp_path) == [".a.1-12345678.partial"]
    (tmp_path / ".b.1-12345678.partial").write_text("of whom?")

    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", none)
    remove_abandoned(tmp_path)
    assert names(tmp_path) == [".a.1-12345678.partial", ".b.1-12345678.partial"]


def test_a_name_that_goes_on_after_ours_is_not_ours(tmp_path):
    for name in (".a.1-12345678.partial.txt", ".t.x.99-0123abcd.partial~"):
        (tmp_path / name).write_text("mine")
    write(tmp_path / "a")
    remove_abandoned(tmp_path)
    assert len(names(tmp_path)) == 3


def test_a_name_is_no_pattern(tmp_path):
    (tmp_path / ".axb.1-12345678.partial").write_text("of another file")
    write(tmp_path / "a.b")
    assert names(tmp_path) == [".axb.1-12345678.partial", "a.b"]


def test_a_temporary_name_that_is_taken_is_never_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(module.secrets, "token_hex", lambda _: "0123abcd")
    monkeypatch.setattr(module, "remove_abandoned", lambda *_: None)
    taken = tmp_path / f".a.{os.getpid()}-0123abcd.partial"
    taken.write_text("another's")
    with pytest.raises(UsageError, match="file exists"), replacing(tmp_path / "a"):
        pytest.fail("was opened")
    remove_unfinished()
    assert taken.read_text() == "another's"


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EACCES, UsageError), (errno.ENOSPC, XaikitError)]
)
def test_a_folder_that_takes_no_file_is_one_line(tmp_path, monkeypatch, number, kind):
    real = os.open

    def no(path, *more):
        if str(path).endswith(".partial"):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *more)

    monkeypatch.setattr(os, "open", no)
    with pytest.raises(kind) as caught:
        write(tmp_path / "a")
    assert caught.type is kind
    assert str(caught.value) == f"cannot write {tmp_path / 'a'}: {os.strerror(number).lower()}"
    assert not module._unfinished


def test_a_temporary_file_that_was_swept_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    real, swept = module.try_lock, []

    def late(handle):
        if not swept:
            # Another run is faster, once.
            swept.extend(tmp_path.iterdir())
            swept[0].unlink()
        return real(handle)

    monkeypatch.setattr(module, "try_lock", late)
    with replacing(tmp_path / "a") as temporary:
        # The name that was taken away is nobody's any more, and not locked.
        assert temporary not in swept
        temporary.write_text("new")
    assert len(swept) == 1
    assert names(tmp_path) == ["a"]
    assert not module._unfinished


def test_nothing_stays_open_or_locked(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        write(tmp_path / "a")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_reader_that_went_away_is_no_place_that_cannot_be_written(tmp_path):
    with pytest.raises(BrokenPipeError), replacing(tmp_path / "a"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["ELOOP", "ENAMETOOLONG", "EINVAL", "EACCES", "EISDIR"])
def test_a_place_that_is_wrong_is_wrong_usage(name):
    error = OSError(getattr(errno, name), "no")
    assert isinstance(module.cannot_write("a", error), UsageError)


def test_a_folder_is_swept_of_every_abandoned_file(tmp_path):
    (tmp_path / ".t.safetensors.99-0123abcd.partial").write_text("left")
    remove_abandoned(tmp_path)
    remove_abandoned(tmp_path / "absent")
    assert names(tmp_path) == []


def test_the_last_resort_removes_what_is_unfinished(tmp_path):
    both = [replacing(tmp_path / name) for name in "ab"]
    for opened in both:
        opened.__enter__().write_text("half")
    remove_unfinished()
    assert names(tmp_path) == []
    for opened in both:
        with pytest.raises(UsageError, match="cannot write"):
            opened.__exit__(None, None, None)
    assert not module._unfinished


def test_equal_tensors_and_fields_give_equal_bytes(tmp_path):
    tensors = {"b": torch.arange(3), "a": torch.ones(2, 2), "c": torch.tensor([True, False])}
    fields = {f"field {i}": i for i in range(20)}
    for name in ("one", "two"):
        write_tensors(tmp_path / name, tensors, {"stage": "fit", **fields})
    write_tensors(tmp_path / "three", dict(reversed(tensors.items())), {"stage": "fit", **fields})
    assert len({(tmp_path / name).read_bytes() for name in ("one", "two", "three")}) == 1


def test_other_readers_find_the_same_tensors(tmp_path):
    from safetensors.torch import load_file

    tensors = {
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "half": torch.tensor([1.5], dtype=torch.float16),
        "brain": torch.tensor([1.5], dtype=torch.bfloat16),
        "flags": torch.tensor([[True], [False]]),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "view": torch.arange(6).reshape(2, 3).T,
        **{str(d): torch.tensor([-3], dtype=getattr(torch, d)) for d in ("int8", "int16", "int32")},
    }
    write_tensors(tmp_path / "a", tensors, {"name": "naïve \u202e"})
    found = load_file(tmp_path / "a")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    with pytest.raises(XaikitError, match="complex64"):
        write_tensors(tmp_path / "b", {"x": torch.zeros(1, dtype=torch.complex64)}, {})
    assert names(tmp_path) == ["a"]
