"""Run the benchmarks: ``python tests/benchmarks/run.py [NAME ...] [--json FILE] [--images DIR]``.

Each row is a ratio of two times (or two memories) taken in the same run, with the most it may
be. The table is Markdown; the exit status is 1 where a row is over its limit.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

ROWS = {
    "trace-memory": ("bench_trace", "trace_memory"),
    "digests": ("bench_digests", "digests"),
    "trace-disk": ("bench_trace", "trace_disk"),
    "stream": ("bench_stream", "stream"),
    "cluster": ("bench_cluster", "cluster"),
    "fit": ("bench_effects", "fit"),
    "null": ("bench_null", "bench_null"),
    "causal": ("bench_effects", "causal"),
    "target-causal": ("bench_effects", "target_causal"),
    "memory-token": ("bench_memory", "token"),
    "memory-cluster": ("bench_memory", "cluster"),
    "stream-memory": ("bench_stream", "stream_memory"),
    "processes": ("bench_stream", "processes"),
    "intervene": ("bench_intervene", "intervene"),
    "whole-scores": ("bench_intervene", "whole_scores"),
    "whole-curve": ("bench_intervene", "whole_curve"),
    "guided": ("bench_guided", "guided"),
    "guided-model": ("bench_guided", "guided_model"),
    "reach": ("bench_guided", "reach"),
    "busy": ("bench_busy", "busy"),
    "free": ("bench_busy", "free"),
}
"""Name of each row, and the module and function that measure it."""


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    lines = [
        "| name | ours | reference | ratio | at most | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        unit = row.get("unit", "s")
        ours, reference = (f"{row[key]:,.4g} {unit}" for key in ("ours_s", "reference_s"))
        verdict = "ok" if row["ratio"] <= row["limit"] else "**missed**"
        lines.append(
            f"| {row['name']} | {ours} | {reference} | {row['ratio']:.3g} | {row['limit']:.3g} "
            f"| {verdict} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run the rows that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ROWS))
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--images", type=Path, help="folder of photos (default: noise)")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in ROWS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if options.images:
        os.environ["XAIKIT_BENCH_IMAGES"] = str(options.images)
    rows = []
    for name in options.names or ROWS:
        module, function = ROWS[name]
        print(f"{name} …", file=sys.stderr, flush=True)
        rows.append({**getattr(importlib.import_module(module), function)(), "name": name})
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores\n")
    print(markdown(rows))
    for row in rows:
        if row.get("notes"):
            print(f"\n- {row['name']}: {row['notes']}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))
    return int(any(row["ratio"] > row["limit"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
