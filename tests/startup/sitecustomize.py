"""Python runs this as it starts: what tests start checks shapes as the tests themselves do."""

import os
import sys
from pathlib import Path

if os.environ.get("XAIKIT_SHAPES") != "0":
    sys.path.append(str(Path(__file__).parents[1]))
    import shapes  # noqa: F401
