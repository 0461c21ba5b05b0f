"""``fedalt reproduce``: a scenario's claim, method against baseline over seeds, and a verdict."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedalt.cli.parser import add_scenario
from fedalt.errors import ConfigError, FedaltError, nearest
from fedalt.scenario import Scenario, find_scenario, installed_scenarios

if TYPE_CHECKING:
    from fedalt.claims.claim import Claim
    from fedalt.claims.data import DataIdentity
    from fedalt.claims.jobs import Job
    from fedalt.claims.measures import Measured

EPILOG = """\
examples:
  fedalt reproduce fedavg_mnist
  fedalt reproduce fedavg_mnist --seeds 5 --jobs 2
  fedalt reproduce fedavg_mnist task.data=fashion_mnist --strict

The key 'claim' of a scenario's YAML says what is claimed: arms, which are
lists of overrides, and statements about their measures. Each arm is run under
each seed, first the scenario's own, then those after it. A statement 'holds'
if its 95 % t-interval over the seeds lies where it is claimed to, 'does not
hold' if it lies wholly outside, and is 'undecided' between.

Runs are kept beneath out=runs, in reproduce/NAME, each by the hash of its
settings: after Ctrl-C the same command goes on where it stood, and what is
done is never done twice. The data and their folder count, and fedalt's
version; to begin anew after a change to the code itself, remove that folder.
What some arms, fewer seeds or overrides come to is written beneath parts/
there, so that the whole claim's results stay. The exit code says that it
ran, unless --strict asks whether the claim holds."""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "reproduce",
        help="check a scenario's claim: arms over seeds, and a verdict",
        description="Run the comparison that a scenario stands for, method against baseline over\n"
        "seeds, and say plainly whether its claim held.",
        epilog=EPILOG,
    )
    add_scenario(command)
    command.add_argument("--seeds", type=int, metavar="N", help="seeds (default: the claim's)")
    command.add_argument("--arms", metavar="A,B", help="only these arms, and what they suffice for")
    command.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at the same time")
    command.add_argument("--strict", action="store_true", help="exit code 1 unless the claim holds")
    command.add_argument("--json", action="store_true", help="print as JSON")
    command.set_defaults(run=run, parser=command)


def run(arguments: argparse.Namespace) -> int:
    """Carry out a claim's runs, judge its statements, show and store what came out."""
    for option, value in (("--seeds", arguments.seeds), ("--jobs", arguments.jobs)):
        if value is not None and value < 1:
            raise ConfigError(f"{option} {value}: at least 1 expected")
    scenario = find_scenario(arguments.scenario)
    config = scenario.config(arguments.overrides)
    if not config["claim"]:
        raise ConfigError(_no_claim(scenario))
    from fedalt.claims.claim import parse_claim
    from fedalt.claims.data import DataIdentity
    from fedalt.claims.jobs import plan_jobs
    from fedalt.claims.judge import HOLDS
    from fedalt.claims.outcome import Outcome
    from fedalt.claims.place import counting, results_folder
    from fedalt.claims.runner import collected
    from fedalt.claims.tables import to_data, write_files

    claim = parse_claim(config["claim"])
    arms = _chosen(claim, arguments.arms)
    seeds = [config["seed"] + i for i in range(arguments.seeds or claim.seeds)]
    root = Path(config["out"]) / "reproduce" / config["name"]
    shown = config["progress"] and not arguments.json
    data_of = DataIdentity(root, _tell if shown else lambda text: None)
    jobs = plan_jobs(claim, scenario.config, arguments.overrides, arms, seeds, root, data_of)
    done = _carry_out(claim, jobs, arguments, config, data_of)
    outcome = Outcome(config["name"], claim, seeds, collected(jobs, done, arms, seeds))
    data = {**to_data(outcome, jobs), "overrides": counting(arguments.overrides)}
    results = results_folder(root, claim, arms, seeds, arguments.overrides)
    _make(results)
    files = write_files(outcome, data, results)
    if arguments.json:
        from fedalt.cli.show import print_json

        print_json({**data, "folder": str(results)})
    else:
        _show(outcome, files)
    return 0 if outcome.verdict == HOLDS or not arguments.strict else FedaltError.exit_code


def _carry_out(
    claim: Claim,
    jobs: Sequence[Job],
    arguments: argparse.Namespace,
    config: Mapping[str, Any],
    data_of: DataIdentity,
) -> dict[Path, Measured]:
    """Run what is not done yet, after every configuration has been checked."""
    from fedalt.claims.outcome import check_measured
    from fedalt.claims.runner import raise_first, run_jobs
    from fedalt.cli.bars import bars
    from fedalt.runs.events import Sink

    done: dict[Path, Measured] = {}

    def finish(job: Job, measured: Measured) -> None:
        for arm in dict.fromkeys(arm for arm, _ in job.stands_for):
            check_measured(claim, arm, measured)
        done[job.folder] = measured

    for job in jobs:
        measured = job.measured()
        if measured is not None:
            finish(job, measured)
    left = [job for job in jobs if job.folder not in done]
    shown = config["progress"] and not arguments.json
    if shown and done:
        _tell(f"{len(done)} of {len(jobs)} runs are done already")
    if shown and left:
        _tell(f"checking the settings of {_runs(len(left))}")
    _check(claim, left)
    _make(jobs[0].folder.parent)
    data_of.save()
    place = {job.folder: i for i, job in enumerate(jobs, 1)}
    with bars(shown, keep=False) as drawn:

        def watch(job: Job) -> Sink:
            arm, seed = job.stands_for[0]
            label = f"{place[job.folder]}/{len(jobs)} {arm}, seed {seed}"
            return drawn.sink(label, job.config["watch"])

        try:
            failed = run_jobs(left, arguments.jobs, watch, finish)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"{len(done)} of {len(jobs)} runs are done; the same command goes on"
            ) from None
    raise_first(failed, len(jobs))
    return done


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def _check(claim: Claim, jobs: Sequence[Job]) -> None:
    """Raise what any of the runs would end with before the first begins."""
    if not jobs:
        return
    from fedalt.claims.jobs import LatestTask
    from fedalt.claims.measures import find_measure
    from fedalt.cli.preflight import check_run

    if claim.measure is not None:
        find_measure(claim.measure)
    tasks = LatestTask()
    for job in jobs:
        try:
            check_run(job.config, tasks)
        except FedaltError as error:
            raise type(error)(f"{job.label}: {error}") from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: no run can be kept there ({error.strerror}); name another place with out=…"
        ) from error


def _chosen(claim: Claim, text: str | None) -> list[str]:
    """Return the arms to run; raises :class:`ConfigError` for one that the claim has not."""
    if text is None:
        return list(claim.arms)
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in claim.arms:
            raise ConfigError(f"--arms: unknown arm '{name}'{nearest(name, claim.arms)}")
    if not wanted:
        raise ConfigError(f"--arms names no arm (known: {', '.join(claim.arms)})")
    return [name for name in claim.arms if name in wanted]


def _no_claim(scenario: Scenario) -> str:
    import yaml

    from fedalt.config import FILE

    found = installed_scenarios().values()
    having = [
        s.name
        for s in found
        if (yaml.safe_load((s.folder / FILE).read_text(encoding="utf-8")) or {}).get("claim")
    ]
    return (
        f"scenario '{scenario.name}' has no claim to reproduce: the key 'claim' of its {FILE} "
        f"would hold it (scenarios that have one: {', '.join(having) or 'none'})"
    )


def _show(outcome: Any, files: Sequence[Path]) -> None:
    from fedalt.claims.tables import tables, verdict_line
    from fedalt.cli.show import print_notes, print_table

    print_notes([f"claim: {outcome.claim.text}"])
    print()
    for table in tables(outcome):
        print_table(table)
        print()
    print(verdict_line(outcome))
    print(f"folder  {files[0].parent} ({', '.join(path.name for path in files)})")
