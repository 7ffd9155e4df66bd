"""The table of the commands: what ``xaikit --help`` says of each, and where each is."""

from __future__ import annotations

from typing import NamedTuple

HELP = """Find and test attention circuits in CLIP vision transformers.

`xaikit run-all` does the whole pipeline; the commands after it are its steps, in order.
Each command's --help ends with examples.
"""


class Entry(NamedTuple):
    """What the list of commands says of one."""

    name: str
    panel: str
    help: str

    @property
    def module(self) -> str:
        """The command's module, and its name there."""
        return self.name.replace("-", "_")


PIPELINE, LIVE, STUDIES, LOOK, TOOLS = "Pipeline", "Live model", "Studies", "Look", "Tools"
COMMANDS = (
    Entry("run-all", PIPELINE, "The whole pipeline in one command, and a summary."),
    Entry("trace", PIPELINE, "Record one layer's FFN gates and the next layer's logits."),
    Entry("cluster", PIPELINE, "Group tokens by which FFN gates they open."),
    Entry("fit", PIPELINE, "Mean logits of each cluster, and a test of every edge."),
    Entry("circuit", PIPELINE, "Rank a fit's edges, keep the first, and draw them."),
    Entry("causal", PIPELINE, "Ablate and inject whole clusters in the predicted logits."),
    Entry("target-causal", PIPELINE, "What each edge contributes to the predicted logits."),
    Entry("intervene", LIVE, "Edit attention in the real forward pass."),
    Entry("baselines", STUDIES, "What clusters explain, beside controls that know nothing."),
    Entry("stability", STUDIES, "Do circuits hold across seeds, images and cluster numbers?"),
    Entry("graph", LOOK, "Join the circuits of several layers (node-link JSON)."),
    Entry("report", LOOK, "Write a run as one HTML page that needs no network."),
    Entry(
        "explain", LOOK, "Write one image as an HTML page: the attention of every layer and head."
    ),
    Entry("inspect", LOOK, "What a file holds: its shapes, its metadata and its health."),
    Entry("export", LOOK, "Write edges, effects and curves of a run as tables."),
    Entry("pairs", TOOLS, "Make pairs of images that differ in one thing."),
    Entry("models", TOOLS, "List the models, or check that xaikit reads one right."),
    Entry("env", TOOLS, "Versions, devices and threads, for a bug report."),
)
"""In the order and the panels of ``--help``; a test holds it against the commands."""
