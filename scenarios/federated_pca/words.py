"""The words of a federated PCA report: names of methods, and what the numbers do not show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from fedalt.runs.report import Finished
from fedalt.scenarios.federated_pca.task import FederatedPCA

LABELS = {
    "main": "FedPG (Grassmann)",
    "fedpe": "FedPE (Euclidean)",
    "power": "power iteration",
    "one_shot_exact": "one shot, exact covariance",
    "one_shot_scaled": "one shot, scaled merge",
    "one_shot_projector": "one shot, projector mean",
    "partial": "FedPG, 10% of sites a round",
    "partial_no_table": "the same, without the table",
    "no_dual": "FedPG without dual",
    "wrong_dual": "FedPG, dual of wrong sign",
    "no_align": "FedPG without alignment",
    "synthetic": "FedPG (Grassmann)",
}
"""Names of the variants, in order of display."""
KERNELS = {"grassmann": LABELS["main"], "euclidean": LABELS["fedpe"], "power": LABELS["power"]}
SAME = 0.05
"""A difference of AUC below this tells nothing about a subspace."""
CLEAR_GAP = 0.01


def ordered(names: Iterable[str]) -> list[str]:
    """Sort run names for display: the known ones, then others by name."""
    known = list(LABELS)
    return sorted(names, key=lambda n: (known.index(n) if n in known else len(known), n))


def label(name: str, run: Finished) -> str:
    """Name a run; the main run by the kernel that its configuration chose."""
    if name in ("main", "synthetic"):
        kernel = run.config["phases"].get("consensus", {}).get("kernel", "")
        return KERNELS.get(kernel, "this run")
    return LABELS.get(name, name)


def title(task: FederatedPCA) -> str:
    """Say which data this is, and plainly so if it is not the first choice."""
    facts = (
        f"{task.records.name}: {len(task.sites)} sites, {len(task.records.train_x)} normal "
        f"records, d = {task.dimension}, k = {task.rank}"
    )
    return f"{task.fallback}\n{facts}" if task.fallback else facts


def verdict(right: float, chance: float, plain: float) -> str:
    """Say whether detection depends on the subspace; all three are AUCs."""
    if abs(right - chance) < SAME:
        return (
            "detection cannot tell a right subspace from a random one here "
            f"(AUC {right:.3f} against {chance:.3f}; ‖x‖² alone {plain:.3f}): "
            "the residual ratio is the measure"
        )
    return (
        f"the subspace matters here: AUC {right:.3f} with the right one, {chance:.3f} with a "
        f"random one, {plain:.3f} with ‖x‖² alone"
    )


def determined(task: FederatedPCA) -> str:
    """Say whether the data determine the subspace, or only its residual."""
    k, values = task.rank, task.spectrum
    found = f"λ_{k} = {values[k - 1]:.3f} and λ_{k + 1} = {values[k]:.3f} of λ_1 = {values[0]:.2f}"
    if task.gap >= CLEAR_GAP:
        return f"the data determine the subspace: {found}"
    return (
        f"the data hardly determine the subspace ({found}): a distance between subspaces means "
        "nothing here, the residual ratio does"
    )


def costs(task: FederatedPCA, runs: Mapping[str, Finished]) -> list[str]:
    """Compare what is sent in rounds with what is sent once."""
    notes = []
    d, k = task.dimension, task.rank
    told = messages(next(iter(runs.values()))) / len(task.sites)
    if told:
        once, iterated = d * (d + 1) // 2, round(d * k * told)
        cheaper = "cheaper" if once < iterated else "dearer"
        notes.append(
            f"sending the covariance once ({once} numbers a site) is {cheaper} than {told:.3g} "
            f"messages of d·k ({iterated}): it is cheaper whenever d < 2kR, for R messages a site"
        )
    if {"one_shot_scaled", "one_shot_projector"} & set(runs):
        saved = 8 * (d * d - d * k) / 1000
        notes.append(
            "the scaled and projector merges are sent as d·d numbers here, like the exact "
            f"covariance; d·k would do, {saved:.3g} kB a site less"
        )
    return notes


def messages(run: Finished) -> int:
    """Count the subspaces that sites sent."""
    return sum(int(event["sites"].get("consensus", 0)) for event in run.rounds)


def thresholds(task: FederatedPCA, runs: Mapping[str, Finished]) -> list[str]:
    """Say which methods have no threshold, and why."""
    without = [label(n, run) for n, run in runs.items() if not np.any(run.arrays["threshold"])]
    if not without:
        return []
    return [
        f"no threshold, so neither F1 nor FPR, for {', '.join(without)}: the run ended before "
        "its last phase (raise rounds, or lower vars.consensus_rounds) or holds nothing out"
    ]
