"""Draws that hide who takes part: nobody stores them; no client decides for others by failing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from federations import LeastSquares, Stop, federate

from fedalt.alternation import History, Planner, Selector
from fedalt.errors import ConfigError
from fedalt.privacy.terms import check_protected
from fedalt.runs.checkpoint import newest_checkpoint

from privacy_plans import client_phase, record_phase, roster  # isort: skip

SITES = roster(60)
PRIVACY: dict[str, Any] = {
    "delta": 1e-5, "relation": "add_remove", "budget": {}, "policy": "stop", "disjoint": "",
    "allow_unprotected": False,
}  # fmt: skip


def test_a_round_that_is_done_again_draws_anew() -> None:
    phase = client_phase(clients=Selector(mode="poisson", rate=0.5))
    first = Planner(phase, 3, SITES, secret=1)
    state = first.state_dict()
    before = first.plan(1, History())
    again = Planner(phase, 3, SITES, secret=2)
    again.load_state_dict(json.loads(json.dumps(state)))
    after = again.plan(1, History())
    assert before is not None and after is not None
    assert before.parts[0].cohort != after.parts[0].cohort
    assert "secret" not in state


def test_no_commit_holds_the_secret(tmp_path: Path) -> None:
    spec = {"unit": "client", "noise": 1.0}
    phase = {"clients": {"mode": "poisson", "rate": 0.5}, "privacy": spec}
    with pytest.raises(Stop):
        federate(LeastSquares(), tmp_path / "run", 1, phases={"train": phase}, privacy=PRIVACY)
    snapshot, _ = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert snapshot is not None and "secret" not in json.dumps(snapshot.facts["planner"])


class Failing(LeastSquares):
    """A site that cannot answer."""

    def site_data(self, site: int) -> Any:
        if site == 2:
            raise ValueError("a row of its own")
        return super().site_data(site)


def test_one_client_s_failure_ends_no_run_that_protects_clients(tmp_path: Path) -> None:
    spec = {"unit": "client", "noise": 1.0}
    result, snapshot = federate(
        Failing(), tmp_path / "run", rounds=2, phases={"train": {"privacy": spec}}, privacy=PRIVACY
    )
    assert result["round"] == snapshot.round == 2


def test_rows_are_not_told_of_through_blocks_that_stay() -> None:
    kept = client_phase("own", train=("body", "head"), aggregate={"head": "local"})
    config = {"privacy": PRIVACY, "evaluate": {"clients_every": 0}}
    with pytest.raises(ConfigError, match="block 'head', which stays at each site"):
        check_protected(config, [kept, record_phase("shared", train=("body",))])
    check_protected(config, [kept])
    with pytest.raises(ConfigError, match=r"no privacy\.budget holds"):
        open_ = {**PRIVACY, "allow_unprotected": True, "budget": {"client": 3.0}}
        check_protected({**config, "privacy": open_}, [kept])
