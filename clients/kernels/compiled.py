"""One client after the other through a compiled step, for any number of rows a batch.

What all clients of an order share (steps, hyper-parameters, the arrays received) is made ready
once; what is left for each is to gather its rows and to call the program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fedalt.alternation.local import LOCAL_STATE
from fedalt.clients.kernels import optim
from fedalt.clients.kernels.base import Order, Work
from fedalt.clients.kernels.client import Client, no_rows_for_batch_norm
from fedalt.clients.kernels.held import (
    Held,
    as_received,
    hyper_tensors,
    initial_loss,
    load,
    pure_step,
)
from fedalt.clients.kernels.model import ReusedModel
from fedalt.clients.kernels.program import Program, trace_single
from fedalt.clients.kernels.pure import PureStep, Tensors
from fedalt.clients.kernels.records import Records
from fedalt.clients.kernels.stages import Stage, batch_sizes, epochs

_BLOCK_BYTES = 2**25
"""About how much of a client's data is gathered at once."""


@dataclass
class Programs:
    """The compiled steps made so far."""

    _made: dict[tuple[object, ...], Program] = field(default_factory=dict)

    def get(self, step: PureStep, carry: Tensors, fixed: Tensors, data: Tensors) -> Program:
        """Return the program of a step, compiled when first asked for."""
        key = (step.key(), *((tuple(part.shape[1:]), part.dtype) for part in data))
        if key not in self._made:
            self._made[key] = trace_single(step, carry, fixed, data)
        return self._made[key]


@dataclass(frozen=True)
class _Ready:
    """A stage made ready for all clients: its step, and its hyper-parameters as tensors."""

    step: PureStep
    hypers: Tensors


def run_compiled(
    model: ReusedModel, order: Order, clients: Sequence[Client], programs: Programs
) -> Iterator[tuple[Client, Work | Exception]]:
    """Train clients one by one; yield each with its work or its error.

    Raises :class:`fedalt.clients.kernels.program.UntraceableError` where the step cannot be
    compiled.
    """
    held = load(model, order, clients)
    like = next(iter(held.shared.values()))
    steps = [pure_step(model, stage, weighted=False) for stage in clients[0].stages]
    ready = [_Ready(step, hyper_tensors(step, like)) for step in steps]
    for place, client in enumerate(clients):
        extra = initial_loss(model, order, client)
        yield client, _One(order, client, held, place, programs).run(ready, extra)


class _One:
    """One client on its way through its stages."""

    def __init__(
        self, order: Order, client: Client, held: Held, place: int, programs: Programs
    ) -> None:
        self._order, self._client, self._programs = order, client, programs
        self._received = {**held.shared, **held.own[place]} if held.own[place] else held.shared
        self._arrays = dict(self._received)
        self._records = Records([client])
        self._pending: dict[str, np.ndarray] = {}

    def run(self, ready: Sequence[_Ready], extra: dict[str, float]) -> Work | Exception:
        """Run all stages; return the client's work or its error."""
        for stage, made in zip(self._client.stages, ready, strict=True):
            try:
                self._run_stage(stage, made)
            except ValueError as error:
                return no_rows_for_batch_norm(error, self._client.where, 1, 1)
        if self._records.errors[0] is not None:
            return self._records.errors[0]
        first = ready[0].step.model.first
        own = {f"{LOCAL_STATE}{n}": self._read(n, first[n]) for n in self._order.keeps}
        self._client.keep(self._pending | own)
        arrays = {name: self._read(name, first[name]) for name in self._order.returns}
        metrics = {**self._records.means(0), **extra}
        return Work(arrays, len(self._client.rows), metrics, int(self._records.steps[0]))

    def _run_stage(self, stage: Stage, ready: _Ready) -> None:
        step, arrays = ready.step, self._arrays
        params = tuple(arrays[name] for name in step.trained)
        carry = (*params, *self._slots(step, stage, params), *(arrays[n] for n in step.buffers))
        received = [self._received[name] for name in step.trained] if step.proximal else []
        fixed = (*ready.hypers, *(arrays[name] for name in step.frozen), *received)
        program = self._programs.get(step, carry, fixed, self._client.data)
        carry = self._steps(program, stage, carry, fixed)
        count = len(step.trained)
        arrays.update(zip(step.trained, carry, strict=False))
        for name, value in zip(step.buffers, carry[count * (1 + len(step.slots)) :], strict=True):
            # Buffers that the phase does not train end the stage as they began it.
            if name in stage.arrays:
                arrays[name] = value
        self._records.check([param.unsqueeze(0) for param in carry[:count]])
        if step.settings.persist:
            optim.keep(step.trained, step.slots_in(carry), self._pending, stage.scope)

    def _slots(self, step: PureStep, stage: Stage, params: Tensors) -> list[torch.Tensor]:
        if not step.slots:
            return []
        kept = {**self._client.site.state, **self._pending} if step.settings.persist else {}
        state = optim.restore(step.settings.optimizer, step.trained, params, kept, stage.scope)
        # Adam's steps are counted on the CPU, where the reference needs them.
        return [t.to(step.model.device) for slot in step.slots for t in state[slot]]

    def _steps(self, program: Program, stage: Stage, carry: Tensors, fixed: Tensors) -> Tensors:
        """Take all steps; note what they measured and return the carry."""
        measured: list[torch.Tensor] = []
        first, model = len(carry), program.step.model
        size = stage.phase.batch_size
        drawn = list(epochs(stage))
        with torch.no_grad():
            for batch in self._batches(drawn, size, model.device):
                out = program.call(*carry, *fixed, *model.laid_out(batch))
                carry = tuple(out[:first])
                measured.append(out[first])
        table = torch.stack(measured).cpu().numpy()[:, None]
        counts = [n for rows in drawn for n in batch_sizes(len(rows), size)]
        self._records.add(program.metrics, table, np.array(counts)[:, None])
        return carry

    def _batches(
        self, drawn: Sequence[np.ndarray], size: int, device: torch.device
    ) -> Iterator[Tensors]:
        """Yield the batches; rows of many are gathered together, which costs as one of them."""
        data = self._client.data
        row = sum(part[:1].numel() * part.element_size() for part in data)
        some = max(1, _BLOCK_BYTES // max(1, size * row)) * size
        for shuffled in drawn:
            for begin in range(0, len(shuffled), some):
                rows = torch.from_numpy(shuffled[begin : begin + some]).to(device)
                gathered = (torch.split(part.index_select(0, rows), size) for part in data)
                yield from zip(*gathered, strict=True)

    def _read(self, name: str, first: str) -> np.ndarray:
        value = self._arrays[first]
        values: np.ndarray = value.cpu().numpy()
        if value is self._received[first]:
            values = values.copy()
        return as_received(self._order, name, np.asarray(values, order="C"))
