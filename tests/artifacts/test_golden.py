"""Files of earlier versions are read by this one, or refused with what to do."""

from __future__ import annotations

import re

import orjson
import pytest
from trust.mutations import GOLDEN, KINDS

from xaikit.artifacts.digests import sealed
from xaikit.artifacts.files import FORMAT_VERSION, write_json
from xaikit.artifacts.results import Circuit
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.errors import UsageError
from xaikit.report.inspection import inspect_file


def test_the_set_is_of_every_kind_and_small():
    files = [path for path in GOLDEN.rglob("*") if path.is_file()]
    assert {str(path.relative_to(GOLDEN)) for path in files} == {kind.name for kind in KINDS}
    assert sum(path.stat().st_size for path in files) < 100_000


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_a_file_of_this_format_is_read(kind):
    assert kind.read(GOLDEN / (kind.loaded or kind.name)) is not None
    if not kind.loaded:
        healthy = ("not testable", "nothing was held out", "are empty", "no image to test")
        said = inspect_file(GOLDEN / kind.name)["health"]
        assert [line for line in said if not line.endswith(healthy)] == []


def test_what_was_read_is_what_was_written():
    folder = GOLDEN / "layer_2"
    trace = Trace.load(folder / "trace.safetensors")
    features = Features.load(folder / "features.safetensors")
    fit = Fit.load(folder / "fit.safetensors")
    circuit = Circuit.load(folder / "circuit.json")
    assert (len(trace), trace.layer, fit.destination) == (12, 2, "cluster")
    assert features.provenance.parents["trace"] == trace.identity
    assert fit.provenance.parents["features"] == features.identity
    assert circuit.provenance.parents["fit"] == fit.identity
    first = circuit.paths[0]
    assert first.weight == pytest.approx(float(fit.prototypes[first.key]))
    assert max(abs(fit.contrast.flatten())) == pytest.approx(abs(first.contrast))


@pytest.mark.parametrize("version", [0, FORMAT_VERSION - 1, FORMAT_VERSION + 1, True, None, "2"])
def test_another_format_is_refused_with_what_to_do(tmp_path, version):
    fields = orjson.loads((GOLDEN / "layer_2" / "circuit.json").read_bytes())
    del fields["digest"]
    write_json(tmp_path / "circuit.json", {**fields, "format_version": version})
    older = type(version) is int and version < FORMAT_VERSION
    what = "make it again with `xaikit circuit`" if older else "upgrade xaikit"
    with pytest.raises(UsageError, match=re.escape(str(tmp_path / "circuit.json"))) as caught:
        Circuit.load(tmp_path / "circuit.json")
    assert what in str(caught.value)


def test_a_users_own_artefact_is_loaded(tmp_path):
    fit = Fit.load(GOLDEN / "layer_2" / "fit.safetensors")
    fit.prototypes = fit.prototypes * 2
    before = fit.identity
    fit.save(tmp_path / "fit.safetensors")
    again = Fit.load(tmp_path / "fit.safetensors")
    assert again == fit
    assert again.identity != before


def test_an_edit_is_named_with_what_was_expected(tmp_path):
    data = (GOLDEN / "layer_2" / "fit.safetensors").read_bytes()
    path = tmp_path / "fit.safetensors"
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with pytest.raises(UsageError, match=r"was changed or damaged after .* expected .* again with"):
        Fit.load(path)


def test_an_identity_that_is_not_its_contents_is_refused(tmp_path):
    fields = orjson.loads((GOLDEN / "layer_2" / "circuit.json").read_bytes())
    fields["paths"][0]["weight"] += 1
    fields["digest"] = "0" * 32
    (tmp_path / "circuit.json").write_bytes(sealed(orjson.dumps(fields))[0])
    with pytest.raises(UsageError, match="says that its identity is"):
        Circuit.load(tmp_path / "circuit.json")
