"""What libraries warn of, as lines that name them; and what is as before once a command ends."""

from __future__ import annotations

import logging
import warnings

import pytest

from xaikit.cli.streams import _library, named_warnings
from xaikit.errors import XaikitWarning


def test_our_own_warnings_name_nobody_and_what_is_no_warning_is_not_said(capsys) -> None:
    shown, handlers = warnings.showwarning, list(logging.getLogger().handlers)
    logger = logging.getLogger("timm.made_up")
    logger.setLevel(logging.INFO)
    with warnings.catch_warnings(), named_warnings():
        warnings.simplefilter("always")
        warnings.warn("it is not known", XaikitWarning, stacklevel=1)
        logger.info("weights are loaded")
        logger.warning("weights are odd")
        # Whoever calls the command from Python has them back.
    assert capsys.readouterr().err == "warning: it is not known\nwarning: timm: weights are odd\n"
    with warnings.catch_warnings():
        with named_warnings():
            pass
        assert warnings.showwarning is shown
    assert logging.getLogger().handlers == handlers


@pytest.mark.parametrize(
    ("file", "library"),
    [
        ("/venv/lib/site-packages/torch/nn/modules.py", "torch"),
        ("/usr/lib/python3/dist-packages/torch/nn/modules.py", "torch"),
        (r"C:\venv\site-packages\odd\a.py", "odd"),
        ("/venv/lib/site-packages/six.py", "six"),
        ("/home/me/script.py", "script"),
        ("/opt/site-packages", "site-packages"),
        ("", "python"),
    ],
)
def test_a_library_is_named_by_its_folder_or_its_file(file: str, library: str) -> None:
    assert _library(file) == library
