"""Alternation: which clients work on which block, for what, in which round.

A :class:`Phase` is one kind of work; a :class:`Schedule`, made of small combinators, is a
sequence of rounds of phases; a :class:`Planner` walks it and draws the cohorts. All of it is
plain data, deterministic from (seed, round, history), and known before a run::

    from fedalt.alternation import Phase, chain, repeat

    schedule = chain(Phase("warm-up"), repeat(chain(Phase("encoder"), Phase("head")), 5))

Pictures are in :mod:`fedalt.alternation.plot`, which alone needs matplotlib.
"""

from fedalt.alternation.adapt import Policy, adaptive, exponentiated, proportional
from fedalt.alternation.block import ALL, Block, BlockMap
from fedalt.alternation.condition import (
    Condition,
    Fits,
    above,
    all_of,
    any_of,
    below,
    fits,
    not_,
    plateau,
    rounds,
)
from fedalt.alternation.curve import Curve, cosine, exponential, linear, steps
from fedalt.alternation.draws import choose, power_law
from fedalt.alternation.dump import to_dict
from fedalt.alternation.environment import PRESETS, Environment
from fedalt.alternation.history import History
from fedalt.alternation.lazy_sites import LazySites
from fedalt.alternation.nesting import nest
from fedalt.alternation.parse import parse_schedule
from fedalt.alternation.phase import Phase, Scalar, View
from fedalt.alternation.planner import PlannedPhase, Planner, RoundSchedule, fingerprint
from fedalt.alternation.preview import Preview, preview_schedule
from fedalt.alternation.roster import Roster
from fedalt.alternation.schedule import Moment, Schedule
from fedalt.alternation.sequence import chain, cycle, repeat, until
from fedalt.alternation.site import Selector, Site
from fedalt.alternation.stream_view import StreamView
from fedalt.alternation.task_stream import stream
from fedalt.alternation.timeline import text_timeline
from fedalt.alternation.together import fork, parallel, when
from fedalt.alternation.vary import curriculum, ramp, sweep

__all__ = [
    "ALL",
    "PRESETS",
    "Block",
    "BlockMap",
    "Condition",
    "Curve",
    "Environment",
    "Fits",
    "History",
    "LazySites",
    "Moment",
    "Phase",
    "PlannedPhase",
    "Planner",
    "Policy",
    "Preview",
    "Roster",
    "RoundSchedule",
    "Scalar",
    "Schedule",
    "Selector",
    "Site",
    "StreamView",
    "View",
    "above",
    "adaptive",
    "all_of",
    "any_of",
    "below",
    "chain",
    "choose",
    "cosine",
    "curriculum",
    "cycle",
    "exponential",
    "exponentiated",
    "fingerprint",
    "fits",
    "fork",
    "linear",
    "nest",
    "not_",
    "parallel",
    "parse_schedule",
    "plateau",
    "power_law",
    "preview_schedule",
    "proportional",
    "ramp",
    "repeat",
    "rounds",
    "steps",
    "stream",
    "sweep",
    "text_timeline",
    "to_dict",
    "until",
    "when",
]
