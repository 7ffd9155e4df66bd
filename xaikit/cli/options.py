"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

MODEL, IMAGES, RUN, STATISTICS, OUTPUT = "Model", "Images", "Running", "Statistics", "Output"


class Split(StrEnum):
    """Part of ImageNet."""

    train = "train"
    val = "val"


class Precision(StrEnum):
    """Number format of the forward pass."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Destination(StrEnum):
    """What an edge ends at."""

    token = "token"
    cluster = "cluster"


class Null(StrEnum):
    """How edges get their p-values."""

    auto = "auto"
    moments = "moments"
    sampled = "sampled"


class Ablation(StrEnum):
    """What takes the place of an edited logit."""

    mean = "mean"
    resample = "resample"
    zero = "zero"
    knockout = "knockout"


class Mode(StrEnum):
    """Which entries an intervention edits."""

    remove = "remove"
    keep = "keep"
    both = "both"


Labels = Annotated[
    Path | None,
    typer.Option(
        help="Prompts, one a line, or a JSON object of folder to prompt; a model with a "
        "classifier head uses the head.",
    ),
]
LIVE_RANKS = "reach,attribution,energy,weight"
"""Rankings that `intervene` compares by default."""

Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="open_clip name, `timm/NAME`, an open_clip config file (.json) or `xaikit-demo`; "
        "`xaikit models` lists them.",
        rich_help_panel=MODEL,
    ),
]
Pretrained = Annotated[
    str | None,
    typer.Option(
        help="open_clip tag, local checkpoint, or `random` for seeded random weights. "
        "The demo brings its own.",
        rich_help_panel=MODEL,
    ),
]
Device = Annotated[
    str, typer.Option(help="Torch device, such as `cpu` or `cuda:0`.", rich_help_panel=MODEL)
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="Of the forward pass; logits are float32 always.",
        rich_help_panel=MODEL,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        help="Pixel mean, `r,g,b` in [0, 1]; default: the model's.", rich_help_panel=MODEL
    ),
]
Std = Annotated[
    str | None,
    typer.Option(help="Pixel deviation, `r,g,b`; default: the model's.", rich_help_panel=MODEL),
]
Resize = Annotated[
    int | None,
    typer.Option(
        help="Shorter side before the centre crop, in pixels; default: the model's.",
        rich_help_panel=MODEL,
    ),
]
Images = Annotated[
    Path | None,
    typer.Option("--images", help="Folder of images, with subfolders.", rich_help_panel=IMAGES),
]
ImagenetRoot = Annotated[
    Path | None,
    typer.Option(help="ImageNet folder as torchvision expects it.", rich_help_panel=IMAGES),
]
SplitOption = Annotated[
    Split, typer.Option("--split", help="Part of ImageNet.", rich_help_panel=IMAGES)
]
Webdataset = Annotated[
    str | None,
    typer.Option(
        help="WebDataset shards: a .tar, a folder, a glob or `{0000..0007}.tar`.",
        rich_help_panel=IMAGES,
    ),
]
MaxImages = Annotated[
    int | None,
    typer.Option(help="Stop after so many usable images, in order.", rich_help_panel=IMAGES),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Fail at the first unusable image.", rich_help_panel=IMAGES),
]
Workers = Annotated[
    int | None, typer.Option(help="Threads that decode images.", rich_help_panel=RUN)
]
BatchSize = Annotated[int, typer.Option(help="Images a forward pass.", rich_help_panel=RUN)]
Seed = Annotated[int, typer.Option(help="Of everything random.", rich_help_panel=RUN)]
TraceFile = Annotated[Path, typer.Option("--trace", help="Of `xaikit trace`.")]
FeaturesFile = Annotated[Path, typer.Option("--features", help="Of `xaikit cluster`.")]
FitFile = Annotated[Path, typer.Option("--fit", help="Of `xaikit fit`.")]
CircuitFile = Annotated[Path, typer.Option("--circuit", help="Of `xaikit circuit`.")]
Permutations = Annotated[
    int, typer.Option("--num-permutations", help="Image permutations.", rich_help_panel=STATISTICS)
]
NullBlock = Annotated[
    int,
    typer.Option(
        help="Permute within random blocks of so many images; 0: over all, or blocks of 32 with "
        "--stream.",
        rich_help_panel=STATISTICS,
    ),
]
Holdout = Annotated[
    float,
    typer.Option(
        help="Share of images kept back for testing, stratified by folder.",
        rich_help_panel=STATISTICS,
    ),
]
NumClusters = Annotated[int, typer.Option("--num-clusters", help="Clusters of tokens.")]
SampleTokens = Annotated[
    int, typer.Option("--sample-tokens", help="Tokens to learn clusters from; 0 = all.")
]
DestinationOption = Annotated[
    Destination, typer.Option("--destination", help="What an edge ends at.")
]
TopK = Annotated[int, typer.Option("--top-k", help="Edges to keep.")]
Rank = Annotated[
    str,
    typer.Option(
        "--rank",
        help="What edges are ordered by: weight, contrast, zscore, energy; reach, attribution, "
        "output and rows run the model.",
    ),
]
LiveTrace = Annotated[
    Path | None,
    typer.Option("--trace", help="For the ids of the images; default: the features' own."),
]
LiveFeatures = Annotated[
    Path | None,
    typer.Option("--features", help="Of `xaikit cluster`; default: the fit's."),
]
LiveModel = Annotated[
    str | None,
    typer.Option("--model", help="Default: the fit's.", rich_help_panel=MODEL),
]
LivePretrained = Annotated[
    str | None,
    typer.Option("--pretrained", help="Default: the fit's.", rich_help_panel=MODEL),
]
ScoreImages = Annotated[
    int,
    typer.Option(
        help="Discovery images to score rankings on that run the model, spread evenly; 0 = all.",
        rich_help_panel=IMAGES,
    ),
]
IgSteps = Annotated[int, typer.Option(help="Points that attribution averages the gradient over.")]
MaxQvalue = Annotated[
    float | None,
    typer.Option(
        "--max-qvalue",
        help="Keep only edges with at most this q-value (on the discovery images).",
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON object.", rich_help_panel=OUTPUT),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no notes.", rich_help_panel=OUTPUT)
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show where an error comes from.", rich_help_panel=OUTPUT)
]


def triple(text: str | None, flag: str) -> tuple[float, float, float] | None:
    """Read ``r,g,b``."""
    from xaikit.errors import UsageError

    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{flag} {text}: expected three numbers such as 0.5,0.5,0.5") from None
    return red, green, blue


def numbers(text: str, flag: str) -> tuple[float, ...]:
    """Read numbers separated by commas."""
    from xaikit.errors import UsageError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{flag} {text}: expected numbers such as 0.001,0.01,0.1") from None
