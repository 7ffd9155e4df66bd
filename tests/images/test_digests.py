"""What a picture is, and for how long a digest that was taken is believed."""

from __future__ import annotations

import os
import time

import pytest
from PIL import Image

from xaikit.images.digests import Digests, digest_of, digest_of_failure, digest_of_picture

SECOND = 10**9


def status(**changed: int) -> os.stat_result:
    """The state of a file that was left alone for an hour."""
    then = time.time_ns() - 3600 * SECOND
    known = {"ino": 5, "dev": 7, "size": 9, "mtime": then, "ctime": then, **changed}
    places = (0o100644, known["ino"], known["dev"], 1, 0, 0, known["size"], 0, 0, 0)
    return os.stat_result(places, {"st_mtime_ns": known["mtime"], "st_ctime_ns": known["ctime"]})


def test_a_picture_is_its_pixels_their_shape_and_their_mode() -> None:
    pictures = [
        Image.frombytes("L", (3, 2), b"abcdef"),
        Image.frombytes("L", (2, 3), b"abcdef"),
        Image.frombytes("RGB", (1, 2), b"abcdef"),
        Image.frombytes("RGB", (2, 1), b"abcdef"),
        Image.frombytes("HSV", (2, 1), b"abcdef"),
        Image.frombytes("L", (3, 2), b"abcdeg"),
    ]
    assert len({digest_of_picture(each) for each in pictures}) == len(pictures)
    assert digest_of_picture(pictures[0]) == digest_of_picture(pictures[0].copy())


def test_what_cannot_be_read_is_no_file_of_the_same_words() -> None:
    failures = [digest_of_failure(reason) for reason in ("torn", "gone", "\udcff")]
    assert len({*failures, digest_of(b"torn"), digest_of(b"")}) == 5
    assert all(len(each) == 32 for each in failures)


def test_a_digest_is_believed_while_its_file_looks_untouched() -> None:
    found, then = Digests(), status()
    assert found.keep(3, then, b"bytes") == digest_of(b"bytes")
    assert found.known(3, then) == digest_of(b"bytes")
    assert found.known(4, then) is None
    known = {"ino": 5, "dev": 7, "size": 9, "mtime": then.st_mtime_ns, "ctime": then.st_ctime_ns}
    for name, value in known.items():
        assert found.known(3, status(**{**known, name: value + 1})) is None


@pytest.mark.parametrize("name", ["mtime", "ctime"])
def test_a_file_that_changed_a_moment_ago_may_change_again_unseen(name: str) -> None:
    found, fresh = Digests(), status(**{name: time.time_ns() - SECOND})
    assert found.keep(0, fresh, b"bytes") == digest_of(b"bytes")
    assert found.known(0, fresh) is None
    # Nor is what was known of it before.
    old = status()
    found.keep(0, old, b"old")
    found.keep(0, fresh, b"bytes")
    assert found.known(0, old) is None
