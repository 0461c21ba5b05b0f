"""Where a claim's results lie: the whole claim's beside its runs, any other's in a folder apart.

What some arms, fewer seeds or other settings came to is no result of the claim as it is
published, and must not take its place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fedalt.claims.claim import Claim
from fedalt.claims.jobs import TOLD_ONLY
from fedalt.hashing import json_hash
from fedalt.overrides import Override

PARTS = "parts"
_JUDGED = ("claim", "name")
"""Told only, but they change what is judged, or what it is called."""
_LONGEST = 60


def results_folder(
    root: Path, claim: Claim, arms: Sequence[str], seeds: Sequence[int], overrides: Sequence[str]
) -> Path:
    """Return ``root`` for the whole claim, else ``root/parts/WORDS-HASH``.

    The whole claim is all arms under at least as many seeds as it asks for, without overrides
    that a number or a statement could depend on. ``WORDS`` say what was asked for, as far as
    there is room.
    """
    words = [f"arms={','.join(arms)}"] if len(arms) < len(claim.arms) else []
    words += [f"seeds={len(seeds)}"] if len(seeds) < claim.seeds else []
    words += counting(overrides)
    if not words:
        return root
    text = re.sub(r"[^\w.,=+-]+", "_", " ".join(words))[:_LONGEST]
    return root / PARTS / f"{text}-{json_hash(words)[:8]}"


def counting(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that may change a result; of equal keys the last one counts."""
    read = {override.key: override for override in map(Override.read, overrides)}
    told = set(TOLD_ONLY) - set(_JUDGED)
    counting = [each for key, each in read.items() if key.split(".")[0] not in told]
    return sorted(each.text for each in counting)
