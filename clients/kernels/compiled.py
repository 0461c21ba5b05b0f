"""One client after the other through a compiled step, for any number of rows a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fedalt.clients.kernels import optim
from fedalt.clients.kernels.base import Order, Work
from fedalt.clients.kernels.client import Client, no_rows_for_batch_norm
from fedalt.clients.kernels.evaluate import lent_randomness, take
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
from fedalt.clients.kernels.stages import Stage, batch_table


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


def run_compiled(
    model: ReusedModel, order: Order, clients: Sequence[Client], programs: Programs
) -> Iterator[tuple[Client, Work | Exception]]:
    """Train clients one by one; yield each with its work or its error.

    Raises :class:`fedalt.clients.kernels.program.UntraceableError` where the step cannot be
    compiled.
    """
    held = load(model, order, clients)
    for place, client in enumerate(clients):
        extra = initial_loss(model, order, client)
        yield client, _One(model, order, client, held, place, programs).run(extra)


class _One:
    """One client on its way through its stages."""

    def __init__(
        self,
        model: ReusedModel,
        order: Order,
        client: Client,
        held: Held,
        place: int,
        programs: Programs,
    ) -> None:
        self._model, self._order, self._client = model, order, client
        self._programs = programs
        self._received = {**held.shared, **held.own[place]}
        self._arrays = dict(self._received)
        self._records = Records([client])
        self._pending: dict[str, np.ndarray] = {}

    def run(self, extra: dict[str, float]) -> Work | Exception:
        """Run all stages; return the client's work or its error."""
        for stage in self._client.stages:
            try:
                self._run_stage(stage)
            except ValueError as error:
                return no_rows_for_batch_norm(error, self._client.where, 1, 1)
        if self._records.errors[0] is not None:
            return self._records.errors[0]
        self._client.site.state.update(self._pending)
        arrays = {name: self._read(name) for name in self._order.returns}
        metrics = {**self._records.means(0), **extra}
        return Work(arrays, len(self._client.rows), metrics, int(self._records.steps[0]))

    def _run_stage(self, stage: Stage) -> None:
        step = pure_step(self._model, stage, weighted=False)
        params = [self._arrays[name] for name in step.trained]
        kept = {**self._client.site.state, **self._pending} if step.settings.persist else {}
        state = optim.restore(step.settings.optimizer, step.trained, params, kept, stage.scope)
        slots = [tensor for slot in step.slots for tensor in state[slot]]
        carry = (*params, *slots, *(self._arrays[name] for name in step.buffers))
        received = [self._received[name] for name in step.trained] if step.proximal else []
        like = params[0] if params else next(iter(self._arrays.values()))
        fixed = (*hyper_tensors(step, like), *(self._arrays[n] for n in step.frozen), *received)
        program = self._programs.get(step, carry, fixed, self._client.data)
        carry = self._steps(program, stage, carry, fixed)
        count = len(step.trained)
        self._arrays.update(zip(step.trained, carry, strict=False))
        for name, value in zip(step.buffers, carry[count * (1 + len(step.slots)) :], strict=True):
            # Buffers that the phase does not train end the stage as they began it.
            if name in stage.arrays:
                self._arrays[name] = value
        self._records.check([param.unsqueeze(0) for param in carry[:count]])
        if step.settings.persist:
            ends = {
                slot: list(carry[count * i : count * (i + 1)])
                for i, slot in enumerate(step.slots, start=1)
            }
            optim.keep(step.trained, ends, self._pending, stage.scope)

    def _steps(self, program: Program, stage: Stage, carry: Tensors, fixed: Tensors) -> Tensors:
        table, counts = batch_table(stage)
        rows = torch.from_numpy(table).to(self._model.device)
        measured: list[torch.Tensor] = []
        first = len(carry)
        with torch.no_grad(), lent_randomness(stage.seeds, self._model.device):
            for number, count in enumerate(counts.tolist()):
                batch = self._model.laid_out(take(self._client.data, rows[number, :count]))
                out = program.call(*carry, *fixed, *batch)
                carry = tuple(out[:first])
                measured.append(torch.stack(tuple(out[first:])))
        found = torch.stack(measured).cpu().numpy()
        names = ("loss", *program.metrics)
        values = {name: found[:, i : i + 1] for i, name in enumerate(names)}
        self._records.add(values, counts[:, None])
        return carry

    def _read(self, name: str) -> np.ndarray:
        value = self._arrays[self._model.first[name]].cpu()
        if value is self._received.get(self._model.first[name]):
            value = value.clone()
        return as_received(self._order, name, np.ascontiguousarray(value.numpy()))
