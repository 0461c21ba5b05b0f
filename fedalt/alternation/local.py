"""Blocks that stay at the sites: trained there, kept there, never sent.

A phase says so by the rule ``local``. A block is local for a whole schedule or not at all: the
server has no array to send for one that each site keeps. With batch normalisation as the local
block this is FedBN: Li et al., "FedBN: Federated learning on non-IID features via local batch
normalization", ICLR 2021 (arXiv:2102.07623).
"""

from __future__ import annotations

from collections.abc import Iterable

from fedalt.alternation.block import ALL, BlockMap
from fedalt.alternation.phase import Phase, with_inner
from fedalt.errors import ScheduleError

LOCAL = "local"
"""The rule of a block that stays at each site."""
LOCAL_STATE = "local/"
"""What the names of a site's own arrays of the model begin with in its state."""


def shared_blocks(phase: Phase) -> tuple[str, ...]:
    """Return the blocks that a phase trains and returns, those of ``all`` included."""
    return tuple(b for b in phase.train or (ALL,) if phase.aggregate.get(b) != LOCAL)


def local_arrays(phases: Iterable[Phase], blocks: BlockMap) -> frozenset[str]:
    """Return the arrays that stay at the sites.

    Raises :class:`ScheduleError` for an array that is local in one place and shared in another.
    """
    told = list(with_inner(phases))
    local: dict[str, str] = {}
    for phase in told:
        kept = [block for block, rule in phase.aggregate.items() if rule == LOCAL]
        for array in blocks.select(kept, f"phase '{phase.name}'") if kept else ():
            local.setdefault(array, phase.name)
    # What inner phases train is their outer phase's to return or to keep.
    outer = {id(inner) for phase in told for inner in with_inner(phase.inner)}
    for phase in told:
        shared = () if id(phase) in outer else shared_blocks(phase)
        clash = [a for a in (blocks.select(shared) if shared else ()) if a in local]
        if clash:
            raise ScheduleError(
                f"phase '{phase.name}' trains '{clash[0]}' for the server, but for phase "
                f"'{local[clash[0]]}' its block is local: put it into a block of its own and give "
                f"that the rule '{LOCAL}' in each phase that trains it"
            )
    return frozenset(local)
