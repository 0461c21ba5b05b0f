"""One torch module that serves client after client.

Building a model costs more than a small client's whole training, so a kernel keeps one and
overwrites all of it for each client: what was sent, what the site keeps, and what the task
began with. Nothing of one client is left for the next.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from fedalt.alternation.block import BlockMap
from fedalt.alternation.local import LOCAL_STATE
from fedalt.clients.kernels.base import Order, SiteContext
from fedalt.errors import ConfigError, nearest
from fedalt.seeds import Seeds
from fedalt.task import GradientTask, Task


@dataclass(frozen=True)
class Place:
    """Where an error happened; put into words only then, as a task may list sites slowly."""

    order: Order
    site: SiteContext

    def __str__(self) -> str:
        name = self.site.task.sites[self.site.site].name
        return f"site '{name}', round {self.order.round}, phase '{self.order.phase.name}'"


class ReusedModel:
    """One torch module that serves client after client: each load overwrites all of it.

    ``parameters`` maps the names of the ``state_dict`` to the parameters (tied ones appear
    under each of their names), ``trainable`` names those that the task did not freeze.
    ``first`` maps each array's name to the first of its names, ``distinct`` lists those. Arrays
    of four dimensions lie in memory as ``channels_last`` says; their values are the same.
    """

    def __init__(
        self,
        task: GradientTask,
        device: str,
        precision: str = "float32",
        channels_last: bool = False,
    ) -> None:
        self.task = task
        self.device = torch.device(device)
        self.precision = precision
        self.channels_last = channels_last
        self.module = task.model().to(self.device)
        if channels_last:
            if any(parameter.ndim > 4 for parameter in self.module.parameters()):
                raise ConfigError(
                    "engine.mode: channels last is a layout of pictures, and this model reads "
                    "volumes; choose engine.mode=auto or sequential"
                )
            self.module = self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters = dict(self.module.named_parameters(remove_duplicate=False))
        self._tied = _tied_names(self.parameters)
        self.trainable = {name for name, p in self.parameters.items() if p.requires_grad}
        persistent = [k for k, v in self.module.state_dict().items() if torch.is_tensor(v)]
        self.names = tuple(persistent)
        self.blocks = BlockMap.of(self.names, task.blocks)
        # A buffer is looked up in its module each time: forward may put a new tensor there.
        self._homes = {
            f"{prefix}.{key}" if prefix else key: (module, key)
            for prefix, module in self.module.named_modules(remove_duplicate=False)
            for key, value in module._buffers.items()
            if value is not None
        }
        self.buffers = tuple(name for name in self.names if name in self._homes)
        firsts: dict[int, str] = {}
        for name, param in self.parameters.items():
            firsts.setdefault(id(param), name)
        self.first = {name: firsts[id(param)] for name, param in self.parameters.items()}
        self.first |= {name: name for name in self._homes}
        self.distinct = tuple(dict.fromkeys(self.first.values()))
        # What never travels must not leak from one client into the next either.
        self._transient = {
            name: self.tensor(name).clone() for name in self._homes if name not in set(self.names)
        }
        self._initial: tuple[int, Mapping[str, np.ndarray]] | None = None

    def check_ties(self, names: Collection[str], where: Place) -> None:
        """Raise :class:`ConfigError` if only some names of one parameter are among ``names``.

        The others would go on from the server as they were, and undo the training.
        """
        for tied in self._tied:
            left = [name for name in tied if name not in names]
            if left and len(left) < len(tied):
                raise ConfigError(
                    f"{where}: {', '.join(tied)} are one parameter, but {', '.join(left)} is not "
                    "among the trained blocks; put its names into blocks that are trained together"
                )

    def autocast(self) -> AbstractContextManager[None]:
        """Let torch round products to ``precision`` where it knows that to be sound."""
        if self.precision == "float32":
            return nullcontext()
        # Without a cache: it would keep a parameter's rounded copy past the parameter's update.
        return torch.autocast(self.device.type, getattr(torch, self.precision), cache_enabled=False)

    @contextmanager
    def still(self, names: Iterable[str] | None = None) -> Iterator[None]:
        """Leave buffers, such as running statistics, at the end as they were; by default all.

        A backward pass belongs inside: autograd minds when a buffer it met has changed.
        """
        kept = self.buffers if names is None else names
        former = {name: self.tensor(name).clone() for name in kept}
        try:
            yield
        finally:
            for name, value in former.items():
                self.tensor(name).copy_(value)

    def laid_out(self, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Return a batch in the model's memory layout."""
        if not self.channels_last:
            return batch
        return tuple(in_channels_last(part) for part in batch)

    def choose(self, arrays: Collection[str]) -> dict[str, torch.nn.Parameter]:
        """Let gradients flow to those parameters only, and return them; tied names count once."""
        wanted = set(arrays) & self.trainable
        chosen: dict[int, str] = {}
        for name, param in self.parameters.items():
            param.requires_grad_(False)
            if name in wanted:
                chosen.setdefault(id(param), name)
        trained = {name: self.parameters[name] for name in chosen.values()}
        for param in trained.values():
            param.requires_grad_(True)
        return trained

    def is_buffer(self, name: str) -> bool:
        """Say whether an array is a buffer and no parameter."""
        return name in self._homes

    def tensor(self, name: str) -> torch.Tensor:
        """Return the live parameter or buffer, detached but sharing its storage."""
        if name in self.parameters:
            return self.parameters[name].detach()
        module, key = self._homes[name]
        return cast(torch.Tensor, module._buffers[key])

    def read(self, name: str, dtype: np.dtype[np.generic] | None = None) -> np.ndarray:
        """Return a fresh numpy copy of an array."""
        return np.array(self.tensor(name).cpu().numpy(), dtype=dtype, order="C")

    def write(self, name: str, value: np.ndarray, where: Place) -> None:
        """Overwrite an array; raises :class:`ConfigError` if shape or kind do not fit."""
        tensor = self.tensor(name)
        if value.shape != tuple(tensor.shape):
            raise ConfigError(
                f"{where}: array '{name}' has shape {value.shape}, "
                f"the model expects {tuple(tensor.shape)}"
            )
        try:
            if self.device.type == "cpu":
                # Through numpy, since torch warns of the server's read-only arrays.
                np.copyto(tensor.numpy(), value, casting="same_kind")
            else:
                tensor.copy_(torch.from_numpy(np.array(value)))
        except TypeError as error:
            raise ConfigError(f"{where}: array '{name}': {error}") from error

    def load(self, order: Order, site: SiteContext) -> None:
        """Put the received blocks in; what was not sent comes from a place that is fixed.

        That is the site's own ``local/<array>``, or else the task's initial arrays at
        ``Seeds(root).at("initial")``; never what the last client left behind.
        """
        where = Place(order, site)
        for name in order.arrays:
            if name not in self.parameters and name not in self._homes:
                raise ConfigError(
                    f"{where}: the model has no array '{name}'{nearest(name, self.names)}"
                )
        for name in self.names:
            if name in order.arrays:
                self.write(name, order.arrays[name], where)
            elif f"{LOCAL_STATE}{name}" in site.state:
                self.write(name, site.state[f"{LOCAL_STATE}{name}"], where)
            else:
                self.write(name, self._initial_array(name, site.seeds.root, where), where)
        for name, value in self._transient.items():
            self.tensor(name).copy_(value)

    def _initial_array(self, name: str, root: int, where: Place) -> np.ndarray:
        if self._initial is None or self._initial[0] != root:
            self._initial = (root, initial_arrays(self.task, root))
        arrays = self._initial[1]
        if name not in arrays:
            raise ConfigError(
                f"{where}: array '{name}' was not sent, is not kept at the site and is not "
                "among the task's initial arrays; send its block"
            )
        return arrays[name]


def initial_arrays(task: Task, root: int) -> Mapping[str, np.ndarray]:
    """Return the arrays that every site of a run begins with; ``root`` is the run's seed."""
    return task.initial_arrays(Seeds(root).at("initial"))


def in_channels_last(part: torch.Tensor) -> torch.Tensor:
    """Return a tensor of four dimensions laid out with its channels last."""
    if part.ndim != 4:
        return part
    # Not .contiguous: with one channel both layouts are contiguous, and torch would keep the
    # strides by which its convolutions take the slower way.
    return torch.empty_like(part, memory_format=torch.channels_last).copy_(part)


def _tied_names(parameters: Mapping[str, torch.nn.Parameter]) -> list[list[str]]:
    """Return the names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in parameters.items():
        names.setdefault(id(parameter), []).append(name)
    return [found for found in names.values() if len(found) > 1]


class ModelCache:
    """The models of the task seen last. Held by the kernel; it keeps that one task alive."""

    def __init__(self) -> None:
        self._task: Task | None = None
        self._models: dict[tuple[str, str, bool], ReusedModel] = {}

    def __call__(
        self,
        task: Task,
        device: str,
        precision: str = "float32",
        channels_last: bool = False,
    ) -> ReusedModel:
        """Return the task's model, built when the task or one of the settings is a new one."""
        if self._task is not task:
            if not (hasattr(task, "model") and hasattr(task, "loss")):
                raise ConfigError(
                    f"{type(task).__name__} has no model and loss: this kernel needs a GradientTask"
                )
            self._task, self._models = task, {}
        key = (device, precision, channels_last)
        if key not in self._models:
            self._models[key] = ReusedModel(cast(GradientTask, task), *key)
        return self._models[key]
