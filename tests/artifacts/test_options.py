"""One record says a stage's options: defaults, ranges, and which of them decide a result."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import orjson
import pytest

from xaikit import artifacts, interventions, run, stages
from xaikit.artifacts.options import (
    all_at_zero,
    applied,
    checked,
    deciding,
    flags,
    like,
    option,
    resolve,
)
from xaikit.errors import OptionError, UsageError, as_typed


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = option(4, "Size.", flag="--inner-size", least=1)
    seed: int = option(0, "Seed.", least=0)


@dataclass(frozen=True, kw_only=True)
class Some:
    count: int = option(16, "Count.", least=1)
    share: float = option(0.0, "Share.", least=0.0, below=1.0)
    kind: str = option("a", "Kind.", choices=("a", "b"))
    sizes: Sequence[int] = option((1, 2), "Sizes.", least=1, some=True)
    limit: int | None = option(None, "Limit.", least=1)
    workers: int = option(1, "Threads.", idle=True)
    secret: bool = option(True)
    file: Path | None = option(None)
    inner: Inner = Inner()
    seed: int = option(0, "Seed.", least=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 0}, "count=0: expected 1 or more"),
        ({"count": 2**67}, "count=147573952589676412928: expected a number that 64 bits hold"),
        ({"count": -(2**70)}, "expected 1 or more"),
        ({"count": 2.5}, "count=2.5: expected a whole number"),
        ({"count": True}, "count=True: expected a whole number"),
        ({"count": None}, "count=None: expected a whole number"),
        ({"workers": -(2**64)}, "workers=-18446744073709551616"),
        ({"share": 1.0}, r"share=1.0: expected a number in \[0, 1\)"),
        ({"share": float("nan")}, "share=nan: expected a number"),
        ({"share": "0.5"}, "share=0.5: expected a number"),
        ({"kind": "c"}, "kind=c: expected one of a, b"),
        ({"sizes": ()}, r"sizes=\(\): expected at least one"),
        ({"sizes": (1, 0)}, "sizes=0: expected 1 or more"),
        ({"sizes": "1,2"}, "sizes=1,2: expected a list"),
        ({"limit": 0}, "limit=0: expected 1 or more"),
        ({"secret": 1}, "secret=1: expected True or False"),
        ({"seed": -1}, "seed=-1: expected 0 or more"),
        ({"inner": Inner(size=0)}, "size=0: expected 1 or more"),
    ],
)
def test_values_out_of_range_are_usage_errors_that_name_the_argument(given, message):
    with pytest.raises(OptionError, match=message):
        resolve(Some, None, given)


def test_unknown_keywords_name_the_nearest_option():
    with pytest.raises(TypeError, match=r"Some has no option cuont: did you mean count\?"):
        resolve(Some, None, {"cuont": 3})
    with pytest.raises(UsageError, match="it has count, share"):
        resolve(Some, None, {"zzz": 3})


def test_a_record_of_another_stage_is_refused():
    with pytest.raises(UsageError, match="expected Some, got Inner"):
        resolve(Some, Inner(), {})  # type: ignore[arg-type]


def test_keywords_win_over_the_record_and_values_are_plain():
    found = resolve(Some, Some(count=3, seed=5), {"count": np.int64(7), "share": 0, "sizes": [3]})
    assert (found.count, found.seed) == (7, 5)
    assert type(found.count) is int
    assert type(found.share) is float
    assert found.sizes == (3,)


def test_what_decides_a_result_leaves_idle_options_out():
    assert deciding(checked(Some())) == {
        "count": 16,
        "share": 0.0,
        "kind": "a",
        "sizes": [1, 2],
        "limit": None,
        "secret": True,
        "file": None,
        "inner": {"size": 4, "seed": 0},
        "seed": 0,
    }


IDLE = {"batch_size", "workers", "strict", "memory", "device"}
"""How a result is reached, or whether; never what it is."""


def test_no_option_of_the_package_is_idle_but_those_that_can_change_no_number():
    idle, deciding_too = set(), set()
    for package in (artifacts, interventions, stages, run):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for kind in vars(import_module(found.name)).values():
                for each in fields(kind) if inspect.isclass(kind) and is_dataclass(kind) else ():
                    known = each.metadata.get("xaikit")
                    if known is not None:
                        (idle if known.idle else deciding_too).add(each.name)
    assert idle == IDLE
    assert {"seed", "nodes", "precision", "num_permutations", "null_block"} <= deciding_too
    assert not idle & deciding_too


def test_what_decides_a_result_reads_back_from_json():
    found = deciding(checked(Some(file=Path("a/b"), sizes=[np.int64(3)])))
    assert found["file"] == "a/b"
    assert orjson.loads(orjson.dumps(found)) == found


def test_flags_share_a_name_and_reach_every_place():
    names = [flag.name for flag in flags(Some)]
    assert names == ["count", "share", "kind", "sizes", "limit", "workers", "inner_size", "seed"]
    found = applied(Some(), {"seed": 9, "inner_size": 2, "other": 1})
    assert (found.seed, found.inner.seed, found.inner.size) == (9, 9, 2)


def test_where_0_is_all_it_is_read_so():
    assert [all_at_zero(text) for text in ("0", " 00 ", "12")] == [None, None, 12]
    for text in ("-1", "1.5", "all", ""):
        with pytest.raises(ValueError, match="a whole number, or 0 for all"):
            all_at_zero(text)


def test_a_field_like_another_record_s_has_its_help_and_range():
    @dataclass(frozen=True, kw_only=True)
    class Other:
        count: int = like(Some, "count", default=3)

    assert Other().count == 3
    with pytest.raises(OptionError, match="count=0"):
        checked(Other(count=0))


def test_the_command_line_speaks_of_flags():
    error = OptionError("num_clusters", 0, "1 or more")
    assert str(error) == "num_clusters=0: expected 1 or more"
    assert as_typed(error) == "--num-clusters 0: expected 1 or more"
    named = OptionError("resamples", 0, "1 or more", flag="--bootstrap")
    assert as_typed(named) == "--bootstrap 0: expected 1 or more"
    other = UsageError("nothing is held out: pass `holdout=0.5` or `no_holdout=True` to `fit`")
    assert as_typed(other) == "nothing is held out: pass --holdout 0.5 or --no-holdout to `fit`"
    folder = UsageError("`images=/a b`: empty: pass more than `count=` of `xaikit pairs --out c`")
    shown = "--images /a b: empty: pass more than --count of `xaikit pairs --out c`"
    assert as_typed(folder) == shown
