"""The Flower ClientApp: reads an instruction, runs its kernel, writes the reply.

``app`` is what ``flwr run`` and a real site load. A simulation makes its own with
:func:`create_app`, so that server and clients share one task.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedalt.alternation.local import LOCAL_STATE
from fedalt.build import TaskCache
from fedalt.clients import secure
from fedalt.clients.kernels import KernelTable
from fedalt.clients.kernels.base import Kernel, Order, SiteContext, Work
from fedalt.clients.protect import protect
from fedalt.clients.workers import Pool
from fedalt.errors import ConfigError, FedaltError, WireError
from fedalt.grids.state import export_state, guarded, import_state
from fedalt.secagg.messages import MASK
from fedalt.seeds import Seeds
from fedalt.task import Task
from fedalt.wire.messages import reply_with
from fedalt.wire.records import OURS, Instruction, make_reply, read_instruction
from fedalt.wire.report import ClientReport, encode_site

TaskLoader = Callable[[Mapping[str, Any]], Task]
KERNEL_TYPES = ("train", "evaluate", secure.MASKED_TYPE)
"""Types of messages that a kernel answers."""


class SiteApp(ClientApp):
    """A ClientApp with a cohort entry point: one decode a broadcast, kernels built once."""

    def __init__(self, load_task: TaskLoader, kernels: KernelTable | None = None) -> None:
        super().__init__()
        self._load_task = load_task
        self._kernels = kernels or KernelTable()
        self._tasks: dict[str, Task] = {}
        self._pool: Pool | None = None
        self.train()(self._run_alone)
        self.evaluate()(self._run_alone)
        self.query("describe")(self._describe)
        self.train(MASK)(self._run_alone)
        for action, answer in secure.STEPS.items():
            self.train(action)(answer)

    def cohort(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Answer many messages; those that share their content are one cohort of a kernel."""
        replies: dict[int, Message] = {}
        # By identity: the messages, which hold the contents, outlive this table.
        shared: dict[int, list[int]] = {}
        for place, message in enumerate(messages):
            if message.metadata.message_type in KERNEL_TYPES:
                shared.setdefault(id(secure.broadcast_of(message)), []).append(place)
            else:
                context = contexts[place]
                replies[place] = guarded(lambda m=message, c=context: self(m, c), message, context)  # type: ignore[misc]
        for places in shared.values():
            some = [messages[place] for place in places]
            made = self._answer(some, [contexts[place] for place in places])
            replies.update(zip(places, made, strict=True))
        return [replies[place] for place in range(len(messages))]

    def close(self) -> None:
        """End the worker processes, if there are any."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def export_facts(self) -> dict[str, Any]:
        """Return what kernels chose that a resumed run must take over, by kernel."""
        return self._kernels.export_facts()

    def import_facts(self, facts: Mapping[str, Any]) -> None:
        """Take over what kernels chose in the run that is resumed."""
        self._kernels.import_facts(facts)

    def _run_alone(self, message: Message, context: Context) -> Message:
        instruction = read_instruction(message.content)
        kernel, order = self._prepare(instruction, context)
        start, site = time.perf_counter(), self._site(instruction, context)
        work = kernel(order, site)
        return self._reply(message, context, order, site, work, time.perf_counter() - start)

    def _answer(self, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message]:
        """Answer messages of one content; an error that is nobody's own belongs to each."""
        try:
            instruction = read_instruction(messages[0].content)
            kernel, order = self._prepare(instruction, contexts[0])
        except FedaltError as error:
            return [_failed(m, c, error) for m, c in zip(messages, contexts, strict=True)]
        sites: list[SiteContext | None] = []
        replies: list[Message | None] = []
        for message, context in zip(messages, contexts, strict=True):
            try:
                sites.append(self._site(instruction, context))
                replies.append(None)
            except Exception as error:
                sites.append(None)
                replies.append(_failed(message, context, error))
        ready = [place for place, site in enumerate(sites) if site is not None]
        works = self._works(kernel, order, [site for site in sites if site is not None])
        start = time.perf_counter()
        for place, work in zip(ready, works, strict=True):
            now = time.perf_counter()
            replies[place] = self._judged(
                messages[place], contexts[place], order, sites[place], work, now - start
            )
            start = time.perf_counter()
        return [reply for reply in replies if reply is not None]

    def _works(
        self, kernel: Kernel, order: Order, sites: Sequence[SiteContext]
    ) -> Iterator[Work | Exception]:
        """Run a cohort, shared among worker processes where there are some."""
        if order.workers > 1:
            # Chosen and compiled here, before any worker is forked, and for all of them.
            if hasattr(kernel, "choose"):
                kernel.choose(order, sites)
            if self._pool is None:
                self._pool = Pool(order.workers, sites[0].task, self._kernels, self._at_once)
            yield from self._pool(order, sites)
            return
        yield from run_cohort(kernel, order, sites)

    def _at_once(self, order: Order, sites: Sequence[SiteContext]) -> list[Work | Exception]:
        return list(run_cohort(self._kernels(order.phase.kernel), order, sites))

    def _judged(
        self,
        message: Message,
        context: Context,
        order: Order,
        site: SiteContext | None,
        work: Work | Exception,
        seconds: float,
    ) -> Message:
        if isinstance(work, Exception):
            return _failed(message, context, work)
        assert site is not None
        try:
            return self._reply(message, context, order, site, work, seconds)
        except Exception as error:
            # Such as a metric that no record can hold.
            return _failed(message, context, error)

    def _prepare(self, instruction: Instruction, context: Context) -> tuple[Kernel, Order]:
        plan, settings = instruction.plan, context.run_config
        order = Order(
            run_id=plan.run_id,
            round=plan.round,
            phase=plan.phase,
            arrays=instruction.arrays,
            returns=plan.returns,
            extras=instruction.extras,
            device=str(settings.get("device", "cpu")),
            mode=str(settings.get("mode", "sequential")),
            precision=str(settings.get("precision", "float32")),
            rounds=int(settings.get("rounds", 0)),
            workers=int(settings.get("workers", 1)),
            keeps=plan.keeps,
        )
        return self._kernels(plan.phase.kernel), order

    def _site(self, instruction: Instruction, context: Context) -> SiteContext:
        plan, site = instruction.plan, _site_index(context)
        seeds = Seeds(plan.seed).at("round", plan.round, "phase", plan.phase.name, "client", site)
        return SiteContext(self._task(context), site, export_state(context), seeds)

    def _reply(
        self,
        message: Message,
        context: Context,
        order: Order,
        site: SiteContext,
        work: Work,
        seconds: float,
    ) -> Message:
        lost = [name for name in order.keeps if f"{LOCAL_STATE}{name}" not in site.state]
        if lost:
            raise ConfigError(
                f"phase '{order.phase.name}': kernel '{order.phase.kernel}' keeps no blocks at the "
                f"site, but {', '.join(lost)} are local; take their blocks out of its train"
            )
        if set(work.arrays) != set(order.returns):
            raise WireError(
                f"kernel '{order.phase.kernel}' returned {sorted(work.arrays)}, "
                f"the round asks for {sorted(order.returns)}"
            )
        work = protect(order, site, work)
        if secure.is_masked(message, order):
            masked = secure.mask_work(message, context, order, site, work)
            import_state(context, site.state)
            return masked
        secure.forget_former(context, order)
        import_state(context, site.state)
        report = ClientReport(
            run_id=order.run_id,
            round=order.round,
            phase=order.phase.name,
            site=site.site,
            num_examples=work.num_examples,
            steps=work.steps,
            seconds=seconds,
            applied=work.applied,
        )
        arrays = {name: work.arrays[name] for name in order.returns}
        return reply_with(make_reply(report, arrays, work.metrics), message)

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


def run_cohort(
    kernel: Kernel, order: Order, sites: Sequence[SiteContext]
) -> Iterator[Work | Exception]:
    """Run a cohort as one where the kernel can, else client by client."""
    together = getattr(kernel, "cohort", None)
    if together is not None:
        yield from together(order, sites)
        return
    for site in sites:
        try:
            yield kernel(order, site)
        except Exception as error:
            yield error


def _site_index(context: Context) -> int:
    return int(context.node_config["partition-id"])


def _failed(message: Message, context: Context, error: Exception) -> Message:
    """Answer with a client's error; its state is what it was, as only a reply changes it."""

    def fail() -> Message:
        raise error

    return guarded(fail, message, context)


def create_app(load_task: TaskLoader | None = None) -> SiteApp:
    """Make a ClientApp; its tasks come from ``load_task``, by default a cache of its own."""
    return SiteApp(load_task or TaskCache())


app = create_app()
