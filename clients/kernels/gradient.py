"""Local training by gradients: one kernel for every task with a model and a loss.

A client k receives w⁰, runs E epochs (or so many steps) of minibatches B over its rows and
returns the trained blocks; McMahan et al. 2017 ("Communication-efficient learning of deep
networks from decentralized data"), with the proximal term of Li et al. 2020 ("Federated
optimization in heterogeneous networks"):

    h(w; B) = 1/|B| · Σ_{x∈B} ℓ(w; x) + μ/2 · ‖w − w⁰‖²,      w ← update(w, clip(∇h(w; B)))

In a stream of tasks, methods against forgetting may add to h or change its gradient
(``methods/``). A phase with record- or user-level privacy trains by DP-SGD (``dpsgd.py``).
Only the order's ``returns`` are trained. Buffers outside of them, such as running statistics,
end as they began; a module that holds them still normalises by its batch. A cohort may be
computed in several modes (``fedalt.modes``), which take the same steps on the same batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fedalt.alternation.phase import Phase
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.kernels.batched import Desks, run_batched
from fedalt.clients.kernels.choice import Choice, probe, settle
from fedalt.clients.kernels.client import MISHAPS, Client, check_order, prepare
from fedalt.clients.kernels.compiled import Programs, run_compiled
from fedalt.clients.kernels.dpsgd import seeded
from fedalt.clients.kernels.exact import each_exact, exact
from fedalt.clients.kernels.model import ModelCache, ReusedModel
from fedalt.clients.kernels.program import UntraceableError
from fedalt.clients.kernels.row_ways import WayChoice, WayTable
from fedalt.clients.kernels.sequential import run_sequential
from fedalt.clients.kernels.settings import LocalSettings, check_methods
from fedalt.clients.kernels.stages import Plan, spec_of
from fedalt.errors import FedaltError
from fedalt.modes import AUTO, SEQUENTIAL, Mode
from fedalt.privacy.stages import is_private, leaves
from fedalt.task import Task

_WAYS = "|ways"
"""Where facts hold the ways of private stages: no phase has a name like it."""

Done = Iterable[tuple[Client, Work | Exception]]


@dataclass
class _Made:
    """What a kernel keeps from cohort to cohort: models, programs, choices by phase."""

    models: ModelCache = field(default_factory=ModelCache)
    programs: Programs = field(default_factory=Programs)
    traced: Desks = field(default_factory=lambda: Desks(compiled=False))
    compiled: Desks = field(default_factory=lambda: Desks(compiled=True))
    choices: dict[str, Choice] = field(default_factory=dict)
    ways: WayTable = field(default_factory=WayTable)
    settled: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class GradientKernel:
    """Train the order's ``returns`` on a site's data by minibatch gradients."""

    _made: _Made = field(default_factory=_Made, repr=False, compare=False)

    def check(self, phase: Phase) -> None:
        """Raise :class:`ConfigError` for params that no run of the phase could use."""
        settings = LocalSettings.read(phase, Order("", 1, phase, {}, ()))
        if spec_of(phase) is not None:
            check_methods(settings, f"phase '{phase.name}'")

    def check_task(self, phase: Phase, task: Task) -> None:
        """Raise :class:`ConfigError` for a task and model that a private phase cannot protect.

        The model is built, no row is read. A phase that protects no rows is not judged.
        """
        if any(spec_of(leaf) is not None for leaf in leaves(phase)):
            from fedalt.clients.kernels.private_rules import check_phase

            check_phase(self._made.models(task, "cpu"), phase, task)

    def __call__(self, order: Order, site: SiteContext) -> Work:
        """Return the trained arrays, row count, ``loss`` and the task's metrics, and steps.

        This is the reference, whatever the order's mode. ``loss`` is the mean over the rows as
        they were trained on. With ``report_initial_loss``, ``train_loss`` is the received
        model's loss on those rows. ``site.state`` changes only at the end. Raises
        :class:`ConfigError` for params, arrays or blocks that do not fit, :class:`DataError`
        for a site without rows and :class:`FedaltError` when the loss or a parameter is no
        longer finite.
        """
        model = self._model(order, site, SEQUENTIAL)
        plans = check_order(model, order, site)
        with exact(order):
            client = prepare(model, order, site, plans)
            return run_sequential(model, order, client, self._made.ways)

    def cohort(self, order: Order, sites: Sequence[SiteContext]) -> Iterator[Work | Exception]:
        """Yield the work, or the error, of each of many clients of one order.

        Raises :class:`ConfigError` where the order's mode cannot compute the phase.
        """
        yield from each_exact(order, self._run(self.choose(order, sites), order, sites))

    def choose(self, order: Order, sites: Sequence[SiteContext]) -> Mode:
        """Return the mode for a phase's cohorts, settled when its first is met."""
        choices, name = self._made.choices, order.phase.name
        self._settle_ways(order, sites)
        if name not in choices:
            told = SEQUENTIAL if order.mode == AUTO else Mode.read(order.mode)
            if told == SEQUENTIAL and order.mode != AUTO:
                return SEQUENTIAL
            try:
                client = self._first(order, sites)
            except Exception:
                # Its reply will say what is wrong with it; the phase may do better next time.
                return SEQUENTIAL
            with exact(order):
                if order.mode == AUTO:
                    choices[name] = probe(order, sites, client, self._tried)
                else:
                    choices[name] = settle(told, order, sites, client, self._tried)
        return choices[name].mode

    def export_facts(self) -> dict[str, Any]:
        """Return the choices made, by phase, as plain data; those of ways have a name of theirs."""
        facts = {name: choice.to_dict() for name, choice in sorted(self._made.choices.items())}
        ways = {n: choice.to_dict() for n, choice in sorted(self._made.ways.choices.items())}
        return {**facts, _WAYS: ways} if ways else facts

    def import_facts(self, facts: Mapping[str, Any]) -> None:
        """Take over the choices of a run that is resumed."""
        modes = {n: Choice.from_dict(data) for n, data in facts.items() if n != _WAYS}
        self._made.choices.update(modes)
        ways = {n: WayChoice.from_dict(data) for n, data in facts.get(_WAYS, {}).items()}
        self._made.ways.choices.update(ways)

    def _settle_ways(self, order: Order, sites: Sequence[SiteContext]) -> None:
        """Choose how private stages have rows' gradients, before any worker is forked."""
        if order.phase.name in self._made.settled or not is_private(order.phase):
            return
        known = self._made.ways.choices
        for site in sites:
            try:
                model = self._model(order, site, SEQUENTIAL)
                client = prepare(model, order, site, check_order(model, order, site))
                with exact(order):
                    model.load(order, site)
                    for stage in client.stages:
                        if spec_of(stage.phase) is not None and stage.scope not in known:
                            self._made.ways.of(model, client, stage)
                self._made.settled.add(order.phase.name)
                return
            except Exception:
                # Its own reply will say what is wrong with it; another site may do better.
                continue

    def _run(
        self, mode: Mode, order: Order, sites: Sequence[SiteContext]
    ) -> Iterator[Work | Exception]:
        model = self._model(order, sites[0], mode)
        try:
            plans = check_order(model, order, sites[0])
        except FedaltError as error:
            yield from (error for _ in sites)
            return
        if not mode.batched and not mode.compiled:
            yield from (self._attempt(model, order, site, plans) for site in sites)
            return
        found: dict[int, Work | Exception] = {}
        clients = []
        for site in sites:
            try:
                clients.append(prepare(model, order, site, plans))
            except Exception as error:
                found[id(site)] = error
        if clients:
            found.update((id(c.site), done) for c, done in self._together(mode, order, clients))
        for site in sites:
            yield found.pop(id(site))

    def _together(self, mode: Mode, order: Order, clients: Sequence[Client]) -> Done:
        """Run clients in a fast mode; in the reference's, one by one, if that goes wrong."""
        done: set[int] = set()
        try:
            for client, work in self._fast(mode, order, clients):
                done.add(id(client))
                yield client, work
        except MISHAPS:
            # One client's data may break a whole batch: alone, each gets its own error.
            model = self._model(order, clients[0].site, SEQUENTIAL)
            plans = check_order(model, order, clients[0].site)
            for client in clients:
                if id(client) not in done:
                    yield client, self._attempt(model, order, client.site, plans)

    def _fast(self, mode: Mode, order: Order, clients: Sequence[Client]) -> Done:
        model = self._model(order, clients[0].site, mode)
        for stage in clients[0].stages:
            if stage.settings.methods is not None:
                names = ", ".join(stage.settings.methods.names)
                raise UntraceableError(f"params ask for {names}, which one client at a time does")
            spec = spec_of(stage.phase)
            if spec is not None and not mode.batched:
                raise UntraceableError("a private stage's samples are not compiled one by one")
            if spec is not None and spec.per_sample not in ("auto", "functorch"):
                raise UntraceableError(
                    f"privacy.per_sample is {spec.per_sample}, which one client at a time does"
                )
        if mode.batched:
            desks = self._made.compiled if mode.compiled else self._made.traced
            return run_batched(model, order, clients, mode.clients, desks)
        return run_compiled(model, order, clients, self._made.programs)

    def _tried(
        self, mode: Mode, order: Order, sites: Sequence[SiteContext]
    ) -> list[Work | Exception]:
        """Run clients for the sake of comparison: what goes wrong is told, not mended.

        Noise is such as can be drawn again, or no two results would be alike; they are thrown
        away.
        """
        order = replace(order, phase=seeded(order.phase))
        model = self._model(order, sites[0], mode)
        plans = check_order(model, order, sites[0])
        if not mode.batched and not mode.compiled:
            return [self._attempt(model, order, site, plans) for site in sites]
        clients = [prepare(model, order, site, plans) for site in sites]
        found = {id(client.site): done for client, done in self._fast(mode, order, clients)}
        return [found[id(site)] for site in sites]

    def _first(self, order: Order, sites: Sequence[SiteContext]) -> Client:
        model = self._model(order, sites[0], SEQUENTIAL)
        return prepare(model, order, sites[0], check_order(model, order, sites[0]))

    def _model(self, order: Order, site: SiteContext, mode: Mode) -> ReusedModel:
        return self._made.models(site.task, order.device, order.precision, mode.channels_last)

    def _attempt(
        self, model: ReusedModel, order: Order, site: SiteContext, plans: Sequence[Plan]
    ) -> Work | Exception:
        try:
            client = prepare(model, order, site, plans)
            return run_sequential(model, order, client, self._made.ways)
        except Exception as error:
            return error
