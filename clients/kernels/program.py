"""A training step traced once and replayed: without autograd, and compiled where that pays.

Tracing (``make_fx``) records forward pass, backward pass and update as one list of tensor
operations. Replayed as it is, a step costs no bookkeeping of gradients; compiled by Inductor,
small operations are fused too. Either way one program serves every client of a shape.
"""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.func import vmap

from fedalt.clients.kernels.pure import PureStep, Tensors
from fedalt.errors import FedaltError

_EXAMPLE_ROWS = 11
"""Rows of the batch that a program for any number of rows is traced with: a number that no
other dimension is likely to have, and neither 0 nor 1, which tracing treats as special."""


_LOUD = ("torch._subclasses.fake_tensor", "torch._inductor", "torch.fx.experimental")
"""Loggers that write an error's trace to the terminal before it is raised."""


class UntraceableError(FedaltError):
    """A step cannot be made a program; says why."""


@dataclass(frozen=True)
class Program:
    """A traced step: ``call(*carry, *fixed, *batch)`` returns the carry, then what it measured.

    That is one vector for each client, which ``metrics`` names, the loss first; ``clients`` is
    the number of clients it takes at once, 0 for one without a dimension of clients.
    """

    call: Callable[..., Sequence[torch.Tensor]]
    step: PureStep
    metrics: tuple[str, ...]
    clients: int = 0


def trace_single(step: PureStep, carry: Tensors, fixed: Tensors, batch: Tensors) -> Program:
    """Trace and compile a step of one client for any number of rows, from one example batch.

    Raises :class:`UntraceableError` where the loss cannot be traced or depends on the number.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import (
        DimDynamic,
        ShapeEnv,
        StatelessSymbolicContext,
    )

    shapes = ShapeEnv()
    mode = FakeTensorMode(shape_env=shapes, allow_non_fake_inputs=True)
    rows = torch.arange(_EXAMPLE_ROWS, device=batch[0].device) % len(batch[0])

    def symbolic(part: torch.Tensor) -> torch.Tensor:
        sizes = [DimDynamic.DYNAMIC, *[DimDynamic.STATIC] * (part.ndim - 1)]
        context: Any = StatelessSymbolicContext(
            dynamic_sizes=sizes, constraint_sizes=[None] * part.ndim
        )
        example = step.model.laid_out((part.index_select(0, rows),))[0]
        return mode.from_tensor(example, static_shapes=False, symbolic_context=context)

    def static(tensors: Tensors) -> Tensors:
        return tuple(mode.from_tensor(t, static_shapes=True) for t in _apart(tensors))

    parts = tuple(symbolic(part) for part in batch)
    dims: list[int | None] = [None] * len(fixed)
    program = _finish(step, static(carry), static(fixed), parts, dims, 0, True)
    if any(size.is_number for size in shapes.replacements.values()):
        raise UntraceableError("the loss is written for one number of rows")
    return program


def trace_batched(
    step: PureStep,
    carry: Tensors,
    fixed: Tensors,
    batch: Tensors,
    per_client: Sequence[bool],
    compiled: bool,
) -> Program:
    """Trace a step of as many clients as the examples' first dimension holds.

    ``per_client`` says which of ``fixed`` have that dimension too. Raises
    :class:`UntraceableError` where the loss cannot be traced over rows on their own.
    """
    dims = [0 if own else None for own in per_client]
    return _finish(step, _apart(carry), _apart(fixed), batch, dims, len(batch[0]), compiled)


def _apart(tensors: Tensors) -> Tensors:
    """Return examples that share nothing: tracing takes one tensor met twice for one input."""
    return tuple(t.clone() for t in tensors)


def _finish(
    step: PureStep,
    carry: Tensors,
    fixed: Tensors,
    batch: Tensors,
    dims: list[int | None],
    clients: int,
    compiled: bool,
) -> Program:
    names: list[str] = []

    def flat(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first, second = len(carry), len(carry) + len(fixed)
        new, loss, metrics = step(tensors[:first], tensors[first:second], tensors[second:])
        names[:] = ("loss", *metrics)
        measured = [loss, *(value.to(loss.dtype) for value in metrics.values())]
        return (*new, torch.stack(measured))

    function: Callable[..., Any] = flat
    if clients:
        function = vmap(flat, in_dims=(*[0] * len(carry), *dims, *[0] * len(batch)))
    examples = (*carry, *fixed, *batch)
    try:
        call = _trace(function, examples, compiled)
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        raise UntraceableError(text.splitlines()[0]) from error
    return Program(call, step, tuple(names), clients)


def _trace(function: Callable[..., Any], examples: Tensors, compiled: bool) -> Callable[..., Any]:
    from torch.fx.experimental.proxy_tensor import make_fx

    # Other packages' notices, about themselves; a test run makes errors of them.
    with warnings.catch_warnings(), _unlogged(), torch.no_grad():
        warnings.simplefilter("ignore")
        graph = make_fx(function)(*examples)
        if not compiled:
            return graph.forward
        return _compile(graph, examples)


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep torch from logging the traces of errors that are told, or passed over, as ours."""
    former = {name: logging.getLogger(name).level for name in _LOUD}
    try:
        for name in _LOUD:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield
    finally:
        for name, level in former.items():
            logging.getLogger(name).setLevel(level)


def _compile(graph: torch.fx.GraphModule, examples: Tensors) -> Callable[..., Any]:
    from torch._inductor import compile as inductor
    from torch._inductor import config

    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_cache()))
    if not any(hasattr(t, "fake_mode") for t in examples):
        # Values recorded while tracing carry one fake mode each; Inductor wants a single one.
        for node in graph.graph.nodes:
            node.meta = {}
    # In this process: a pool of compilers would outlive the run, and must not be forked.
    with config.patch(compile_threads=1):
        options = {} if examples[0].device.type == "cuda" else {"cpp_wrapper": True}
        compiled: Callable[..., Any] = inductor(graph, list(examples), options=options)
    # The compiler leaves a million objects behind, which every later search for garbage would
    # walk through: a tenth of the time of a round of small clients.
    gc.collect()
    gc.freeze()
    return compiled


def _cache() -> Path:
    """Where compiled code is kept from run to run: the user's own folder, not a shared one."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "fedalt" / "inductor"
