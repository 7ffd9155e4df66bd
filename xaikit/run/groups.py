"""`run-all --group`: a circuit for each group of images, beside the common one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xaikit.artifacts.file_names import GROUPS
from xaikit.artifacts.files import fingerprint
from xaikit.artifacts.groups import GroupCircuits
from xaikit.artifacts.options import deciding
from xaikit.interventions.groups import FOLDER, image_groups
from xaikit.progress import named
from xaikit.rankings import ranking
from xaikit.run.reuse import Folder, Request
from xaikit.stages.groups import REVISION, GroupOptions, group_circuits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xaikit.run.layer import LayerRun
    from xaikit.run.options import Options
    from xaikit.run.subject import Subject


def group_options(o: Options) -> GroupOptions:
    """The run's own ranking where it runs the model, `reach` otherwise."""
    chosen = o.circuit()
    rank = chosen.rank if ranking(chosen.rank).needs_model else "reach"
    return o.live_as(GroupOptions, rank=rank, top_k=chosen.top_k)


def run_groups(
    subject: Subject, runs: Sequence[LayerRun], root: Path, force: bool
) -> GroupCircuits:
    """Rank and remove the edges of all layers of the run, group by group."""
    o, options = subject.options, group_options(subject.options)
    assert o.group is not None
    info = runs[0].info
    groups = image_groups(o.group, info.images, info.groups)
    of_file = "" if o.group == FOLDER else fingerprint(Path(o.group).read_bytes())
    request = Request(
        stage="groups",
        revision=REVISION,
        inputs={f"fit_{run.fit.layer}": run.fit.identity for run in runs} | {"groups": of_file},
        options={**deciding(options), **subject.aim},
    )
    return Folder(root, force).make(
        GROUPS,
        GroupCircuits,
        request,
        lambda: group_circuits(
            subject.tower,
            subject.source,
            [(run.features, run.fit) for run in runs],
            groups,
            ids=info.images,
            objective=subject.objective(info.images),
            options=options,
            progress=named(subject.progress, "groups"),
        ),
    )
