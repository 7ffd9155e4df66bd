"""Which edges have a test at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from xaikit.report.page.parts import LayerParts


def testable(zscore: float | None, pvalue: float | None) -> bool:
    """Whether an edge has a test at all.

    An edge without variance under the null has z = 0 and p = 1; where nothing was held out of
    clusters that have seen the attention, there is no p-value.
    """
    if zscore is None or pvalue is None:
        return False
    return not _without(np.float64(zscore), np.float64(pvalue))


def untested(parts: LayerParts) -> np.ndarray:
    """Where ``[K, H, D]`` an edge has no test."""
    found: np.ndarray = _without(parts.fit.edge_zscores.numpy(), parts.fit.edge_pvalues.numpy())
    return found


def _without(zscores: Any, pvalues: Any) -> Any:
    return np.isnan(zscores) | np.isnan(pvalues) | ((zscores == 0) & (pvalues == 1))


def untestable(parts: LayerParts) -> tuple[int, int]:
    """Edges without a test, and edges in all, among those that have rows behind them."""
    fit = parts.fit
    used = (fit.support[:, None, :].expand(fit.prototypes.shape) > 0).numpy()
    return int((untested(parts) & used).sum()), int(used.sum())
