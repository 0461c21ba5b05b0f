"""Changes to a phase: set one of its fields, or let an outer phase narrow an inner one."""

from __future__ import annotations

from dataclasses import replace

from fedalt.alternation.phase import Phase, Scalar, View
from fedalt.alternation.site import Selector
from fedalt.errors import ScheduleError, nearest

TEXTS = ("modality", "task")
COUNTS = ("epochs", "steps", "batch_size")
PROTECTION = ("privacy.noise", "privacy.clip")
FIELDS = (*TEXTS, *COUNTS, "tag", "view.fraction", *PROTECTION)


def check_field(field: str, where: str) -> str:
    """Return the field if :func:`assign` can set it, else raise :class:`ScheduleError`."""
    head, dot, name = field.partition(".")
    if field in FIELDS or (dot and name and head in ("params", "clients")):
        return field
    known = (*FIELDS, "params.NAME", "clients.NAME")
    raise ScheduleError(f"{where}: a phase has no field '{field}'{nearest(field, known)}")


def field_of(name: str, where: str) -> str:
    """Return the field that a short name means: a bare unknown one is a hyper-parameter."""
    bare = name not in FIELDS and "." not in name
    return check_field(f"params.{name}" if bare and name else name, where)


def assign(phase: Phase, field: str, value: Scalar) -> Phase:
    """Return a copy of the phase with one field set.

    ``tag`` and ``clients.NAME`` narrow the clients to sites with that attribute's value.
    """
    head, _, name = field.partition(".")
    if head == "params":
        return phase.with_params(**{name: value})
    if head in ("clients", "tag"):
        where = {name or "tag": (str(value),)}
        return replace(phase, clients=phase.clients.narrowed(where))
    if field == "modality":
        return replace(phase, modality=str(value))
    if field == "task":
        return replace(phase, task=str(value))
    if field == "view.fraction":
        return replace(phase, view=replace(phase.view, fraction=float(value)))
    if field in PROTECTION:
        if phase.privacy is None:
            raise ScheduleError(f"phase '{phase.name}' has no privacy whose {name} could be set")
        noise = float(value) if name == "noise" else phase.privacy.noise
        clip = float(value) if name == "clip" else phase.privacy.clip
        return replace(phase, privacy=replace(phase.privacy, noise=noise, clip=clip))
    count = round(float(value))
    if field == "epochs":
        return replace(phase, epochs=count)
    if field == "steps":
        return replace(phase, steps=count)
    return replace(phase, batch_size=count)


def narrow(inner: Phase, outer: Phase) -> Phase:
    """Return the inner phase with what it leaves at its default taken from the outer one.

    That is clients, modality, task, view, privacy, and hyper-parameters one by one. The branch
    of the outer phase always holds: results that it keeps apart stay apart.
    """
    branches = [name for name in (outer.branch, inner.branch) if name]
    return replace(
        inner,
        clients=outer.clients if inner.clients == Selector() else inner.clients,
        modality=inner.modality or outer.modality,
        task=inner.task or outer.task,
        view=outer.view if inner.view == View() else inner.view,
        params={**outer.params, **inner.params},
        privacy=inner.privacy or outer.privacy,
        branch="/".join(branches),
    )
