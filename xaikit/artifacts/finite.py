"""Results are finite numbers, or are not written."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

from xaikit.errors import XaikitError


def require_finite(value: Any, where: str = "") -> None:
    """Refuse NaN and infinity anywhere in a nested value, naming the field."""
    if isinstance(value, numbers.Real) and not math.isfinite(value):
        raise XaikitError(f"a result is not finite ({where or 'value'} = {value})")
    if hasattr(value, "tolist"):
        # orjson would write the NaN of an array as null.
        value = value.tolist()
    if isinstance(value, Mapping):
        for key, item in value.items():
            require_finite(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            require_finite(item, f"{where}[{index}]")
