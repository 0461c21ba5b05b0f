"""Values that change: ``ramp`` and ``curriculum`` with the round, ``sweep`` over a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedalt.alternation.curve import Curve, Steps, steps
from fedalt.alternation.edit import assign, check_field, field_of
from fedalt.alternation.phase import Phase, Scalar
from fedalt.alternation.schedule import Moment, Schedule, State, Step, as_schedule
from fedalt.errors import ScheduleError, nearest

ORDERS = ("given", "shuffled")


@dataclass(frozen=True)
class Ramp(Schedule):
    """The item, with fields of its phases set by curves of its own count of rounds."""

    item: Schedule
    settings: tuple[tuple[str, Curve | Steps], ...]

    def __post_init__(self) -> None:
        if not self.settings:
            raise ScheduleError("ramp needs at least one value to change")

    def init(self) -> State:
        """No round done."""
        return [0, self.item.init()]

    def next(self, state: State, moment: Moment) -> Step:
        """Advance the item and set this round's values."""
        number, inner = state
        phases, inner = self.item.next(inner, moment.child(0))
        if phases is None:
            return None, state
        return tuple(self._set(phase, number) for phase in phases), [number + 1, inner]

    def _set(self, phase: Phase, number: int) -> Phase:
        for field, curve in self.settings:
            value = curve.at(number)
            if value is not None:
                phase = assign(phase, field, value)
        return phase

    @property
    def children(self) -> tuple[Schedule, ...]:
        """The item."""
        return (self.item,)


@dataclass(frozen=True)
class Sweep(Schedule):
    """The item once for each value, with that value in one or more fields of its phases."""

    fields: tuple[str, ...]
    values: tuple[Scalar, ...]
    item: Schedule
    order: str = "given"

    def __post_init__(self) -> None:
        if not self.fields or not self.values:
            raise ScheduleError("sweep needs a field and at least one value")
        for field in self.fields:
            check_field(field, "sweep")
        if self.order not in ORDERS:
            raise ScheduleError(f"sweep: unknown order '{self.order}'{nearest(self.order, ORDERS)}")
        if self.item.endless and len(self.values) > 1:
            raise ScheduleError(
                "sweep: its schedule never ends, so the second value would never come; "
                "bound it with repeat(times) or until(max_rounds)"
            )

    def init(self) -> State:
        """Not begun: the order is drawn in the first round."""
        return {"order": [], "place": 0, "item": self.item.init()}

    def next(self, state: State, moment: Moment) -> Step:
        """Advance the item under the current value, or move on to the next."""
        order = state["order"] or self._order(moment)
        place, inner = state["place"], state["item"]
        while True:
            phases, inner = self.item.next(inner, moment.child(order[place]))
            if phases is not None:
                value = self.values[order[place]]
                after = {"order": order, "place": place, "item": inner}
                return tuple(self._set(phase, value) for phase in phases), after
            if place + 1 == len(order):
                return None, state
            place += 1
            inner = self.item.init()

    def _order(self, moment: Moment) -> list[int]:
        places = list(range(len(self.values)))
        return places if self.order == "given" else moment.rng().permutation(places).tolist()

    def _set(self, phase: Phase, value: Scalar) -> Phase:
        for field in self.fields:
            phase = assign(phase, field, value)
        return phase

    @property
    def children(self) -> tuple[Schedule, ...]:
        """The item."""
        return (self.item,)

    def phases(self) -> list[Phase]:
        """Return the item's phases under every value."""
        return [self._set(p, value) for value in self.values for p in self.item.phases()]


def ramp(
    x: Schedule | Phase, curves: Mapping[str, Curve | Steps] | None = None, **more: Curve | Steps
) -> Schedule:
    """Set values of ``x``'s phases by curves of the rounds it has done.

    A name is a hyper-parameter, or one of the phase's own: ``epochs``, ``steps``,
    ``batch_size``, ``modality``, ``task``, ``view.fraction``.
    """
    given = {**(curves or {}), **more}
    return Ramp(as_schedule(x), tuple((field_of(k, "ramp"), c) for k, c in given.items()))


def curriculum(
    x: Schedule | Phase,
    values: Mapping[str, Mapping[int, Scalar]] | None = None,
    **more: Mapping[int, Scalar],
) -> Schedule:
    """Set values of ``x``'s phases that hold from some of its rounds on, counted from 0."""
    given = {**(values or {}), **more}
    return ramp(x, {name: steps(table) for name, table in given.items()})


def sweep(
    field: str | Sequence[str],
    values: Sequence[Scalar],
    x: Schedule | Phase,
    order: str = "given",
) -> Schedule:
    """Do ``x`` once for each value, in the order given or shuffled by the seed.

    ``field`` is ``modality``, ``task``, ``tag`` or ``params.NAME`` (also ``clients.NAME`` for
    any attribute of sites, ``epochs`` …); several fields all take the value. ``tag`` and
    ``clients.NAME`` narrow the clients to the sites of that value; the others leave them be.
    """
    fields = (field,) if isinstance(field, str) else tuple(field)
    return Sweep(fields, tuple(values), as_schedule(x), order)
