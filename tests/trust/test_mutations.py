"""A seeded share of `trust.mutations`; `python tests/trust/run.py` tries them all."""

from __future__ import annotations

from trust import mutations

from xaikit.artifacts import stored

CASES = 156


def test_changed_artefacts_are_refused_or_give_what_they_gave(capsys):
    cases, failures = mutations.run(CASES, 0)
    with capsys.disabled():
        print(f"\nartefact mutations: {cases} cases, {len(failures)} failures")
    assert not failures, "\n".join(failures)


def test_a_reader_that_checks_nothing_fails(monkeypatch):
    monkeypatch.setattr(mutations, "COMMANDS", 10**9)
    monkeypatch.setattr(stored, "require_seal", lambda *_: None)
    monkeypatch.setattr(stored.StoredTensors, "_check", lambda *_: None)
    assert mutations.run(3 * len(mutations.KINDS), 0)[1]
