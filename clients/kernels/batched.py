"""Many clients at once: one program over stacked parameters, whatever the clients' sizes.

K clients take their steps in lockstep. One whose batch is short has rows that weigh nothing;
one that has no more batches waits as it is. So each does exactly the steps it would do alone,
and sorting by size keeps the waiting short.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fedalt.alternation.local import LOCAL_STATE
from fedalt.clients.kernels import optim
from fedalt.clients.kernels.base import Order, Work
from fedalt.clients.kernels.client import Client
from fedalt.clients.kernels.dpsgd import Mechanism, account_of, begin_mechanism, tells_metrics
from fedalt.clients.kernels.held import as_received, hyper_tensors, initial_loss, load, pure_step
from fedalt.clients.kernels.model import ReusedModel
from fedalt.clients.kernels.pooled import Layout, lay_out, pools_of
from fedalt.clients.kernels.program import Program, trace_batched
from fedalt.clients.kernels.pure import PureStep, Tensors, ones_of, weights_of
from fedalt.clients.kernels.records import Records
from fedalt.clients.kernels.stacked_noise import StackedNoise
from fedalt.clients.kernels.stages import Stage, epochs
from fedalt.errors import FedaltError


@dataclass(frozen=True)
class _Desk:
    """A program with the memory that a step's batches are laid out in: tensors (K, B, ...)."""

    program: Program
    parts: Tensors

    @property
    def rows(self) -> int:
        """How many rows a batch holds, those that fill up included."""
        return self.parts[0].shape[1]


@dataclass(frozen=True)
class _Example:
    """A step with tensors such as it is called with; ``rows`` of ``data`` make a batch.

    ``after`` are what follows the rows' weights in a private step's batch.
    """

    step: PureStep
    carry: Tensors
    fixed: Tensors
    per_client: tuple[bool, ...]
    data: Tensors
    rows: int
    after: Tensors = ()

    def key(self) -> tuple[object, ...]:
        """Return what a program depends on."""
        shapes = tuple((tuple(part.shape[1:]), part.dtype) for part in self.data)
        return (self.step.key(), self.per_client, len(self.carry[0]), shapes, self.rows)

    def desk(self, compiled: bool) -> _Desk:
        """Trace the step, and reserve room for one step's batches."""
        clients, device = len(self.carry[0]), self.data[0].device
        parts = tuple(
            torch.zeros((clients, self.rows, *p.shape[1:]), dtype=p.dtype, device=device)
            for p in self.data
        )
        weights = torch.ones(clients, self.rows, device=device)
        program = trace_batched(
            self.step,
            self.carry,
            self.fixed,
            (*parts, weights, *self.after),
            self.per_client,
            compiled,
        )
        return _Desk(program, parts)


@dataclass
class Desks:
    """The programs made so far, one for every shape of batch met."""

    compiled: bool
    _made: dict[tuple[object, ...], _Desk] = field(default_factory=dict)

    def get(self, example: _Example) -> _Desk:
        """Return the desk for an example, made when first asked for."""
        key = example.key()
        if key not in self._made:
            self._made[key] = example.desk(self.compiled)
        return self._made[key]


def run_batched(
    model: ReusedModel, order: Order, clients: Sequence[Client], width: int, desks: Desks
) -> Iterator[tuple[Client, Work | Exception]]:
    """Train clients ``width`` at a time; yield each with its work or its error.

    A batch is always ``width`` wide: places that no client has are computed and thrown away,
    so that every batch runs the same program. Raises
    :class:`fedalt.clients.kernels.program.UntraceableError` where there is none.
    """
    alike: dict[tuple[object, ...], list[Client]] = {}
    for client in clients:
        alike.setdefault(tuple((p.shape[1:], p.dtype) for p in client.data), []).append(client)
    for group in alike.values():
        # Of equal length next to each other; a stable order, for equal results.
        ordered = sorted(group, key=lambda client: -len(client.rows))
        for start in range(0, len(ordered), width):
            some = ordered[start : start + width]
            yield from zip(some, _Batch(model, order, some, width, desks).run(), strict=True)


def rows_for(largest: int, batch_size: int) -> int:
    """Return how many rows a batch is laid out for: few different numbers, few programs.

    It follows from the clients at hand alone, so that a resumed run computes the same.
    """
    step = max(1, largest // 8)
    return min(batch_size, -(-largest // step) * step)


class _Batch:
    """One batch of clients on their way through their stages."""

    def __init__(
        self,
        model: ReusedModel,
        order: Order,
        clients: Sequence[Client],
        width: int,
        desks: Desks,
    ) -> None:
        self._model, self._order, self._clients = model, order, clients
        self._width, self._desks = width, desks
        held = load(model, order, clients)
        returned = {model.first[name] for name in order.trained}
        self._stacked = {n for n in returned if not model.is_buffer(n)} | held.apart
        own = [held.own[i] if i < len(clients) else {} for i in range(width)]
        self._arrays = {
            name: torch.stack([arrays.get(name, value) for arrays in own])
            if name in self._stacked
            else value
            for name, value in held.shared.items()
        }
        self._received = dict(self._arrays)
        self._records = Records(clients)
        self._applied: list[list[Mechanism]] = [[] for _ in clients]
        self._pending: list[dict[str, np.ndarray]] = [{} for _ in clients]
        self._pools = pools_of(clients)
        self._open = tells_metrics(clients[0].stages)
        self._initial = [
            initial_loss(model, order, client) if self._open else {} for client in clients
        ]

    def run(self) -> list[Work | Exception]:
        """Run all stages; return each client's work or its error."""
        for position in range(len(self._clients[0].stages)):
            self._run_stage([client.stages[position] for client in self._clients])
        if self._open and self._records.unmeasured():
            raise FedaltError("a client drew no row, and has to be measured apart")
        arrays, kept = self._results(self._order.returns), self._results(self._order.keeps)
        found: list[Work | Exception] = []
        for place, client in enumerate(self._clients):
            error = self._records.errors[place]
            if error is not None:
                found.append(error)
                continue
            own = {f"{LOCAL_STATE}{name}": np.array(s[place]) for name, s in kept.items()}
            done = self._applied[place]
            client.keep(self._pending[place] | own | account_of(client.site, done))
            measured = {**self._records.means(place), **self._initial[place]} if self._open else {}
            found.append(
                Work(
                    {name: stack[place] for name, stack in arrays.items()},
                    len(client.rows),
                    measured,
                    int(self._records.steps[place]),
                    tuple(mechanism.applied for mechanism in done),
                )
            )
        return found

    def _run_stage(self, stages: Sequence[Stage]) -> None:
        step = pure_step(self._model, stages[0], weighted=True)
        carry = (*(self._arrays[n] for n in step.trained), *self._slots(step, stages))
        like = self._arrays[step.trained[0]]
        received = [self._received[n] for n in step.trained] if step.proximal else []
        fixed = (*hyper_tensors(step, like), *(self._arrays[n] for n in step.frozen), *received)
        per_client = [
            *[False] * len(step.hypers),
            *(n in self._stacked for n in step.frozen),
            *[True] * len(received),
        ]
        noise = self._noise(step, stages)
        layout = noise.layout if noise is not None else self._layout(stages)
        example = _Example(
            step,
            carry,
            fixed,
            tuple(per_client),
            self._clients[0].data,
            layout.rows.shape[2],
            () if noise is None else noise.zeros(),
        )
        desk = self._desks.get(example)
        carry, table = self._steps(desk, carry, fixed, layout, noise)
        self._arrays.update(zip(step.trained, carry, strict=False))
        real = len(self._clients)
        measured = table[:, :real], layout.counts[:, :real]
        if noise is None:
            self._records.add(desk.program.metrics, *measured)
        else:
            self._records.add_private(desk.program.metrics, *measured, noise.steps)
        self._records.check(carry[: len(step.trained)])
        self._keep(step, stages, carry)

    def _layout(self, stages: Sequence[Stage]) -> Layout:
        drawn = [list(epochs(stage)) for stage in stages]
        size = stages[0].phase.batch_size
        rows = rows_for(min(size, max(len(e) for client in drawn for e in client)), size)
        return lay_out(drawn, self._width, size, rows)

    def _noise(self, step: PureStep, stages: Sequence[Stage]) -> StackedNoise | None:
        """Begin each client's mechanism, where the stage is private."""
        begun = [begin_mechanism(s, c.site) for s, c in zip(stages, self._clients, strict=True)]
        mechanisms = [mechanism for mechanism in begun if mechanism is not None]
        if not mechanisms:
            return None
        for done, mechanism in zip(self._applied, mechanisms, strict=True):
            done.append(mechanism)
        params = [self._arrays[name] for name in step.trained]
        return StackedNoise(mechanisms, self._width, params)

    def _steps(
        self,
        desk: _Desk,
        carry: Tensors,
        fixed: Tensors,
        layout: Layout,
        noise: StackedNoise | None,
    ) -> tuple[Tensors, np.ndarray]:
        """Take all steps; return the carry, and what was measured (S, K, M)."""
        device, first = desk.parts[0].device, len(carry)
        of = weights_of if noise is None else ones_of
        weights = of(layout.counts, desk.rows).to(device)
        # Rows numbered as each part has them: the same array where all parts begin alike.
        found = {p.starts.tobytes(): layout.of(p.starts) for p in self._pools}
        chosen = {key: torch.from_numpy(rows).to(device) for key, rows in found.items()}
        sources = [(pool.rows, chosen[pool.starts.tobytes()]) for pool in self._pools]
        measured: list[torch.Tensor] = []
        with torch.no_grad():
            for number in range(len(weights)):
                # Just before they are needed: what a step reads is still in the cache.
                for part, (rows, chosen_rows) in zip(desk.parts, sources, strict=True):
                    into = part.view(-1, *part.shape[2:])
                    torch.index_select(rows, 0, chosen_rows[:, number].reshape(-1), out=into)
                after = () if noise is None else noise.of_step(number)
                out = desk.program.call(*carry, *fixed, *desk.parts, weights[number], *after)
                carry = tuple(out[:first])
                measured.append(out[first])
        return carry, torch.stack(measured).cpu().numpy()

    def _slots(self, step: PureStep, stages: Sequence[Stage]) -> list[torch.Tensor]:
        """Return the optimiser's slots before the stage, stacked, in the carry's order."""
        rule, device = step.settings.optimizer, self._model.device
        params = [self._arrays[name] for name in step.trained]
        if not step.settings.persist:
            fresh = optim.start(rule, [param[0] for param in params])
            slots = [t for slot in step.slots for t in fresh[slot]]
            # Adam's steps are counted on the CPU, where the reference needs them.
            return [torch.stack([t.to(device)] * self._width) for t in slots]
        states = []
        for place in range(self._width):
            known = place < len(self._clients)
            kept = {**self._clients[place].site.state, **self._pending[place]} if known else {}
            own = [param[place] for param in params]
            states.append(optim.restore(rule, step.trained, own, kept, stages[0].scope))
        return [
            torch.stack([state[slot][i] for state in states]).to(device)
            for slot in step.slots
            for i in range(len(params))
        ]

    def _keep(self, step: PureStep, stages: Sequence[Stage], carry: Tensors) -> None:
        if not step.settings.persist:
            return
        stacks = step.slots_in(carry)
        for place, pending in enumerate(self._pending):
            state = {slot: [t[place] for t in tensors] for slot, tensors in stacks.items()}
            optim.keep(step.trained, state, pending, stages[0].scope)

    def _results(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return arrays as they are now, stacked: (K, ...) for each."""
        arrays = {}
        for name in names:
            value = self._arrays[self._model.first[name]]
            if self._model.first[name] not in self._stacked:
                value = torch.stack([value] * self._width)
            arrays[name] = as_received(self._order, name, value.cpu().numpy())
        return arrays
