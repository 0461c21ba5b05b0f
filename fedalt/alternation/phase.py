"""Phase: one kind of work, as frozen plain data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.alternation.site import Selector
from fedalt.alternation.stream_view import StreamView
from fedalt.errors import ScheduleError, nearest

Scalar = bool | int | float | str

RESERVED = ("server", "clients", "evaluate")
"""What no phase may be called: the loop's own metrics and its evaluation have these names."""


@dataclass(frozen=True)
class View:
    """What of its data a client sees in a phase: a seeded fraction of the rows.

    ``slices`` name parts of a site's rows, such as those of one modality: the client sees no
    others, and several of them take turns, batch by batch. With a ``stream`` the rows are those
    of a stream's experience: some of a new task, and some of those met before.
    """

    fraction: float = 1.0
    stream: StreamView | None = None
    slices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction <= 1.0:
            raise ScheduleError(f"view.fraction is {self.fraction}, but must lie in (0, 1]")
        if len(set(self.slices)) < len(self.slices) or not all(self.slices):
            raise ScheduleError(
                f"view.slices is {list(self.slices)}, but must name slices, each once"
            )
        if self.slices and self.stream is not None:
            raise ScheduleError(
                "view: a stream's experience comes in tasks and cannot be cut by slices as well"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_dict` reads."""
        data: dict[str, Any] = {"fraction": self.fraction}
        if self.stream is not None:
            data["stream"] = self.stream.to_dict()
        if self.slices:
            data["slices"] = list(self.slices)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> View:
        """Read plain data; raises :class:`ScheduleError` for a stream that is none."""
        known = tuple(item.name for item in fields(cls))
        for key in data:
            if key not in known:
                raise ScheduleError(f"view: unknown key '{key}'{nearest(str(key), known)}")
        values = dict(data)
        slices = values.get("slices") or ()
        values["slices"] = (slices,) if isinstance(slices, str) else tuple(map(str, slices))
        if values.get("stream") is not None:
            values["stream"] = StreamView.from_dict(values["stream"])
        return cls(**values)


@dataclass(frozen=True)
class Phase:
    """One kind of work in a round.

    ``train`` names the blocks that clients train and return, ``send`` those they receive
    (empty: all). ``epochs`` and ``steps`` bound local work (``steps`` wins if positive).
    ``params`` are the kernel's hyper-parameters, ``aggregate`` the rule per trained block
    (default ``mean``; a block that is ``local`` stays at each site and never travels),
    ``modality`` and ``task`` say what the work is for. A phase with a
    ``branch`` keeps its result apart from the model, under that name in the bank. ``inner``
    phases are alternated by the client itself, in order, before it reports once. ``privacy``
    says who is protected, and how; None: nobody.
    """

    name: str
    kernel: str = "gradient"
    clients: Selector = field(default_factory=Selector)
    train: tuple[str, ...] = ()
    send: tuple[str, ...] = ()
    epochs: int = 1
    steps: int = 0
    batch_size: int = 32
    modality: str = ""
    task: str = ""
    params: Mapping[str, Scalar] = field(default_factory=dict)
    aggregate: Mapping[str, str] = field(default_factory=dict)
    view: View = field(default_factory=View)
    branch: str = ""
    inner: tuple[Phase, ...] = ()
    privacy: PrivacySpec | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ScheduleError("a phase needs a name")
        if "|" in self.name + self.modality + self.task + self.branch:
            raise ScheduleError(
                f"phase '{self.name}': name, modality, task and branch must not contain '|'"
            )
        for key in ("epochs", "steps", "batch_size"):
            count = getattr(self, key)
            if not isinstance(count, int) or isinstance(count, bool) or count >= 2**32:
                raise ScheduleError(
                    f"phase '{self.name}': {key} is {count!r}, but must be a whole number below 2³²"
                )
        if self.epochs < 0 or self.steps < 0 or self.batch_size < 1:
            raise ScheduleError(
                f"phase '{self.name}': epochs and steps must not be negative, batch_size at least 1"
            )
        for key, value in self.params.items():
            if not isinstance(value, bool | int | float | str):
                raise ScheduleError(
                    f"phase '{self.name}': params.{key} is a {type(value).__name__}; "
                    "use a number, a text or true/false"
                )
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ScheduleError(f"phase '{self.name}': params.{key} is {value}, beyond 64 bits")

    def with_params(self, /, **values: Scalar) -> Phase:
        """Return a copy with hyper-parameters replaced or added."""
        return replace(self, params={**self.params, **values})

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_dict` reads back to an equal phase."""
        data: dict[str, Any] = {"name": self.name}
        for item in fields(self)[1:]:
            value = getattr(self, item.name)
            if item.name == "clients":
                data["clients"] = value.to_dict()
            elif item.name == "view":
                data["view"] = value.to_dict()
            elif item.name == "privacy":
                data["privacy"] = None if value is None else value.to_dict()
            elif item.name == "inner":
                data["inner"] = [phase.to_dict() for phase in value]
            elif isinstance(value, tuple):
                data[item.name] = list(value)
            elif isinstance(value, Mapping):
                data[item.name] = dict(value)
            else:
                data[item.name] = value
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], name: str = "", where: str = "") -> Phase:
        """Read plain data, as a YAML file holds it.

        Raises :class:`ScheduleError` with the place and the nearest known key.
        """
        known = {item.name for item in fields(cls)}
        place = where or f"phase '{data.get('name', name)}'"
        for key in data:
            if key not in known:
                raise ScheduleError(f"{place}: unknown key '{key}'{nearest(str(key), known)}")
        values: dict[str, Any] = {"name": name, **data}
        try:
            if "clients" in values:
                values["clients"] = Selector.from_dict(values["clients"] or {})
            if "view" in values:
                values["view"] = View.from_dict(values["view"] or {})
            if values.get("privacy") is not None:
                values["privacy"] = PrivacySpec.from_dict(values["privacy"])
            if "inner" in values:
                values["inner"] = tuple(cls.from_dict(item) for item in values["inner"])
            for key in ("train", "send"):
                if key in values:
                    value = values[key]
                    values[key] = (value,) if isinstance(value, str) else tuple(value or ())
            for key in ("params", "aggregate"):
                if key in values:
                    values[key] = dict(values[key] or {})
            return cls(**values)
        except ScheduleError as error:
            raise ScheduleError(f"{place}: {error}") from error
        except (TypeError, ValueError) as error:
            raise ScheduleError(f"{place}: {error}") from error


def with_inner(phases: Iterable[Phase]) -> Iterator[Phase]:
    """Yield phases, each before the inner ones that its clients alternate between."""
    for phase in phases:
        yield phase
        yield from with_inner(phase.inner)
