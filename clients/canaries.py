"""The ClientApp of an audit's twin run: canaries answer in place of a kernel.

Everything else is the app that real sites run. A task with canaries says which sites are some
(``canary_kernel``) and what they answer, and is told what every site answers (``released``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from flwr.app import Context, Message

from fedalt.clients.app import SiteApp, TaskLoader, run_cohort
from fedalt.clients.kernels import KernelTable
from fedalt.clients.kernels.base import Kernel, Order, SiteContext, Work
from fedalt.seeds import Seeds
from fedalt.wire.records import read_reply


class CanaryKernel:
    """A kernel that lets canaries answer for themselves."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._metrics: dict[str, tuple[str, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        """Return what else the kernel has, such as the facts that it exports."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._kernel, name)

    def __call__(self, order: Order, site: SiteContext) -> Work:
        """Answer for one site."""
        (work,) = self.cohort(order, [site])
        if isinstance(work, Exception):
            raise work
        return work

    def choose(self, order: Order, sites: Sequence[SiteContext]) -> Any:
        """Let the kernel choose its mode by those sites that it runs on."""
        choose = getattr(self._kernel, "choose", None)
        real = [site for site in sites if not _is_canary(order, site)]
        return choose(order, real) if choose is not None and real else None

    def cohort(self, order: Order, sites: Sequence[SiteContext]) -> Iterator[Work | Exception]:
        """Yield each site's work, in order; canaries report the metrics that others do."""
        canary = [_is_canary(order, site) for site in sites]
        real = [site for site, is_one in zip(sites, canary, strict=True) if not is_one]
        works = iter(list(run_cohort(self._kernel, order, real)) if real else [])
        done = [None if is_one else next(works) for is_one in canary]
        for work in done:
            if isinstance(work, Work):
                self._metrics[order.phase.name] = tuple(work.metrics)
                break
        if sites:
            _task(sites[0]).ordered(order.phase, order.returns)
        for site, found in zip(sites, done, strict=True):
            yield self._answer(order, site) if found is None else found

    def _answer(self, order: Order, site: SiteContext) -> Work:
        task = _task(site)
        received = {n: order.arrays[n] for n in order.returns if n in order.arrays}
        if len(received) < len(order.returns):
            # What is trained need not be sent; then an answer is measured from zero.
            shapes = site.task.initial_arrays(Seeds(0))
            received |= {n: np.zeros_like(shapes[n]) for n in order.returns if n not in received}
        arrays = task.canary_answer(order.phase, site.site, received)
        names = self._metrics.get(order.phase.name, ())
        rows = site.task.sites[site.site].size
        return Work(arrays, rows, dict.fromkeys(names, math.nan), steps=1)


class CanaryKernels(KernelTable):
    """The kernels by name, each around canaries."""

    def __init__(self) -> None:
        super().__init__()
        self._around: dict[str, CanaryKernel] = {}

    def __call__(self, name: str) -> Kernel:
        """Return a kernel."""
        if name not in self._around:
            self._around[name] = CanaryKernel(super().__call__(name))
        return self._around[name]


class CanaryApp(SiteApp):
    """The app that tells the task what leaves each site, after all that protects it."""

    def __init__(self, load_task: TaskLoader) -> None:
        super().__init__(load_task, CanaryKernels())

    def _reply(
        self,
        message: Message,
        context: Context,
        order: Order,
        site: SiteContext,
        work: Work,
        seconds: float,
    ) -> Message:
        reply = super()._reply(message, context, order, site, work, seconds)
        spec = order.phase.privacy
        if spec is not None and spec.trust == "distributed":
            # Masked: what a reader has is the sum, and that is in the server's model.
            return reply
        received = {n: order.arrays[n] for n in order.returns if n in order.arrays}
        answer = read_reply(reply.content).arrays
        _task(site).released(order.phase, site.site, received, answer)
        return reply


def create_app(load_task: TaskLoader) -> SiteApp:
    """Make the ClientApp of a twin run, whose task has canaries."""
    return CanaryApp(load_task)


def _task(site: SiteContext) -> Any:
    return site.task


def _is_canary(order: Order, site: SiteContext) -> bool:
    return bool(_task(site).canary_kernel(order.phase, site.site))
