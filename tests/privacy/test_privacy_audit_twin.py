"""Twin runs: the framework's own mechanisms are audited as they run, right and broken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federations import LeastSquares, settings

from fedalt.alternation.site import Site
from fedalt.audit.audit import AuditOutcome, audit
from fedalt.audit.f_dp import mu_of
from fedalt.audit.twin import phases_of, twin_config, unit_of
from fedalt.errors import ConfigError
from fedalt.runs.folder import RunFolder

CLAIM, DELTA, ROUNDS = 2.0, 1e-5, 2


class Wide(LeastSquares):
    """Six clients and a model of 4001 numbers: room for canaries."""

    def __init__(self) -> None:
        super().__init__(clients=6, features=4000)


def config(**privacy: Any) -> dict[str, Any]:
    """Return a configuration that spends ε = 2 in two rounds, or as ``privacy`` says."""
    noise = float(np.sqrt(ROUNDS)) / mu_of(CLAIM, DELTA)
    spec = {"unit": "client", "clip": 0.2, "noise": noise, "rng": "seeded", **privacy}
    phase = {"kernel": "gradient", "batch_size": 10_000, "params": {"lr": 0.01}, "privacy": spec}
    made = settings(rounds=ROUNDS, phases={"train": phase})
    made["privacy"] |= {"delta": DELTA}
    return made


def run(folder: Path, seed: int = 1, canaries: int = 300, **privacy: Any) -> AuditOutcome:
    return audit(config(**privacy), folder, canaries, seed, tasks=lambda spec: Wide())  # type: ignore[arg-type]


class Quiet:
    """A generator whose noise is a quarter of what is asked for."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def normal(self, mean: float, deviation: float, size: Any = None) -> Any:
        return self._generator.normal(mean, deviation / 4, size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)


def quieten(module: str, patch: pytest.MonkeyPatch) -> None:
    from fedalt.privacy.noise import noise_generator

    patch.setattr(f"{module}.noise_generator", lambda *given: Quiet(noise_generator(*given)))


@pytest.mark.parametrize("trust", ["central", "local"])
@pytest.mark.parametrize("broken", [False, True])
def test_a_run_holds_its_claim_and_one_with_a_quarter_of_the_noise_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust: str, broken: bool
):
    if broken:
        home = "server.strategies.private" if trust == "central" else "clients.protect"
        quieten(f"fedalt.{home}", monkeypatch)
    found = run(tmp_path / "twin", trust=trust)
    # The ledger cannot know that noise was missing; the audit can.
    assert found.claim == pytest.approx(CLAIM, rel=1e-3) and found.delta == DELTA
    assert found.exceeded == broken
    assert found.bounds.canaries == 300 and found.unit == "client"
    assert found.ideal is not None and found.ideal.largest < CLAIM


def test_a_mechanism_that_does_not_clip_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Canaries are louder than any clip, so that noise of the right size hides them no more."""
    from fedalt.privacy.clipping import clip_groups

    def unclipped(update: Any, groups: Any) -> Any:
        return clip_groups(update, [replace(group, bound=1e9) for group in groups])

    monkeypatch.setattr("fedalt.privacy.central.clip_groups", unclipped)
    assert run(tmp_path / "twin").exceeded


def test_an_outcome_is_a_table_and_plain_data(tmp_path: Path):
    found = run(tmp_path / "twin", canaries=60)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["claim"] == found.claim and told["exceeded"] is False
    assert set(told["membership"]["rates"]) == {"0.001", "0.01"}
    table = found.table()
    assert [row[0] for row in table.rows] == ["one run", "f dp", "clopper pearson"]
    assert all(row[-1] == "holds" for row in table.rows)
    assert any("membership" in note for note in table.notes)


def test_the_twin_is_a_run_of_its_own_with_the_scenario_s_delta(tmp_path: Path):
    given = config()
    given["privacy"]["delta"] = None
    before = json.dumps(given)
    audit(given, tmp_path / "twin", 20, 1, tasks=lambda spec: Wide())  # type: ignore[arg-type]
    assert json.dumps(given) == before
    kept = RunFolder(tmp_path / "twin").config()
    # δ of six clients, not of six and the canaries.
    assert kept["privacy"]["delta"] == pytest.approx(6**-1.1)
    assert kept["phases"]["train"]["privacy"] == given["phases"]["train"]["privacy"]
    with pytest.raises(ConfigError, match="already holds a run"):
        audit(given, tmp_path / "twin", 20, 1, tasks=lambda spec: Wide())  # type: ignore[arg-type]


def test_canaries_stay_out_of_phases_that_protect_nobody(tmp_path: Path):
    given = config()
    given["phases"]["open"] = {"kernel": "gradient", "clients": {"unless": {"modality": "mr"}}}
    given["schedule"] = {"cycle": ["train", "open"]}
    task, phases = Wide(), phases_of(given)
    changed = phases_of(twin_config(given, task, phases, unit_of(phases)))
    canary = Site(6, "canary-0", 10, {"modality": "ct", "canary": "yes"})
    fits = {phase.name: phase.clients.fits(canary) for phase in changed}
    assert fits == {"train": True, "open": False}
    open_to = next(phase.clients for phase in changed if phase.name == "open")
    assert [open_to.fits(site) for site in task.sites] == [True, False] * 3


def test_without_a_spec_there_is_nothing_to_audit(tmp_path: Path):
    given = config()
    del given["phases"]["train"]["privacy"]
    with pytest.raises(ConfigError, match="no claim to audit"):
        audit(given, tmp_path / "twin", 20, 1, tasks=lambda spec: Wide())  # type: ignore[arg-type]
