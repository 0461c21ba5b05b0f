"""What DP-SGD cannot protect: refused before any row is read, with the reason.

All of these would let a row reach the reply beside its clipped and noised gradient, or would make
the public sampling rate q depend on the rows.
"""

from __future__ import annotations

import torch

from fedalt.alternation.phase import Phase
from fedalt.clients.kernels.base import Order, SiteContext
from fedalt.clients.kernels.model import Place, ReusedModel
from fedalt.clients.kernels.row_gradients import opacus_validators
from fedalt.clients.kernels.settings import check_methods
from fedalt.clients.kernels.stages import Plan, spec_of, unfold
from fedalt.errors import ConfigError
from fedalt.task import Task

_BATCH_NORM = torch.nn.modules.batchnorm._BatchNorm


def check_private(model: ReusedModel, order: Order, site: SiteContext, plan: Plan) -> None:
    """Raise :class:`ConfigError` for a private stage that no noise on gradients could protect."""
    if spec_of(plan.phase) is not None:
        _check_plan(model, order, site.task, plan, str(Place(order, site)))


def check_phase(model: ReusedModel, phase: Phase, task: Task) -> None:
    """Raise what :func:`check_private` would at any site, before there is an order.

    Raises :class:`ConfigError`, and :class:`ScheduleError` for blocks that the model has not.
    """
    where = f"phase '{phase.name}'"
    # What stays at the sites is trained there all the same.
    order = Order("", 1, phase, {}, model.blocks.select(phase.train, where))
    for plan in unfold(order, model.blocks):
        if spec_of(plan.phase) is not None:
            _check_plan(model, order, task, plan, where)


def _check_plan(model: ReusedModel, order: Order, task: Task, plan: Plan, place: str) -> None:
    spec = spec_of(plan.phase)
    assert spec is not None
    where = f"{place}, privacy of a {spec.unit}"
    check_methods(plan.settings, where)
    _check_rate(order, task, plan, where)
    if spec.unit == "user":
        _check_users(order, task, where)
    buffers = [name for name in plan.arrays if model.is_buffer(name)]
    if buffers:
        raise ConfigError(
            f"{where}: {', '.join(buffers)} are buffers, which the passing rows may change and no "
            "noise covers; leave them out of the trained blocks"
        )
    if not set(plan.arrays) & model.trainable:
        raise ConfigError(f"{where}: the task lets no array of the trained blocks learn")
    _check_layers(model.module, where)


def _check_rate(order: Order, task: Task, plan: Plan, where: str) -> None:
    if plan.slices:
        raise ConfigError(
            f"{where}: slices that take turns ({', '.join(plan.slices)}) are no Poisson sample; "
            "view one slice, or none"
        )
    view = order.phase.view
    unknown = {
        "a stream": view.stream is not None,
        "a slice": bool(view.slices) or plan.sliced,
        "rows drawn anew (site_draw)": hasattr(task, "site_draw"),
    }
    found = [what for what, holds in unknown.items() if holds]
    if found:
        raise ConfigError(
            f"{where}: of {found[0]} it is not public how many rows there are, and the divisor q·n "
            "of a step would tell it; let the phase see all of a site's rows, or protect clients"
        )


def _check_users(order: Order, task: Task, where: str) -> None:
    if not hasattr(task, "site_users"):
        raise ConfigError(
            f"{where}: {type(task).__name__} has no site_users(site), which names the user of "
            "each of a site's rows; add it, or protect records"
        )
    if order.phase.view.stream is not None or hasattr(task, "site_draw"):
        raise ConfigError(
            f"{where}: site_users names the users of site_data, not those of a stream's rows or of "
            "rows drawn anew; protect records"
        )


def _check_layers(module: torch.nn.Module, where: str) -> None:
    """Refuse layers that mix rows or keep statistics of them, trained or not."""
    validators = opacus_validators()
    for name, layer in module.named_modules():
        kind = type(layer).__name__
        if isinstance(layer, _BATCH_NORM):
            raise ConfigError(
                f"{where}: layer '{name}' is a {kind}, which makes each row's gradient depend on "
                "its batch; replace it by GroupNorm"
            )
        if isinstance(layer, torch.nn.modules.instancenorm._InstanceNorm):
            faults = validators[type(layer)](layer) if type(layer) in validators else []
            if faults:
                raise ConfigError(
                    f"{where}: layer '{name}' is a {kind} with running statistics, which no noise "
                    "covers; set track_running_stats to False, or take GroupNorm"
                )
