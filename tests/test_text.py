from __future__ import annotations

import io
import json
import os
import subprocess

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xaikit.text import ENCODING_ERRORS, json_printable, printable, shell_line


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name [v2] $x^2$ \\n.jpg", "plain name [v2] $x^2$ \\n.jpg"),
        ("naïve 猫 🐈.jpg", "naïve 猫 🐈.jpg"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("bad\nwarning: all is well", "bad\\nwarning: all is well"),
        ("a\r\tb", "a\\r\\tb"),
        ("\x1b[31m\x1b]0;title\x07", "\\x1b[31m\\x1b]0;title\\x07"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("\u2066a\u2069\u200f\u061c", "\\u2066a\\u2069\\u200f\\u061c"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("\ufeffa\u00adb\U000e0041", "\\ufeffa\\xadb\\U000e0041"),
        ("\udcff", "\\udcff"),
    ],
)
def test_names_are_shown_as_nothing_but_themselves(name, shown):
    assert printable(name) == shown


def test_some_characters_can_stay():
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@given(st.text(st.characters()))
def test_what_is_printed_is_one_line_without_control_and_can_be_encoded(text):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(each) < 32 or 127 <= ord(each) < 160 for each in shown)
    assert not any("\u202a" <= each <= "\u202e" or "\u2066" <= each <= "\u2069" for each in shown)
    shown.encode("utf-8")
    assert printable(shown) == shown


@given(st.recursive(st.text(), lambda inner: st.dictionaries(st.text(), inner, max_size=3)))
def test_json_means_the_same(value):
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    shown = json_printable(text)
    assert json.loads(shown) == value
    assert printable(shown, keep="\n") == shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8"])
def test_every_encoding_takes_every_text(encoding):
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding, errors=ENCODING_ERRORS) as stream:
        stream.write("4 × 65 → t.safetensors é 猫 \udcff")
        stream.flush()
        written = raw.getvalue().decode(encoding)
    assert written.endswith("\\udcff")
    assert "猫" in written or "\\u732b" in written
    assert "→" in written or "->" in written


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0") | st.just("\udcff"))


@given(st.lists(NAMES, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_shell_reads_the_same_words(words):
    line = shell_line(words)
    assert printable(line) == line
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    assert done.stdout == b"".join(os.fsencode(word) + b"\0" for word in words)
