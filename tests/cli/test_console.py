"""What commands say, where they say it, and how they end."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import typer
from command_line import run
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from xaikit import cli
from xaikit.cli import app as application
from xaikit.cli import signals
from xaikit.cli.console import Session, duration, fail
from xaikit.cli.signals import Stopped
from xaikit.errors import UsageError, XaikitError
from xaikit.progress import named, silent
from xaikit.version import xaikit_version

HOSTILE = "run[v2][/b]\x1b[31m \u202egnp.\n:smile:"
SHOWN = "run[v2][/b]\\x1b[31m \\u202egnp.\\n:smile:"


@pytest.fixture
def command(monkeypatch):
    """Run a command that does what the test says; return the exit status."""

    def ended(act, *arguments):
        def app(args, standalone_mode):
            return act()

        monkeypatch.setattr(application, "app", app)
        return run(*arguments)

    return ended


def raising(error):
    def act():
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted; the same command goes on"),
        (Stopped(signal.SIGTERM), 143, "error: terminated; the same command goes on"),
        (Stopped(signal.SIGHUP), 129, "error: the terminal hung up; the same command goes on"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, ""),
        (UsageError("--out x: no"), 2, "error: --out x: no\n"),
        (XaikitError("it failed"), 1, "error: it failed\n"),
        (ZeroDivisionError("by\nzero"), 1, "error: ZeroDivisionError: by zero (unexpected; "),
        (MemoryError(), 1, "error: out of memory; pass a smaller --batch-size\n"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            1,
            "error: out of memory; pass a smaller --batch-size\n",
        ),
        # torch has an error of its own, which is no MemoryError.
        (type("OutOfMemoryError", (RuntimeError,), {})(), 1, "error: out of memory; pass a smal"),
        (OSError(errno.ENOENT, "No such file", b"/\xff"), 1, "error: /\\udcff: No such file\n"),
        (OSError(errno.ENOSPC, "No space left", "/x\n"), 1, "error: /x\\n: No space left\n"),
        (UsageError(HOSTILE), 2, f"error: {SHOWN}\n"),
    ],
)
def test_ends_have_a_status_and_one_line(command, capsys, monkeypatch, error, status, said):
    monkeypatch.setattr(cli.streams, "give_up_output", lambda: None)
    assert command(raising(error)) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(said) if said else shown.err == ""
    assert shown.err.count("\n") == bool(said)


def test_success_is_0_and_debug_shows_where(command, capsys):
    assert command(lambda: None) == 0
    assert command(raising(XaikitError("it\x1b failed")), "--debug") == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("arguments", [["--out", ""], ["--out="], ["--images", "", "-q"]])
def test_an_empty_value_is_an_error_that_names_the_flag(capsys, arguments):
    assert run("trace", *arguments) == 2
    flag = arguments[0].rstrip("=")
    assert capsys.readouterr().err == f"error: {flag} is empty: expected a value\n"


def test_a_hint_of_the_command_line_and_ours_share_their_brackets(capsys):
    assert run("graph", "one", "more") == 2
    said = capsys.readouterr().err
    assert "Got unexpected extra argument(s) (more; see `" in said
    assert said.endswith(" graph --help`)\n")
    assert run("explain") == 2
    # Said without the full stop that Typer ends a sentence with.
    assert "Missing argument 'image' (see `" in capsys.readouterr().err


def test_an_argument_may_end_in_an_equals_sign_but_not_be_empty(capsys):
    assert run("explain", "") == 2
    assert capsys.readouterr().err == "error: an argument is empty: expected a value\n"
    cli._refuse_empty(["explain", "a=", "--out", "b="])


def test_the_version_is_all_that_is_said_of_it(capsys):
    assert run("--version") == 0
    assert capsys.readouterr() == (f"xaikit {xaikit_version()}\n", "")


def test_a_signal_that_typer_took_is_said_once_and_ends_the_process(command, capsys, monkeypatch):
    left = []
    monkeypatch.setattr(signals, "asked", [signal.SIGHUP, signal.SIGTERM])
    monkeypatch.setattr(signals, "said", threading.Event())
    monkeypatch.setattr(signals, "leave", left.append)
    assert command(lambda: 130) == 143
    assert left == [143]
    assert signals.said.is_set()
    assert capsys.readouterr().err.startswith("error: terminated; ")


def test_of_several_processes_one_speaks(capsys, monkeypatch):
    monkeypatch.setattr("xaikit.launcher.launched", lambda: (1, 2))
    session = Session()
    session.warn("warned")
    session.note("note")
    session.result({"a": 1}, "result")
    with session.progress() as progress:
        assert progress is silent
    Session(json=True).result({"a": 1})
    monkeypatch.setattr("xaikit.launcher.reports_error", lambda: False)
    assert fail(XaikitError("another says it"), debug=False) == 1
    assert capsys.readouterr() == ("", "")


def test_numbers_of_arrays_are_numbers_of_json(capsys):
    Session(json=True).result({"a": np.float32(0.5), "b": np.arange(2)})
    assert json.loads(capsys.readouterr().out) == {"a": 0.5, "b": [0, 1]}


def test_text_is_no_markup(capsys):
    session = Session()
    table = Table("name", title=HOSTILE.replace("\n", ""))
    table.add_row(HOSTILE)
    session.result({}, HOSTILE, table)
    session.note(HOSTILE)
    session.warn(HOSTILE)
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert "\u202e" not in shown.out + shown.err
    assert "run[v2][/b]\\x1b[31m \\u202egnp.\n:smile:" in shown.out
    assert shown.out.count("run[v2][/b]") == 3
    assert shown.err == f"{SHOWN}\nwarning: {SHOWN}\n"


def test_json_keeps_its_meaning(capsys):
    Session(json=True).result({"name": HOSTILE})
    shown = capsys.readouterr().out
    assert "\u202e" not in shown
    assert json.loads(shown) == {"name": HOSTILE}


def test_long_lines_are_not_broken(capsys):
    session, table = Session(), Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_row("y" * 120)
    session.result({}, "x" * 500, table)
    session.note("z" * 500)
    shown = capsys.readouterr()
    assert shown.out.splitlines()[::2] == ["x" * 500, "y" * 120]
    assert shown.err == "z" * 500 + "\n"


def test_a_terminal_has_a_bar_for_each_kind_of_thing_that_is_not_done(monkeypatch):
    made = []

    class Kept(Progress):
        def __init__(self, *columns, **given):
            super().__init__(*columns, **given)
            made.append(self)

    monkeypatch.setattr("rich.progress.Progress", Kept)
    session = Session()
    session.err = Console(force_terminal=True, width=100, file=io.StringIO())
    with session.progress("trace") as update:
        update("images", 1, 4)
        (task,) = made[0].tasks
        assert (task.description, task.completed, task.total) == ("trace · images", 1, 4)
        assert task.visible
        update("images", 4, 4)
        assert not task.visible
        update("images", 0, 4)
        # Another pass has a speed of its own.
        assert task.finished_time is None
        assert task.visible
        update("images", 2, 9)
        update("draws", 1, 2)
        assert [(each.completed, each.total) for each in made[0].tasks] == [(2, 9), (1, 2)]
    with session.progress() as update:
        update("images", 1, 4)
        assert made[1].tasks[0].description == "images"


def test_quiet_keeps_warnings_and_results(capsys):
    session = Session(quiet=True)
    session.note("note")
    session.warn("warned")
    session.result({}, "result")
    with session.progress("a") as progress:
        progress("images", 1, 2)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("result\n", "warning: warned\n")


def test_a_log_gets_plain_lines_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Session().progress("trace") as progress:
        for done in range(0, 41, 4):
            progress("images", done, 100)
            now[0] += 4
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "trace: 12/100 images, 1.0/s, 88 s left"
    assert 2 <= len(lines) <= 4
    with Session().progress() as progress:
        now[0] += 20
        named(progress, "layer 6, fit")("images", 3, 100)
    assert capsys.readouterr().err == "layer 6, fit: 3/100 images\n"


@pytest.mark.parametrize(
    ("error", "status"), [(typer.Exit(3), 3), (typer.Exit(0), 0), (typer.Abort(), 1)]
)
def test_a_command_that_ends_itself_keeps_its_status(command, capsys, error, status):
    def act():
        raise error

    assert command(act) == status
    assert capsys.readouterr().err == ""


def test_a_second_pass_of_the_same_name_has_a_speed_of_its_own(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Session().progress("trace") as progress:
        for images_a_second in (1, 10):
            for seconds in range(0, 41, 4):
                progress("images", seconds * images_a_second, 400)
                now[0] += 4
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(", 1.0/s, 388 s left")
    assert ", 10.0/s, " in lines[-1]


def test_warnings_of_libraries_name_the_library_once(command, capsys):
    import logging

    def act():
        for _ in range(2):
            warnings.warn_explicit("odd\x1b\nthing", UserWarning, "/x/site-packages/odd/a.py", 1)
            logging.getLogger("timm.models").warning("weights %s", "w")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert command(act) == 0
    shown = capsys.readouterr().err
    assert shown == "warning: odd: odd\\x1b thing\nwarning: timm: weights w\n"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(3.21, "3.2 s"), (100, "1 min 40 s"), (119.7, "2 min 00 s"), (7384, "2 h 03 min")],
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown


PROGRAM = """
import os, sys, time
import typer
from xaikit import cli
from xaikit.artifacts.replacing import replacing
from xaikit.cli import app as application

app = typer.Typer()

@app.command()
def act():
    {act}

application.app = app
cli.main([])
"""


def as_usual():
    """Answer signals as a command of a terminal does, whatever started the tests (`nohup`, say)."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def program(act, encoding="utf-8", **more):
    # What is printed waits in a buffer, as it does unless a user asks for another way.
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(act=act)],
        stderr=subprocess.PIPE,
        text=True,
        encoding=encoding,
        **{"stdout": subprocess.PIPE, "preexec_fn": as_usual, "env": buffered, **more},
    )


WRITING = (
    "with replacing('out') as temporary:\n"
    "        temporary.write_text('half')\n"
    "        print('result'); os.write(1, b'ready\\n')\n"
    "        {busy}"
)
BUSY = {
    "waiting": "time.sleep(60)",
    "in threads that do not end": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "        with ThreadPoolExecutor(1) as pool: pool.submit(time.sleep, 60).result()"
    ),
    # A lock taken twice: unlike sleep, a signal does not make it return.
    "in an operation that does not return": (
        "import ctypes; lock = ctypes.create_string_buffer(256); take = "
        "ctypes.CDLL(None).pthread_mutex_lock\n        take(lock); take(lock)"
    ),
}


def test_what_typer_makes_of_an_interruption_is_said_as_well(command, capsys):
    assert command(lambda: 130) == 130
    assert capsys.readouterr().err.startswith("error: interrupted; the same command goes on")


@pytest.mark.parametrize("busy", BUSY)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_command_within_two_seconds(tmp_path, busy, number):
    process = program(WRITING.format(busy=BUSY[busy]), cwd=tmp_path)
    assert process.stdout.readline() == "ready\n"
    assert len(list(tmp_path.iterdir())) == 1
    start = time.monotonic()
    process.send_signal(number)
    out, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert out == "result\n"
    assert time.monotonic() - start < 2
    assert said.endswith("the same command goes on from what is complete\n")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    act = (
        "import signal\n    os.kill(os.getpid(), signal.SIGHUP)\n    print('survived', flush=True)"
    )
    process = program(act, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == ("survived\n", 0)


def test_a_reader_that_goes_away_is_no_traceback():
    process = program("[print('line' * 1000) for _ in range(1000)]")
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 1


def test_a_full_standard_output_is_an_error():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        process = program("print('result')", stdout=full)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said == f"error: {os.strerror(errno.ENOSPC)}\n"


@pytest.mark.parametrize("closed", [[1], [2], [0, 1, 2]])
def test_closed_streams(tmp_path, closed):
    act = (
        "print('result'); print('note', file=sys.stderr)\n"
        "    with open('out', 'w') as file: file.write(str(file.fileno() > 2))"
    )

    def close():
        for handle in closed:
            os.close(handle)

    process = program(act, cwd=tmp_path, preexec_fn=close)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert (tmp_path / "out").read_text() == "True"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_other_encodings(encoding):
    process = program(
        r"print('4 × 3 → \udcff')",
        env={**os.environ, "PYTHONIOENCODING": encoding},
        encoding=encoding,
    )
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert out.endswith("3 -> \\udcff\n")
