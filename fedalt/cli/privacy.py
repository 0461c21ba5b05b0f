"""``fedalt privacy plan|report|verify|audit``: what a federation costs its people."""

from __future__ import annotations

import argparse
from typing import Any

from fedalt.cli.parser import Parser, add_scenario, add_variant

EPILOG = """\
examples:
  fedalt privacy plan ./my_scenario          ε before anything runs
  fedalt privacy plan NAME --target 3        how much noise an ε of 3 takes
  fedalt privacy plan NAME --budget 8        how many rounds an ε of 8 lasts
  fedalt privacy plan NAME --runs 10         what tuning over 10 runs costs
  fedalt privacy plan NAME --plot plan.png   ε over rounds, and against δ
  fedalt privacy report runs/NAME            what a run has spent
  fedalt privacy verify runs/NAME            is every ε what the entries make?
  fedalt privacy audit NAME --canaries 500   does an attack refute the ε?

A phase says whom it protects, and how, with a privacy spec in its YAML, or
  'phases.NAME.privacy={unit: client, clip: 1.0, noise: 1.0}'
and the run's terms stand under privacy: delta, relation, budget, policy."""

PLAN = """\
Walk a scenario's schedule as its ledger will: ε by unit, block, modality, task
and client; over rounds; and beside other ways to do as many rounds. Nothing is
trained."""

REPORT = """\
What a run has spent, by its ledger: ε by unit, block, modality, task and
client; what each mechanism did; and what it means."""

VERIFY = """\
Compute every ε again from the ledger's entries alone, and see that the ledger
holds what the run's newest commit vouches for. Exit code 9 names the first
line that was changed, left out, put in or moved."""

AUDIT = """\
Train a twin of a scenario with canaries in it, and hold lower bounds on ε from
who of them can be told apart against what the twin's ledger claims. Exit code
10 says that a bound exceeds the claim: less is protected than is promised. An
audit that refutes nothing proves nothing; what it could have shown stands
beside each bound."""


def add_to(commands: Any) -> None:
    """Add the command and its verbs to the parser."""
    command = commands.add_parser(
        "privacy",
        help="what a federation costs its people: plan, report, audit",
        description="Privacy budgets before, during and after a run.",
        epilog=EPILOG,
    )
    verbs = command.add_subparsers(
        dest="verb", metavar="VERB", title="verbs", required=True, parser_class=Parser
    )
    _add_plan(verbs)
    _add_report(verbs)
    _add_verify(verbs)
    _add_audit(verbs)


def _add_plan(verbs: Any) -> None:
    plan = verbs.add_parser("plan", help="ε from the schedule alone", description=PLAN)
    add_scenario(plan)
    add_variant(plan)
    add = plan.add_argument
    add("--target", type=float, metavar="EPS", help="the noise that this ε takes")
    add("--budget", type=float, metavar="EPS", help="how many rounds this ε lasts")
    add("--runs", type=int, metavar="N", help="what choosing the best of N runs costs")
    add("--plot", metavar="FILE", help="draw ε into a PNG, SVG or PDF")
    add("--csv", metavar="FILE", help="write ε over rounds, a row a round and unit")
    add("--json", action="store_true", help="print as JSON")
    plan.set_defaults(run=_plan, parser=plan)


def _add_report(verbs: Any) -> None:
    report = verbs.add_parser("report", help="what a run has spent", description=REPORT)
    _add_run(report)
    report.add_argument("--plot", metavar="FILE", help="draw ε into a PNG, SVG or PDF")
    report.set_defaults(run=_report, parser=report)


def _add_verify(verbs: Any) -> None:
    verify = verbs.add_parser("verify", help="recompute a run's ledger", description=VERIFY)
    _add_run(verify)
    verify.set_defaults(run=_verify, parser=verify)


def _add_audit(verbs: Any) -> None:
    audit = verbs.add_parser("audit", help="attack a twin of a run", description=AUDIT)
    add_scenario(audit)
    add_variant(audit)
    add = audit.add_argument
    add("--canaries", type=int, default=1000, metavar="N", help="how many (default: 1000)")
    add("--seed", type=int, default=0, metavar="N", help="of the canaries (default: 0)")
    add("--out", metavar="FOLDER", help="the twin's folder (default: beneath out=runs)")
    add("--json", action="store_true", help="print as JSON")
    audit.set_defaults(run=_audit, parser=audit)


def _add_run(verb: argparse.ArgumentParser) -> None:
    from fedalt.cli.runs import ROOT

    verb.add_argument("name", help="a run's folder, or its name beneath the root")
    verb.add_argument("--root", default=ROOT, help=f"where runs lie (default: {ROOT})")
    verb.add_argument("--json", action="store_true", help="print as JSON")


def _plan(arguments: argparse.Namespace) -> int:
    from fedalt.cli.privacy_plan import run

    return run(arguments)


def _report(arguments: argparse.Namespace) -> int:
    from fedalt.cli.privacy_report import run

    return run(arguments)


def _verify(arguments: argparse.Namespace) -> int:
    from fedalt.cli.privacy_verify import run

    return run(arguments)


def _audit(arguments: argparse.Namespace) -> int:
    from fedalt.cli.privacy_audit import run

    return run(arguments)
