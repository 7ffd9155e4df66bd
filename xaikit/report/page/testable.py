"""Which edges have a test at all."""

from __future__ import annotations

import math

import numpy as np

from xaikit.report.page.parts import LayerParts


def testable(zscore: float | None, pvalue: float | None) -> bool:
    """Whether an edge has a test at all.

    An edge without variance under the null has z = 0 and p = 1; where nothing was held out of
    clusters that have seen the attention, there is no p-value.
    """
    if zscore is None or pvalue is None or math.isnan(zscore) or math.isnan(pvalue):
        return False
    return not (zscore == 0.0 and pvalue == 1.0)


def untested(parts: LayerParts) -> np.ndarray:
    """Where ``[K, H, D]`` an edge has no test."""
    z, p = parts.fit.edge_zscores.numpy(), parts.fit.edge_pvalues.numpy()
    found: np.ndarray = np.isnan(z) | np.isnan(p) | ((z == 0) & (p == 1))
    return found


def untestable(parts: LayerParts) -> tuple[int, int]:
    """Edges without a test, and edges in all, among those that have rows behind them."""
    fit = parts.fit
    used = (fit.support[:, None, :].expand(fit.prototypes.shape) > 0).numpy()
    return int((untested(parts) & used).sum()), int(used.sum())
