"""A seeded share of every row, whose number of cases the run's summary prints."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from trust.run import ROWS, Row, tried

Property = Callable[[str, object], None]


@pytest.mark.parametrize("row", [row for row in ROWS if row.share], ids=lambda row: row.module)
def test_a_share_of_each_row_fails_nowhere(row: Row, record_property: Property) -> None:
    cases, failures = tried(row, row.share, seed=0)
    record_property("tried", f"{row.item}: {cases} cases tried, {len(failures)} failures")
    assert failures == []
    assert cases >= min(row.share, row.cases)
