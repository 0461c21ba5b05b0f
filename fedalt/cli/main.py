"""``fedalt``: finds the command, runs it, and turns errors into exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fedalt import __version__
from fedalt.cli import plan, runs, scenarios, simulate
from fedalt.errors import FedaltError

DESCRIPTION = """\
Federations in which work alternates: across clients, modalities, tasks, parameter blocks
and objectives. A scenario names a task, a schedule and a claim; every command takes
overrides of its settings as key=value."""

EPILOG = """\
start here:
  fedalt scenarios                          what there is to run
  fedalt plan federated_pca                 what a run would do, before it runs
  fedalt simulate federated_pca             run it on this machine
  fedalt simulate fedavg_mnist seed=1 task.clients=50
  fedalt runs list                          what has been run
  fedalt runs resume runs/NAME              go on with a run that was stopped

exit codes:
  0 done   1 error   2 configuration   3 data   4 wire   5 admission   6 quorum
  7 budget   8 checkpoint   130 stopped by the user"""


def parser() -> argparse.ArgumentParser:
    """Build the command line's parser."""
    top = argparse.ArgumentParser(
        prog="fedalt",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"fedalt {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (simulate, plan, scenarios, runs):
        module.add_to(commands)
    return top


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; overrides may stand on either side of options."""
    top = parser()
    chosen, rest = top.parse_known_args(arguments)
    # argparse closes a list of positionals at the first option; what follows comes here.
    late = [word for word in rest if not word.startswith("-")]
    if len(late) < len(rest) or (late and not hasattr(chosen, "overrides")):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if late:
        chosen.overrides = [*chosen.overrides, *late]
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    chosen = parse(arguments)
    try:
        code: int = chosen.run(chosen)
        return code
    except FedaltError as error:
        print(f"fedalt: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fedalt: stopped; go on with: fedalt runs resume", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away; nothing is wrong.
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
