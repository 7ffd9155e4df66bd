"""A user's matplotlib settings, and what names could do to a picture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from xaikit.report.heatmaps import draw_heatmaps
from xaikit.report.plain_figures import plain_figures, save

DRAW = """
import sys
import numpy as np
from xaikit.report.heatmaps import draw_heatmaps
values = np.linspace(-1, 1, 2 * 1 * 5).reshape(2, 1, 5)
draw_heatmaps(values, np.array([3, 4]), prefix_kinds=["class token"], grid=(2, 2),
              quantity="weight", title=sys.argv[2], out_dir=sys.argv[1])
import matplotlib
print(matplotlib.rcParams["lines.linewidth"])
"""
PLAIN = "a name"


def drawn(folder: Path, title: str = PLAIN, **environment: str) -> tuple[bytes, str]:
    """A heatmap that a new process draws, and what the process says."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MPL", "MATPLOTLIB"))}
    own |= environment
    command = [sys.executable, "-c", DRAW, str(folder), title]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return (folder / "head_0.png").read_bytes(), done.stdout


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> bytes:
    return drawn(tmp_path_factory.mktemp("plain"))[0]


@pytest.mark.parametrize(
    "settings",
    [
        "text.usetex: True",
        "backend: tkagg",
        "figure.dpi: 7\nsavefig.dpi: 3\nlines.linewidth: 9",
        "font.family: No Such Font\naxes.facecolor: red\nsavefig.facecolor: red",
        "savefig.bbox: tight\nsavefig.transparent: True\nfigure.autolayout: True",
        "no.such.key: 3\nlines.linewidth: wide",
        "image.cmap: nothing\naxes.unicode_minus: False",
        b"\xff\xfe broken",
    ],
)
def test_settings_in_a_file_change_no_picture(tmp_path, plain, settings):
    data = settings if isinstance(settings, bytes) else settings.encode()
    (tmp_path / "matplotlibrc").write_bytes(data)
    found, _ = drawn(tmp_path, MATPLOTLIBRC=str(tmp_path / "matplotlibrc"))
    assert found == plain


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "none", "tkagg"])
def test_backends_of_the_environment_change_no_picture(tmp_path, plain, backend):
    assert drawn(tmp_path, MPLBACKEND=backend)[0] == plain


def test_what_is_drawn_later_has_the_user_s_settings(tmp_path):
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9")
    assert drawn(tmp_path, MATPLOTLIBRC=str(tmp_path / "matplotlibrc"))[1] == "9.0\n"


@pytest.mark.parametrize(
    "title",
    ["$x^2$", "$\\frac{$", "$", "\\$", "a $1 and $2", "{\\bf x}", "x_$\\undefined$", "a&b#c~%"],
)
def test_every_name_is_drawn_as_it_is_written(tmp_path, title):
    assert drawn_here(tmp_path / "a", title) != drawn_here(tmp_path / "b", title + "x")


def drawn_here(folder: Path, title: str) -> bytes:
    values = np.linspace(-1, 1, 10).reshape(2, 1, 5)
    (path,) = draw_heatmaps(
        values,
        np.array([3, 4]),
        prefix_kinds=["class token"],
        grid=(2, 2),
        quantity="weight",
        title=title,
        out_dir=folder,
    )
    return path.read_bytes()


def test_text_is_no_formula():
    from matplotlib.figure import Figure

    with plain_figures():
        text = Figure().text(0, 0, "$x^2$")
        assert not text.get_parse_math()
    assert matplotlib.rcParams["text.parse_math"]


@pytest.mark.parametrize(
    "title", ["a\x1b[31mb", "a\nb", "\u202egnp", "猫 without a glyph", "\udcff"]
)
def test_odd_characters_are_drawn_without_a_word(tmp_path, title, recwarn):
    drawn_here(tmp_path, title)
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_picture_is_the_same_bytes(tmp_path, kind):
    from matplotlib.figure import Figure

    for name in ("one", "two"):
        with plain_figures():
            figure = Figure(figsize=(2, 2))
            axes = figure.subplots()
            axes.plot([0, 1], [1, 2], label="a")
            axes.legend()
            save(figure, tmp_path / name, kind, 50)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert b"\x89PNG" not in (tmp_path / "one").read_bytes() or kind == "png"
