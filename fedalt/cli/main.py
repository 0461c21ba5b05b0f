"""``fedalt``: finds the command, runs it, and turns errors into exit codes."""

from __future__ import annotations

import io
import os
import sys
from argparse import Namespace
from collections.abc import Sequence

from fedalt import __version__
from fedalt.cli import plan, privacy, reproduce, runs, scenarios, simulate
from fedalt.cli.parser import Parser
from fedalt.errors import ConfigError, FedaltError

DESCRIPTION = """\
Federations in which work alternates: across clients, modalities, tasks,
parameter blocks and objectives. A scenario names a task, a schedule and a
claim; every command that takes a scenario takes overrides of its settings as
key=value."""

EPILOG = """\
start here:
  fedalt scenarios                  what there is to run
  fedalt plan federated_pca         what a run would do, before it runs
  fedalt simulate federated_pca     run it on this machine
  fedalt simulate fedavg_mnist seed=1 task.clients=50
  fedalt reproduce fedavg_mnist     does what it claims hold? over seeds
  fedalt privacy --help             what a federation costs its people
  fedalt runs list                  what has been run
  fedalt runs resume runs/NAME      go on with a run that was stopped

FEDALT_DATA names the folder that holds data sets.

exit codes:
  0 done   1 error   2 configuration   3 data   4 wire   5 admission   6 quorum
  7 budget   8 checkpoint   9 ledger   10 audit   130 stopped by the user"""

STOPPED = 130


def parser() -> Parser:
    """Build the command line's parser."""
    top = Parser(prog="fedalt", description=DESCRIPTION, epilog=EPILOG)
    top.add_argument("--version", action="version", version=f"fedalt {__version__}")
    commands = top.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", parser_class=Parser
    )
    for module in (simulate, plan, reproduce, privacy, scenarios, runs):
        module.add_to(commands)
    return top


def parse(arguments: Sequence[str] | None = None) -> Namespace:
    """Parse the command line; overrides may stand on either side of options."""
    top = parser()
    chosen, rest = top.parse_known_args(arguments)
    if chosen.command is None:
        if rest:
            top.error(f"unrecognized arguments: {' '.join(rest)}")
        top.print_help()
        sys.exit(ConfigError.exit_code)
    # argparse closes a list of positionals at the first option; what follows comes here.
    late = [word for word in rest if not word.startswith("-")]
    if len(late) < len(rest) or (late and not hasattr(chosen, "overrides")):
        unknown = [word for word in rest if word.startswith("-")] or rest
        chosen.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if late:
        chosen.overrides = [*chosen.overrides, *late]
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal of another encoding shows '?' for what it has not, not a traceback.
            stream.reconfigure(errors="replace")
    try:
        chosen = parse(arguments)
        code: int = chosen.run(chosen)
        sys.stdout.flush()
        return code
    except FedaltError as error:
        _complain(str(error))
        for note in getattr(error, "__notes__", ()):
            _complain(note)
        return error.exit_code
    except KeyboardInterrupt as stop:
        _complain("stopped" + (f"; {stop}" if str(stop) else ""))
        return STOPPED
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away; nothing is wrong. What is still in the
        # buffer must go somewhere, or the interpreter complains when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _complain(text: str) -> None:
    print(f"fedalt: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
