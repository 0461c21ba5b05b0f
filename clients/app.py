"""The Flower ClientApp: reads an instruction, runs its kernel, writes the reply.

``app`` is what ``flwr run`` and a real site load. A simulation makes its own with
:func:`create_app`, so that server and clients share one task.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedalt.build import TaskCache
from fedalt.clients.kernels import KernelTable
from fedalt.clients.kernels.base import Order, SiteContext
from fedalt.errors import WireError
from fedalt.grids.state import export_state, guarded, import_state
from fedalt.seeds import Seeds
from fedalt.task import Task
from fedalt.wire.records import OURS, Instruction, make_reply, read_instruction
from fedalt.wire.report import ClientReport, encode_site

TaskLoader = Callable[[Mapping[str, Any]], Task]


class SiteApp(ClientApp):
    """A ClientApp with a cohort entry point: one decode a broadcast, kernels built once."""

    def __init__(self, load_task: TaskLoader) -> None:
        super().__init__()
        self._load_task = load_task
        self._kernels = KernelTable()
        self._tasks: dict[str, Task] = {}
        self.train()(self._run_alone)
        self.evaluate()(self._run_alone)
        self.query("describe")(self._describe)

    def cohort(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Answer many messages; those that share their content share its decoding."""
        # By identity: the messages, which hold the contents, outlive this table.
        decoded: dict[int, Instruction | Exception] = {}
        replies = []
        for message, context in zip(messages, contexts, strict=True):
            if not message.metadata.message_type.startswith(("train", "evaluate")):
                replies.append(guarded(lambda m=message, c=context: self(m, c), message, context))  # type: ignore[misc]
                continue
            key = id(message.content)
            if key not in decoded:
                decoded[key] = _try_read(message.content)
            instruction = decoded[key]
            replies.append(
                guarded(
                    lambda m=message, c=context, i=instruction: self._run(m, c, i),  # type: ignore[misc]
                    message,
                    context,
                )
            )
        return replies

    def _run_alone(self, message: Message, context: Context) -> Message:
        return self._run(message, context, read_instruction(message.content))

    def _run(
        self, message: Message, context: Context, instruction: Instruction | Exception
    ) -> Message:
        if isinstance(instruction, Exception):
            raise instruction
        start = time.perf_counter()
        plan, task, site = instruction.plan, self._task(context), _site_index(context)
        order = Order(
            run_id=plan.run_id,
            round=plan.round,
            phase=plan.phase,
            arrays=instruction.arrays,
            returns=plan.returns,
            extras=instruction.extras,
            device=str(context.run_config.get("device", "cpu")),
        )
        state = export_state(context)
        seeds = Seeds(plan.seed).at("round", plan.round, "phase", plan.phase.name, "client", site)
        work = self._kernels(plan.phase.kernel)(order, SiteContext(task, site, state, seeds))
        if set(work.arrays) != set(plan.returns):
            raise WireError(
                f"kernel '{plan.phase.kernel}' returned {sorted(work.arrays)}, "
                f"the round asks for {sorted(plan.returns)}"
            )
        import_state(context, state)
        report = ClientReport(
            run_id=plan.run_id,
            round=plan.round,
            phase=plan.phase.name,
            site=site,
            num_examples=work.num_examples,
            steps=work.steps,
            seconds=time.perf_counter() - start,
        )
        arrays = {name: work.arrays[name] for name in plan.returns}
        return Message(make_reply(report, arrays, work.metrics), reply_to=message)

    def _describe(self, message: Message, context: Context) -> Message:
        site = self._task(context).sites[_site_index(context)]
        content = RecordDict(
            {
                "arrays": ArrayRecord(),
                "metrics": MetricRecord(),
                OURS: ConfigRecord({"site": encode_site(site)}),
            }
        )
        return Message(content, reply_to=message)

    def _task(self, context: Context) -> Task:
        text = str(context.run_config["task"])
        if text not in self._tasks:
            self._tasks[text] = self._load_task(json.loads(text))
        return self._tasks[text]


def _site_index(context: Context) -> int:
    return int(context.node_config["partition-id"])


def _try_read(content: RecordDict) -> Instruction | Exception:
    """Decode an instruction; its error belongs to each client that received it."""
    try:
        return read_instruction(content)
    except Exception as error:
        return error


def create_app(load_task: TaskLoader | None = None) -> SiteApp:
    """Make a ClientApp; its tasks come from ``load_task``, by default a cache of its own."""
    return SiteApp(load_task or TaskCache())


app = create_app()
