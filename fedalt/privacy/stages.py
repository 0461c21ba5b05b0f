"""The stages of a client's work, and the spec that holds for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from fedalt.alternation.phase import Phase
from fedalt.alternation.privacy_spec import PrivacySpec

GRADIENT = "gradient"
"""The kernel that draws rows step by step; of any other a round is one release."""


def leaves(phase: Phase, spec: PrivacySpec | None = None) -> Iterator[Phase]:
    """Yield the stages of a client's work, each with the spec that holds for it.

    An inner phase without a spec has that of the phase around it.
    """
    own = phase.privacy or spec
    if not phase.inner:
        yield replace(phase, privacy=own)
    for inner in phase.inner:
        yield from leaves(inner, own)


def is_private(phase: Phase) -> bool:
    """Say whether a phase or a phase within it names a privacy spec."""
    return any(leaf.privacy is not None for leaf in leaves(phase))


def any_private(phases: Iterable[Phase]) -> bool:
    """Say whether some phase protects someone."""
    return any(is_private(phase) for phase in phases)
