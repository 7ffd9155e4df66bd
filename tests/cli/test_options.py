"""A command's flags are the fields of its options records."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest
from command_line import run

from xaikit.artifacts.option_values import item_type
from xaikit.artifacts.options import flags, value_of
from xaikit.cli.app import LazyGroup, app, commands
from xaikit.cli.options import _read, _text
from xaikit.cli.table import COMMANDS
from xaikit.run.options import Options
from xaikit.stages.causal import CausalOptions
from xaikit.stages.circuit import CircuitOptions
from xaikit.stages.cluster import ClusterOptions
from xaikit.stages.explain import ExplainOptions
from xaikit.stages.fit import FitOptions
from xaikit.stages.intervene import InterveneOptions
from xaikit.stages.stability import StabilityOptions
from xaikit.stages.target_causal import TargetCausalOptions


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_the_list_of_commands_says_what_each_command_says():
    for entry, command in commands():
        assert command.name == entry.name
        first = inspect.cleandoc(command.help).splitlines()[0]
        assert first == entry.help


def test_the_list_names_every_command_once_in_panels():
    names = [entry.name for entry in COMMANDS]
    assert len(set(names)) == len(names)
    assert {"run-all", "trace", "cluster", "fit", "circuit", "causal"} <= set(names)
    assert len({entry.panel for entry in COMMANDS}) >= 5


def test_every_option_of_a_record_is_a_flag_with_its_default():
    cluster = {entry.name: command for entry, command in commands()}["cluster"]
    known = {param.name: param for param in cluster.params}
    for flag in flags(ClusterOptions):
        # What has a way of its own to be read is typed as text.
        assert str(known[flag.name].default) == str(getattr(ClusterOptions(), flag.name))
        assert known[flag.name].help == flag.option.help
    assert "start_seed" not in known
    assert {"json", "quiet", "debug"} <= set(known)


@pytest.mark.parametrize(
    ("record", "fixed"),
    [
        (ClusterOptions(), {"num_clusters": 16, "sample_tokens": 20000, "method": "kmeans"}),
        (ClusterOptions(), {"prefix": "own", "holdout": 0.0}),
        (FitOptions(), {"destination": "token", "num_permutations": 200}),
        (CircuitOptions(), {"top_k": 50, "rank": "weight", "max_qvalue": None}),
        (CausalOptions(), {"max_clusters": 16, "num_permutations": 200}),
        (TargetCausalOptions(), {"top_n": 20, "num_permutations": 200}),
    ],
)
def test_stages_run_by_hand_default_to_the_original_definitions(record, fixed):
    assert {name: getattr(record, name) for name in fixed} == fixed
    assert getattr(record, "seed", 0) == 0


@pytest.mark.parametrize(
    "kind",
    [InterveneOptions, ExplainOptions, StabilityOptions, ClusterOptions, Options],
    ids=lambda kind: kind.__name__,
)
def test_a_default_that_is_typed_as_text_is_read_back(kind):
    typed = [flag for flag in flags(kind) if flag.option.parse or item_type(flag.hint)]
    assert typed
    for flag in typed:
        value = value_of(kind(), flag)
        assert _read(flag, _text(value)) == value, flag.name


def test_every_command_shows_examples_and_their_flags_exist():
    known = {
        entry.name: {name for param in command.params for name in param.opts}
        for entry, command in commands()
    }
    for entry, command in commands():
        shown = re.findall(r"`(?:[^`]*?)xaikit ([a-z-]+)([^`]*)`", command.epilog or "")
        assert entry.name in {called for called, _ in shown}
        for called, rest in shown:
            words = {word for word in rest.split() if word.startswith("--")}
            assert words <= known[called] | {"--nproc-per-node"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cluster", "--num-clusters", "0"], "--num-clusters 0: expected 1 or more"),
        (["cluster", "--seed", "-1"], "--seed -1: expected 0 or more"),
        (["fit", "--seed", str(2**67)], "64 bits"),
        (["cluster", "--holdout", "nan"], "--holdout nan: expected a number"),
        (["fit", "--null", "maybe"], "--null"),
        (["fit", "--null-block", "1"], "--null-block 1: expected 2 or more images, or 0"),
        (["circuit", "--max-qvalue", "2"], "--max-qvalue 2.0: expected a number in [0, 1]"),
        (["causal", "--max-clusters", "0"], "--max-clusters 0: expected 1 or more"),
        (["target-causal", "--top-n", "0"], "--top-n 0: expected 1 or more"),
        (["stability", "--bootstrap", "0"], "--bootstrap 0: expected 1 or more"),
        (
            ["stability", "--num-clusters", "4,x"],
            "--num-clusters 4,x: expected numbers such as 8,16,32",
        ),
        (["stability", "--num-clusters", "4,0"], "--num-clusters 0: expected 1 or more"),
        (["baselines", "--draws", "0"], "--draws 0: expected 1 or more"),
        (["graph", "--min-share", "2"], "--min-share 2.0: expected a number in [0, 1]"),
        (["trace", "--workers", "0"], "--workers 0: expected 1 or more"),
        (["trace", "--shard-size", "-1"], "--shard-size -1: expected 0 or more"),
        (["trace", "--mean", "1,2"], "--mean 1,2: expected three numbers"),
        (["intervene", "--shares", "a"], "--shares a: expected numbers such as 0.001,0.01,0.1"),
        (["intervene", "--rank", "beauty"], "--rank beauty: expected one of weight"),
        (["intervene", "--max-images", "-1"], "--max-images -1: expected a whole number"),
        (["intervene", "--mode", "drop"], "--mode drop: expected one of remove, keep"),
        (["run-all", "--seed", "-1"], "--seed -1: expected 0 or more"),
        (["run-all", "--batch-size", "0"], "--batch-size 0: expected 1 or more"),
        (["run-all", "--target-layer", "2,2"], "--target-layer 2,2: expected each layer once"),
    ],
)
def test_values_out_of_range_are_named_as_typed(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not list(tmp_path.iterdir())


def test_help_of_a_command_has_its_options_in_panels(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    assert run("trace", "-h") == 0
    shown = capsys.readouterr().out
    panels = {line.split("─")[1].strip() for line in shown.splitlines() if line.startswith("╭─")}
    assert panels >= {"Options", "Model", "Images", "Running", "Output"}
    (mean,) = (line for line in shown.splitlines() if "--mean" in line)
    assert mean.split()[2] == "R,G,B"
    assert "Examples" in shown
    assert run("graph", "-h") == 0
    shown = capsys.readouterr().out
    assert "Example" in shown
    assert "Examples" not in shown


def test_a_mistyped_command_names_the_nearest(capsys):
    assert run("clustr") == 2
    assert "cluster" in capsys.readouterr().err


def test_help_imports_no_command():
    script = (
        "import sys; from xaikit.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "known = ('xaikit.stages', 'xaikit.cli.', 'typer')\n"
        "loaded = [m for m in sys.modules if m.startswith(known)]\n"
        "print(sorted(loaded))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.strip().splitlines()[-1]
    assert "stages" not in loaded
    assert "typer" not in loaded
    assert not any(repr(f"xaikit.cli.{entry.module}") in loaded for entry in COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []], ids=str)
def test_help_shows_every_command_in_its_panel(arguments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert run(*arguments) == (0 if arguments else 2)
    shown = capsys.readouterr()
    assert shown.err == ""
    panels = [panel.split("╰")[0] for panel in shown.out.split("╭─ ")[2:]]
    assert [panel.split(" ─")[0] for panel in panels] == list(
        dict.fromkeys(entry.panel for entry in COMMANDS)
    )
    for entry in COMMANDS:
        (panel,) = (each for each in panels if f"│ {entry.name} " in each)
        assert panel.startswith(entry.panel)
        assert entry.help in " ".join(panel.replace("│", " ").split())


def test_the_group_is_lazy():
    assert app.info.cls is LazyGroup
