"""The audit of a scenario: does a twin run with canaries give more away than its ledger says?

The twin runs the scenario's own model, mechanism and ledger. The claim is refuted where a lower
bound on ε, at the ledger's δ, exceeds the ledger's ε. An audit that refutes nothing proves
nothing, so the outcome says beside each bound what a mechanism that just keeps the claim would
be bounded by: where that is small, so is what the audit could have shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedalt.audit.bounds import LowerBounds, expected, lower_bounds
from fedalt.audit.client_canaries import ClientCanaries
from fedalt.audit.library import MISSING, library_bounds
from fedalt.audit.membership import Membership, membership
from fedalt.audit.mislabelled import Mislabelled, can_mislabel
from fedalt.audit.record_canaries import RecordCanaries
from fedalt.audit.twin import ledger_claim, phases_of, twin_config, unit_of
from fedalt.audit.wrapped import TwinTasks, Wrapped
from fedalt.build import TaskCache
from fedalt.errors import CheckpointError
from fedalt.runs.checkpoint import newest_checkpoint
from fedalt.runs.events import Sink
from fedalt.runs.folder import RunFolder
from fedalt.runs.report import Table
from fedalt.runs.simulate import simulate
from fedalt.seeds import Seeds
from fedalt.task import Task

CLIENT = "fedalt.clients.canaries:create_app"
SIGNIFICANCE = 0.05
CROWDED = (
    "{canaries} directions are many for the numbers that the phases train, so that canaries hide "
    "each other: fewer may show more"
)

HOW_SURE = (
    "each bound holds with 95 % confidence on its own; f dp takes the noise to be Gaussian, "
    "clopper pearson takes canaries of one run to be independent"
)
OF_USERS = "a canary is one record of a user: what several of one user's add up to is not tested"


@dataclass(frozen=True)
class AuditOutcome:
    """What an audit found. ``claim`` is the ledger's ε at ``delta`` for one ``unit``.

    ``ideal`` are the bounds that Gaussian noise of exactly the claim would be expected to give;
    ``library`` those of jax-privacy, where it is installed.
    """

    unit: str
    claim: float
    delta: float
    bounds: LowerBounds
    ideal: LowerBounds | None
    library: LowerBounds | None
    membership: Membership
    notes: tuple[str, ...]

    @property
    def exceeded(self) -> bool:
        """Whether some bound refutes the claim."""
        return self.bounds.largest > self.claim

    def table(self) -> Table:
        """Return the bounds beside the claim, and the membership inference."""
        names = ("one_run", "f_dp", "clopper_pearson")
        rows = [
            (
                name.replace("_", " "),
                *(_digits(None if b is None else getattr(b, name)) for b in self._columns),
                _digits(self.claim),
                "refuted" if (getattr(self.bounds, name) or 0.0) > self.claim else "holds",
            )
            for name in names
        ]
        return Table(
            f"Audit by {self.bounds.canaries} canaries, one {self.unit} each, "
            f"at δ={self.delta:.3g}",
            ("method", "ε at least", "if ε were the claim", "jax-privacy", "claim", "verdict"),
            tuple(rows),
            (*self.notes, *_told(self.membership)),
        )

    @property
    def _columns(self) -> tuple[LowerBounds | None, ...]:
        return self.bounds, self.ideal, self.library

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; numbers that are not finite as text."""
        data = {**asdict(self), "exceeded": self.exceeded}
        data["claim"] = self.claim if math.isfinite(self.claim) else str(self.claim)
        for key in ("rates", "allowed"):
            data["membership"][key] = {f"{k:g}": v for k, v in data["membership"][key].items()}
        return data


def audit(
    config: Mapping[str, Any],
    out: Path,
    canaries: int = 1000,
    seed: int = 0,
    progress: Sink | None = None,
    tasks: TaskCache | None = None,
) -> AuditOutcome:
    """Run the twin of a scenario's resolved configuration in the new folder ``out``; judge it.

    ``seed`` decides who is in and where canaries point, and has nothing to do with the run's
    seed or its noise. ``progress`` hears the twin's events. Raises :class:`ConfigError` where
    nobody is protected or canaries have no place.
    """
    task = (tasks or TaskCache())(config["task"])
    phases = phases_of(config)
    unit, seeds = unit_of(phases), Seeds(seed).at("audit")
    twin = twin_config(config, task, phases, unit)
    records = Mislabelled(task, canaries, seeds) if can_mislabel(task, phases) else None
    base: Task = records or task
    joined: ClientCanaries | RecordCanaries
    if unit == "client":
        opposite = config["privacy"]["relation"] == "replace_one"
        joined = ClientCanaries(base, canaries, seeds, opposite)
    else:
        joined = RecordCanaries(base, canaries, seeds, phases)
    folder = RunFolder(out)
    folder.create(twin)
    _run(twin, folder, joined, progress)
    claim, delta = ledger_claim(folder, unit)
    return judge(unit, claim, delta, joined, _attack(records, joined, folder, twin), seeds)


def _run(
    config: Mapping[str, Any], folder: RunFolder, task: Wrapped, progress: Sink | None
) -> None:
    sinks = () if progress is None else (progress,)
    simulate(config, folder, TwinTasks(task), sinks, client=CLIENT)


def judge(
    unit: str,
    claim: float,
    delta: float,
    canaries: ClientCanaries | RecordCanaries,
    attack: Membership,
    seeds: Seeds,
) -> AuditOutcome:
    """Return what the scores of a twin's canaries say about a claim."""
    scores, present = canaries.scores(), canaries.present
    inside, outside = scores[present], scores[~present]
    rng = seeds.at("bounds").numpy()
    bounds = lower_bounds(inside, outside, delta, SIGNIFICANCE, rng)
    library = library_bounds(inside, outside, delta, SIGNIFICANCE)
    ideal = None
    if math.isfinite(claim):
        ideal = expected(claim, delta, len(scores), seeds.at("ideal").numpy(), SIGNIFICANCE)
    notes = [HOW_SURE, *bounds.notes, *([] if library else [MISSING])]
    if unit == "user":
        notes.append(OF_USERS)
    if canaries.crowded:
        notes.append(CROWDED.format(canaries=len(scores)))
    return AuditOutcome(unit, claim, delta, bounds, ideal, library, attack, tuple(notes))


def _attack(
    records: Mislabelled | None,
    canaries: ClientCanaries | RecordCanaries,
    folder: RunFolder,
    config: Mapping[str, Any],
) -> Membership:
    """Tell members from others: records with wrong labels, or else the canaries themselves."""
    if records is None:
        scores, present, of = canaries.scores(), canaries.present, "canaries"
    else:
        snapshot, notes = newest_checkpoint(folder.checkpoints)
        if snapshot is None:
            raise CheckpointError(f"{folder.path} holds no model: {'; '.join(notes)}")
        before = records.initial_arrays(Seeds(config["seed"]).at("initial"))
        after = snapshot.model
        if isinstance(canaries, RecordCanaries):
            after = canaries.without(after)
        scores, present = records.scores(before, after), records.present
        of = "mislabelled records"
    return membership(scores[present], scores[~present], of)


def _digits(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return None if value is None else float(np.round(value, 3))
    return str(value)


def _told(attack: Membership) -> tuple[str, ...]:
    rates = [
        f"TPR {rate.value:.3f} ({rate.low:.3f}–{rate.high:.3f}) at FPR {level:g}"
        for level, rate in attack.rates.items()
    ]
    area = attack.area
    return (
        f"membership of {attack.of} ({attack.members} in, {attack.others} out): "
        f"{'; '.join(rates)}; AUC {area.value:.3f} ({area.low:.3f}–{area.high:.3f})",
    )
