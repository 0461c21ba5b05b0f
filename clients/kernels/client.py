"""A client of the gradient kernel, ready to train: its data, its rows, its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedalt.clients.kernels.base import Order, SiteContext
from fedalt.clients.kernels.evaluate import Batch, checked, mean_loss
from fedalt.clients.kernels.model import Place, ReusedModel
from fedalt.clients.kernels.stages import Plan, Stage, spec_of, unfold
from fedalt.clients.kernels.streamed import Streamed, batch_of, read_stream
from fedalt.clients.kernels.views import seen
from fedalt.errors import ConfigError, DataError, FedaltError, nearest

MISHAPS = (FedaltError, RuntimeError, ValueError, TypeError, IndexError)
"""What a mode other than the reference may fail with, where the reference may not."""
ADVICE = "lower params.lr, set params.clip_norm, or look at the site's data"


@dataclass(frozen=True)
class Client:
    """One site's share of an order. ``rows`` are those its view shows, in order.

    In a stream of tasks, ``data`` are the rows of its experience, and ``streamed`` what it met.
    """

    site: SiteContext
    data: Batch
    rows: np.ndarray
    stages: tuple[Stage, ...]
    where: Place
    streamed: Streamed | None = None

    def keep(self, entries: Mapping[str, np.ndarray]) -> None:
        """Put what its work leaves behind into the site's state, when all of it is done."""
        self.site.state.update(entries)
        if self.streamed is not None:
            self.site.state.update(self.streamed.keeps)


def check_order(model: ReusedModel, order: Order, site: SiteContext) -> tuple[Plan, ...]:
    """Read what an order asks of every client; ``site`` only says where an error is met.

    Raises :class:`ConfigError` for arrays, params or blocks that do not fit.
    """
    where = Place(order, site)
    for name in order.trained:
        if name not in model.names:
            raise ConfigError(
                f"{where}: asked to train '{name}'{nearest(name, model.names)}, "
                "which the model has not"
            )
    model.check_ties(order.trained, where)
    plans = unfold(order, model.blocks)
    if any(spec_of(plan.phase) for plan in plans):
        from fedalt.clients.kernels.private_rules import check_private

        for plan in plans:
            check_private(model, order, site, plan)
    return plans


def prepare(model: ReusedModel, order: Order, site: SiteContext, plans: Sequence[Plan]) -> Client:
    """Read a site's data; raises :class:`DataError` for a site without rows."""
    where = Place(order, site)
    view, streamed = order.phase.view, None
    if view.stream is None:
        given = _data_of(site)
    else:
        streamed = read_stream(view.stream, site)
        given = batch_of(site, streamed.meeting.rows)
    data = checked(given, model.device, where)
    sliced = _slices_of(site) if view.slices or any(p.sliced for p in plans) else {}
    # An epoch of as many steps in every environment, where the stream asks for that.
    by_steps = view.stream is not None and view.stream.budget == "steps"
    share = streamed.meeting.new / len(data[0]) if streamed is not None and by_steps else None
    try:
        rows = seen(np.arange(len(data[0])), view, site.seeds, sliced)
        stages = tuple(plan.of(rows, site.seeds, share, sliced) for plan in plans)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    return Client(site, data, rows, stages, where, streamed)


def _slices_of(site: SiteContext) -> Mapping[str, np.ndarray]:
    """Return a site's slices: name to row numbers; none where its task has none."""
    slices = getattr(site.task, "site_slices", None)
    return {} if slices is None else slices(site.site)


def _data_of(site: SiteContext) -> object:
    """Return a site's rows: those it has, or where the task draws them anew, this order's."""
    draw = getattr(site.task, "site_draw", None)
    if draw is None:
        return site.task.site_data(site.site)
    return draw(site.site, site.seeds.at("draw").numpy())


def received_loss(model: ReusedModel, client: Client) -> dict[str, float]:
    """Return ``train_loss``, that of the model as loaded, where the client's phase asks for it."""
    if not client.stages[0].settings.report_initial_loss:
        return {}
    return {"train_loss": mean_loss(model, client.data, client.rows, client.site.seeds)[0]}


def no_rows_for_batch_norm(error: ValueError, where: Place, step: int, rows: int) -> Exception:
    """Explain batch normalisation's refusal of a single row; any other error stays as it is."""
    if "more than 1 value per channel" not in str(error):
        return error
    return DataError(
        f"{where}, step {step}: batch normalisation cannot learn from a batch of {rows} row; "
        "choose a batch_size that leaves no single row over, or give the site more rows"
    )
