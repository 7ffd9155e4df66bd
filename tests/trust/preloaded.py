"""What runs in processes of their own need, imported once, and nothing run: no thread begins."""

from __future__ import annotations

import faiss  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import scipy.stats  # noqa: F401
import timm.models.vision_transformer  # noqa: F401
import trust.small_runs  # noqa: F401
