"""The ledger: what is reserved is spent, whoever is touched is charged, and budgets hold."""

from __future__ import annotations

import errno
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from privacy_plans import DELTA, client_phase, ledger, record_phase, roster, rounds, run_round

from fedalt.alternation import Phase, Selector
from fedalt.alternation.phase import View
from fedalt.errors import BudgetError, CheckpointError, ConfigError, LedgerError
from fedalt.privacy.account import Scope
from fedalt.privacy.accounting import Accountant
from fedalt.privacy.charges import charges_of
from fedalt.privacy.events import gaussian, sampled, times
from fedalt.privacy.private_ledger import check_holds
from fedalt.privacy.release import Protection
from fedalt.privacy.replay import check_stated, replay

SITES = roster(20, groups=4)


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


def test_an_entry_holds_what_an_account_needs(tmp_path: Path) -> None:
    phase = client_phase(noise=2.0, clip=0.5, train=("body",), modality="ct", task="organs")
    book = ledger(tmp_path, SITES)
    applied = Protection(1.0, 0.5, 0.5, 2.0, "uniform", 4.0, "os:chacha20")
    run_round(book, rounds(phase, sites=SITES), applied)
    first, reserved, committed = entries(tmp_path)
    assert first["status"] == "opened" and first["terms"]["relation"] == "add_remove"
    assert reserved["status"] == "reserved" and committed["settles"] == reserved["number"] == 1
    (charge,) = committed["charges"]
    assert (charge["unit"], charge["sites"], charge["size"]) == ("client", "0-19", 20)
    assert (charge["blocks"], charge["modality"], charge["task"]) == (["body"], "ct", "organs")
    assert charge["draw"] == {"kind": "poisson", "rate": 0.2, "size": 20, "population": 20}
    assert json.loads(charge["event"]) == {
        "kind": "poisson", "rate": 0.2, "of": {"kind": "gaussian", "noise": 2.0},
    }  # fmt: skip
    assert committed["mechanism"] == {
        "name": "gaussian", "trust": "central", "clip": 0.5, "noise_multiplier": 2.0,
        "noise_std": 1.0, "sensitivity": 0.5, "weights": "uniform", "denominator": 4.0,
        "rng": "os:chacha20",
    }  # fmt: skip
    assert committed["released"] == ["body"] and committed["replies"] == 20
    wanted = Accountant().fast({sampled(0.2, gaussian(2.0)): 1}, DELTA)
    assert committed["spent"] == [
        {"unit": "client", "epsilon": wanted.epsilon, "bound": wanted.method}
    ]


def test_what_a_killed_run_reserved_is_spent(tmp_path: Path) -> None:
    plan = rounds(client_phase(), sites=SITES)
    book = ledger(tmp_path, SITES)
    book.reserve(plan)
    vouched = book.facts()
    # The process dies here; the next one does the round again.
    book = ledger(tmp_path, SITES)
    check_holds(tmp_path / "ledger.jsonl", vouched)
    after = run_round(book, plan)["privacy/client"]
    twice = Accountant().fast({sampled(0.2, gaussian(1.0)): 2}, DELTA).epsilon
    assert after == pytest.approx(twice)
    statuses = [entry["status"] for entry in entries(tmp_path)]
    assert statuses == ["opened", "reserved", "opened", "reserved", "committed"]


def test_what_was_not_sent_is_given_back(tmp_path: Path) -> None:
    plan = rounds(client_phase(), sites=SITES)
    book = ledger(tmp_path, SITES)
    book.reserve(plan)
    book.abort(1, "train", "the strategy cannot configure the round")
    assert book.account.worst(Scope("client"), DELTA).epsilon == 0.0
    assert ledger(tmp_path, SITES).account.worst(Scope("client"), DELTA).epsilon == 0.0


def test_nothing_is_reserved_in_part_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = ledger(tmp_path, SITES)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(CheckpointError, match="nothing was sent"):
        patch.setattr(os, "fsync", full)
        book.reserve(rounds(client_phase(), sites=SITES))
    assert [entry["status"] for entry in entries(tmp_path)] == ["opened"]


def test_records_of_a_site_pay_for_its_own_steps(tmp_path: Path) -> None:
    book = ledger(tmp_path, SITES)
    run_round(book, rounds(record_phase(noise=1.5), sites=SITES))
    for site in (0, 1):
        size = SITES[site].size
        history = {times(sampled(10 / size, gaussian(1.5)), math.ceil(size / 10)): 1}
        wanted = Accountant().fast(history, DELTA).epsilon
        assert book.account.each(Scope("record"), DELTA)[site] == pytest.approx(wanted)


def test_disjoint_groups_are_never_added_up(tmp_path: Path) -> None:
    book = ledger(tmp_path, SITES)
    for number in range(1, 9):
        where = {"group": (str(number % 4),)}
        selector = Selector(mode="poisson", rate=0.2, where=where)
        run_round(book, rounds(client_phase(clients=selector), sites=SITES, number=number))
    worst = book.account.worst(Scope("client"), DELTA).epsilon
    assert worst == pytest.approx(
        Accountant().fast({sampled(0.2, gaussian(1.0)): 2}, DELTA).epsilon
    )


def test_blocks_and_tasks_of_one_person_add_up(tmp_path: Path) -> None:
    book = ledger(tmp_path, SITES)
    everyone = Selector()
    for number, block in enumerate(("body", "head", "body"), start=1):
        phase = client_phase(noise=8.0, clients=everyone, train=(block,), task=block)
        run_round(book, rounds(phase, sites=SITES, number=number))
    account, spend = book.account, Accountant()

    def of(**scope: str) -> float:
        return account.worst(Scope("client", **scope), DELTA).epsilon

    assert of() == pytest.approx(spend.fast({gaussian(8.0): 3}, DELTA).epsilon)
    assert of(block="body") == pytest.approx(spend.fast({gaussian(8.0): 2}, DELTA).epsilon)
    assert of(task="head") == pytest.approx(spend.fast({gaussian(8.0): 1}, DELTA).epsilon)


def test_tasks_that_share_nobody_are_compared_not_added(tmp_path: Path) -> None:
    book = ledger(tmp_path, SITES, disjoint="task")
    for number, task in enumerate(("a", "b", "", "b"), start=1):
        phase = record_phase(noise=8.0, kernel="covariance", task=task)
        run_round(book, rounds(phase, sites=SITES, number=number))
    wanted = Accountant().fast({gaussian(8.0): 3}, DELTA).epsilon
    assert book.account.worst(Scope("record"), DELTA).epsilon == pytest.approx(wanted)


def test_bounds_a_block_cost_a_block_less_than_all(tmp_path: Path) -> None:
    phase = client_phase(
        noise=4.0, clips={"body": 1.0, "head": 0.1}, train=("body", "head"), clients=Selector()
    )
    book = ledger(tmp_path, SITES)
    run_round(book, rounds(phase, sites=SITES))
    spend = Accountant()
    both, one = ({gaussian(z): 1} for z in (4.0 / math.sqrt(2.0), 4.0))
    found = [book.account.worst(Scope("client", b), DELTA).epsilon for b in ("", "body", "head")]
    assert found[0] == pytest.approx(spend.fast(both, DELTA).epsilon)
    assert found[1] == found[2] == pytest.approx(spend.fast(one, DELTA).epsilon)


def test_a_client_s_noise_hides_a_record_half_as_well(tmp_path: Path) -> None:
    """A record turns one clipped update into another, up to twice the bound away."""
    book = ledger(tmp_path, SITES)
    run_round(book, rounds(client_phase(noise=2.0), sites=SITES))
    found = book.account.worst(Scope("record"), DELTA).epsilon
    assert found == pytest.approx(Accountant().fast({gaussian(1.0): 1}, DELTA).epsilon)
    run_round(book, rounds(record_phase("rows"), sites=SITES, number=2))
    assert math.isinf(book.account.worst(Scope("client"), DELTA).epsilon)
    assert book.account.worst(Scope("record"), DELTA).epsilon < 20


def test_a_phase_without_a_mechanism_costs_everything(tmp_path: Path) -> None:
    book = ledger(tmp_path, SITES)
    some = Selector(where={"group": ("0",)})
    run_round(book, rounds(client_phase(clients=Selector()), sites=SITES))
    run_round(book, rounds(Phase("open", clients=some), sites=SITES, number=2))
    each = book.account.each(Scope("client"), DELTA)
    assert [math.isinf(value) for value in each] == [i % 4 == 0 for i in range(20)]
    found = [state for _, state in replay(tmp_path / "ledger.jsonl")][-1]
    assert math.isinf(found.spent()["client"].epsilon)


def test_lost_shares_of_noise_are_charged_as_they_were(tmp_path: Path) -> None:
    phase = client_phase(noise=4.0, trust="distributed", clients=Selector())
    book = ledger(tmp_path, SITES)
    applied = Protection(3.35, 1.0, 1.0, 4.0 * math.sqrt(0.7))
    found = run_round(book, rounds(phase, sites=SITES), applied)["privacy/client"]
    wanted = Accountant().fast({gaussian(4.0 * math.sqrt(0.7)): 1}, DELTA).epsilon
    assert found == pytest.approx(wanted)


def test_a_budget_ends_the_run_before_the_round_that_would_exceed(tmp_path: Path) -> None:
    phase = client_phase(noise=2.0, clients=Selector())
    book = ledger(tmp_path, SITES, budget={"client": 5.0})
    number = 0
    with pytest.raises(BudgetError, match=r"above its budget of 5, at δ=1e-05 \(20 of 20 sites\)"):
        for number in range(1, 50):
            run_round(book, rounds(phase, sites=SITES, number=number))
    spent = book.account.worst(Scope("client"), DELTA).epsilon
    more = Accountant().tight({gaussian(2.0): number}, DELTA).epsilon
    assert spent <= 5.0 < more
    assert entries(tmp_path)[-1]["status"] == "committed"


def test_a_budget_a_block_leaves_other_blocks_theirs(tmp_path: Path) -> None:
    book = ledger(tmp_path, SITES, budget={"client/head": 2.5})
    head = client_phase("head", noise=2.0, clients=Selector(), train=("head",))
    run_round(book, rounds(head, sites=SITES))
    with pytest.raises(BudgetError, match="block 'head'"):
        run_round(book, rounds(head, sites=SITES, number=2))
    run_round(book, rounds(replace(head, name="body", train=("body",)), sites=SITES, number=2))


def test_sites_without_a_budget_sit_out(tmp_path: Path) -> None:
    small, large = roster(2, size=40), roster(4, size=400)
    sites = type(SITES)([*small, *(replace(s, index=s.index + 2) for s in large)])
    book = ledger(tmp_path, sites, budget={"record": 9.0}, policy="skip-client")
    asked = []
    with pytest.raises(BudgetError):
        for number in range(1, 200):
            plan = rounds(record_phase(noise=1.0), sites=sites, number=number)
            allowed = book.reserve(plan)
            asked.append({site.index for part in allowed.parts for site in part.cohort})
    assert asked[0] == set(range(6)) and asked[-1] and asked[-1] <= {2, 3, 4, 5}
    assert (book.account.each(Scope("record"), DELTA, tight=True) <= 9.0).all()
    assert book.account.worst(Scope("record"), DELTA, tight=True).epsilon > 8.0


def test_sites_return_too_early_for_correlated_noise(tmp_path: Path) -> None:
    def turn(number: int, group: int) -> Any:
        some = Selector(where={"group": (str(group),)})
        phase = client_phase(mechanism="banded", bands=3, clients=some)
        return rounds(phase, sites=SITES, number=number)

    book = ledger(tmp_path, SITES)
    for number, group in enumerate((0, 1, 2, 0), start=1):
        run_round(book, turn(number, group))
    book = ledger(tmp_path, SITES)
    with pytest.raises(BudgetError, match="take part again after 2 of the phase's rounds"):
        book.reserve(turn(5, 2))
    run_round(book, turn(4, 0))


def test_every_stated_epsilon_follows_from_the_entries(tmp_path: Path) -> None:
    book = ledger(tmp_path, SITES)
    for number in range(1, 4):
        run_round(book, rounds(client_phase(), record_phase("rows"), sites=SITES, number=number))
    book.reserve(rounds(client_phase(), sites=SITES, number=4))
    for entry, state in replay(tmp_path / "ledger.jsonl"):
        check_stated(entry, state.spent())
    assert len(state.open) == 1 and state.rounds == 3


def test_a_ledger_that_lacks_what_a_commit_vouches_for_is_refused(tmp_path: Path) -> None:
    book = ledger(tmp_path, SITES)
    run_round(book, rounds(client_phase(), sites=SITES))
    vouched = book.facts()
    path = tmp_path / "ledger.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(LedgerError, match="lacks entries"):
        check_holds(path, vouched)


def test_terms_do_not_change_under_a_ledger(tmp_path: Path) -> None:
    run_round(ledger(tmp_path, SITES), rounds(client_phase(), sites=SITES))
    with pytest.raises(LedgerError, match="opened on other terms"):
        ledger(tmp_path, SITES, delta=1e-3)
    ledger(tmp_path, SITES, budget={"client": 3.0})


def test_draws_that_anyone_can_repeat_gain_nothing() -> None:
    phase = client_phase(clients=Selector(mode="fixed", count=5), noise=2.0)
    (charge,) = charges_of(phase, [SITES[i] for i in range(5)], SITES)
    assert charge.sites.tolist() == list(range(5)) and charge.event == gaussian(2.0)


def test_a_client_of_two_modalities_is_one_client(tmp_path: Path) -> None:
    book = ledger(tmp_path, SITES, disjoint="modality")
    for number, modality in enumerate(("ct", "mr"), start=1):
        phase = client_phase(noise=8.0, clients=Selector(), modality=modality)
        run_round(book, rounds(phase, sites=SITES, number=number))
    wanted = Accountant().fast({gaussian(8.0): 2}, DELTA).epsilon
    assert book.account.worst(Scope("client"), DELTA).epsilon == pytest.approx(wanted)


def test_what_is_measured_may_not_decide_by_bounds_that_forbid_it(tmp_path: Path) -> None:
    book = ledger(tmp_path, SITES, adaptive=True)
    run_round(book, rounds(client_phase(), sites=SITES))
    assert book.spent()["client"]["bound"] == "rdp"
    assert not any(entry.get("fixed_in_advance") for entry in entries(tmp_path))


@pytest.mark.parametrize("inner", ["kernel", "view"])
def test_an_inner_phase_costs_what_it_says(inner: str) -> None:
    leaf = Phase("rows", batch_size=10, kernel="covariance" if inner == "kernel" else "gradient")
    middle = Phase("middle", inner=(leaf,), view=View(0.25 if inner == "view" else 1.0))
    phase = record_phase("outer", inner=(middle,))
    words = "does not run inside" if inner == "kernel" else "a view within a view"
    with pytest.raises(ConfigError, match=words):
        charges_of(phase, list(SITES), SITES)
