"""libtiff writes what it finds wrong with a picture to standard error, past Python and unnamed.

Pillow raises what matters of it, and silences the library's warnings but not its errors.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache
from pathlib import Path

import PIL


@cache
def quiet_libtiff() -> None:
    """Silence the libtiff that Pillow uses, where it is found."""
    package = Path(PIL.__file__).parent
    bundled = [*package.parent.glob("pillow.libs/libtiff*"), *package.glob(".dylibs/libtiff*")]
    for name in [*map(str, bundled), ctypes.util.find_library("tiff")]:
        try:
            # A library that is loaded already is the same one again.
            library = ctypes.CDLL(name) if name else None
            if library is not None:
                library.TIFFSetErrorHandler(None)
                return
        except (OSError, AttributeError):
            continue
