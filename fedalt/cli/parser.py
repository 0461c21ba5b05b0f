"""The parser of every command: its help, and errors that name the nearest word."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any, NoReturn

from fedalt.config import variant_overrides
from fedalt.errors import ConfigError, nearest
from fedalt.scenario import Scenario


class Parser(argparse.ArgumentParser):
    """An argument parser whose text keeps its lines, and whose errors lead on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", _Formatter)
        # A prefix that works today would be ambiguous once another option begins alike.
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Say what was wrong, the nearest word, and where the help is; exit code 2."""
        wrong = re.search(r"invalid choice: '?([^']*)'? \(choose from (.*)\)$", message)
        if wrong is not None:
            known = [word.strip(" '") for word in wrong[2].split(",")]
            message = f"unknown command '{wrong[1]}'{nearest(wrong[1], known)}"
        unknown = re.match(r"unrecognized arguments: (-\S+)", message)
        if unknown is not None:
            message = f"unknown option {unknown[1]}{nearest(unknown[1], self.options())}"
        print(f"{self.prog}: {message}; see: {self.prog} --help", file=sys.stderr)
        sys.exit(ConfigError.exit_code)

    def options(self) -> list[str]:
        """Return the long options."""
        return [text for text in self._option_string_actions if text.startswith("--")]


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps lines as written, and gives names one column: argparse counts commands too short."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26)
        self._action_max_length = 14


def add_scenario(command: argparse.ArgumentParser) -> None:
    """Add the two arguments that name a scenario and change its settings."""
    command.add_argument("scenario", help="a name (see: fedalt scenarios) or a folder")
    command.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="settings to change"
    )


def add_variant(command: argparse.ArgumentParser) -> None:
    """Add the option that takes a scenario's variant in place of its own settings."""
    command.add_argument("--variant", metavar="NAME", help="one of the scenario's variants")


def chosen_overrides(scenario: Scenario, arguments: argparse.Namespace) -> list[str]:
    """Return a variant's overrides, then the user's own, which count more.

    Raises :class:`ConfigError` if the scenario has no such variant.
    """
    return [*overrides_of_variant(scenario, arguments), *arguments.overrides]


def overrides_of_variant(scenario: Scenario, arguments: argparse.Namespace) -> list[str]:
    """Return the overrides of the variant that ``--variant`` names; none where it names none."""
    if arguments.variant is None:
        return []
    return variant_overrides(scenario.config([]), arguments.variant)
