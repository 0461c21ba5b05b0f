"""What every runner reads from its command line."""

from __future__ import annotations

import argparse


def read_options(description: str, works: list[str]) -> argparse.ArgumentParser:
    """Return a parser of ``WORK [--rounds N]``; a runner may add its own options."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("work", choices=works)
    parser.add_argument("--rounds", type=int, help="by default the work's own number")
    return parser
