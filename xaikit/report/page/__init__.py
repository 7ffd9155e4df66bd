"""`report`: one self-contained page of what a run folder holds."""

from __future__ import annotations

from xaikit.report.page.document import write_report
from xaikit.report.page.naming import Naming

__all__ = ["Naming", "write_report"]
