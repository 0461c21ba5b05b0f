"""A view of a stream of tasks: which task is new to a client, and what it meets again.

Plain data in a phase. An experience is one stretch of a stream; in it a client learns one new
task and meets rows of earlier ones by its environment. Clients may go through the tasks in
one order or in different ones, and live in different environments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fedalt.alternation.environment import Environment, read_environment
from fedalt.alternation.recurrence import Hazard, hazard_steps
from fedalt.errors import ScheduleError, nearest
from fedalt.seeds import Seeds

ORDERS = ("sync", "shift", "shuffle")
BUDGETS = ("steps", "epochs")
_STRETCH = 256
"""Drawn streams are drawn so many experiences at a time: few lengths, few draws."""


@dataclass(frozen=True)
class StreamView:
    """Where in which stream a phase stands.

    ``tasks`` are the tasks' numbers in their base order; ``experience`` counts from ``first``,
    which is 0 unless another stream went before; ``new`` is N₀, the rows of the new task (0: all
    a client has); ``rehearsal`` is r, the budget of past rows as a share of N₀. Site k lives in
    the environment k mod their number. ``order`` is ``sync`` (all clients at the same task),
    ``shift`` (client k begins k tasks further on) or ``shuffle`` (each has a permutation of its
    own). ``budget`` says what is equal for all environments: ``steps`` (an epoch has as many as
    N₀ rows make) or ``epochs`` (of all rows).
    """

    tasks: tuple[int, ...]
    experience: int = 0
    new: int = 0
    rehearsal: float = 0.0
    environments: tuple[Environment, ...] = (Environment(),)
    order: str = "sync"
    budget: str = "steps"
    first: int = 0

    def __post_init__(self) -> None:
        if not self.tasks or min(self.tasks) < 0 or len(set(self.tasks)) < len(self.tasks):
            raise ScheduleError(
                f"stream: tasks are {list(self.tasks)}, but must be at least one number from 0, "
                "each once"
            )
        for key in ("experience", "new", "first"):
            if getattr(self, key) < 0:
                raise ScheduleError(
                    f"stream: {key} is {getattr(self, key)}, but must not be negative"
                )
        if not 0.0 <= self.rehearsal <= 1.0:
            raise ScheduleError(f"stream: rehearsal is {self.rehearsal:g}, but must lie in [0, 1]")
        if not self.environments:
            raise ScheduleError("stream: it needs at least one environment")
        for key, known in (("order", ORDERS), ("budget", BUDGETS)):
            value = getattr(self, key)
            if value not in known:
                raise ScheduleError(f"stream: unknown {key} '{value}'{nearest(value, known)}")
        last = self.first + len(self.tasks) - 1
        if self.experience < self.first or (self.experience > last and not self.stochastic):
            raise ScheduleError(
                f"stream: experience {self.experience} is out of range: {len(self.tasks)} tasks "
                f"make experiences {self.first} to {last}"
            )

    @property
    def stochastic(self) -> bool:
        """Whether every client's experiences are drawn, so that there may be more than tasks."""
        return all(environment.stochastic for environment in self.environments)

    def environment(self, site: int) -> Environment:
        """Return the environment that a site lives in."""
        return self.environments[site % len(self.environments)]

    def new_task(self, site: int, root: int) -> int:
        """Return the number of the task that a site learns; ``root`` is the run's seed."""
        place, count = self.experience - self.first, len(self.tasks)
        environment, seeds = self.environment(site), Seeds(root).at("stream", "order")
        if environment.stochastic:
            law = Hazard(environment.exponent, environment.scale, environment.p_new)
            own = seeds.at(site if self.order == "shuffle" else "all")
            drawn = (place // _STRETCH + 1) * _STRETCH
            place = int(hazard_steps(law, count, drawn, own.at("hazard"))[place])
        if self.order == "shift":
            place = (place + site) % count
        elif self.order == "shuffle":
            place = int(seeds.at(site).numpy().permutation(count)[place])
        return self.tasks[place]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_dict` reads."""
        return {
            "tasks": list(self.tasks),
            "experience": self.experience,
            "new": self.new,
            "rehearsal": self.rehearsal,
            "environments": [environment.to_data() for environment in self.environments],
            "order": self.order,
            "budget": self.budget,
            "first": self.first,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StreamView:
        """Read plain data; raises :class:`ScheduleError` naming the key."""
        known = [item.name for item in fields(cls)]
        for key in data:
            if key not in known:
                raise ScheduleError(f"stream: unknown key '{key}'{nearest(key, known)}")
        values = {**data, "tasks": tuple(int(task) for task in data["tasks"])}
        if "environments" in data:
            values["environments"] = tuple(map(read_environment, data["environments"]))
        return cls(**values)
