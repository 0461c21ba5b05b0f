"""Shakespeare's roles as domains: a small network learns what character comes next.

Each task is one role; all share the 65 characters, so the stream is domain-incremental. The
network is that of Bengio, Ducharme, Vincent and Jauvin, "A neural probabilistic language
model", JMLR 3, 2003, on characters: the embeddings of the last ``window`` of them, side by
side, a hidden layer, and a score for each that may follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import nn

from fedalt.alternation.block import Block
from fedalt.alternation.lazy_sites import LazySites
from fedalt.alternation.site import Site
from fedalt.data import RoleSet, load_shakespeare
from fedalt.errors import ConfigError, nearest
from fedalt.scenarios.continual_power_law import judge as judging
from fedalt.scenarios.continual_power_law import rows as dealt
from fedalt.scenarios.continual_power_law.judge import Batch, joined, sliced
from fedalt.scenarios.continual_power_law.settings import listed, number, whole, widths
from fedalt.scenarios.continual_text.windows import ALPHABET, Stretches, encode, stretches, windows
from fedalt.seeds import Seeds
from fedalt.task import Arrays


class RoleStream:
    """A stream of T roles among ``clients`` sites; a :class:`~fedalt.task.StreamTask`.

    ``roles`` names them, else they are the ``tasks`` roles of the most characters. A row is a
    window of ``window`` characters and the one after; windows begin ``stride`` apart. Of every
    role's text the last share ``test`` is the server's, of each client's stretch the last share
    ``held_out`` is kept to judge by. Of the windows left a client trains on ``rows`` of each
    role at most; the server judges by ``test_rows`` of each role at most (null: all). The
    network has ``embedding`` numbers a character and the ``hidden`` layers' widths.

    Raises :class:`ConfigError` naming the setting that does not fit.
    """

    protocol = "domain-incremental"

    def __init__(
        self,
        root: str | None = None,
        tasks: int = 8,
        roles: Sequence[str] | None = None,
        clients: int = 4,
        window: int = 16,
        stride: int = 1,
        held_out: float = 0.1,
        test: float = 0.1,
        rows: int | None = None,
        test_rows: int | None = 1000,
        embedding: int = 16,
        hidden: Sequence[int] = (200,),
        seed: int = 0,
    ) -> None:
        for key, value in (("tasks", tasks), ("clients", clients), ("window", window)):
            whole(value, f"task.{key}", 1)
        for key, wanted in (("rows", rows), ("test_rows", test_rows)):
            if wanted is not None:
                whole(wanted, f"task.{key}", 1)
        whole(stride, "task.stride", 1)
        self._window = window
        self._widths = [whole(embedding, "task.embedding", 1)]
        self._widths += widths(hidden, "task.hidden")
        shares = (_share(held_out, "held_out"), _share(test, "test"))
        if not shares[1]:
            raise ConfigError("task.test is 0, but the server needs text to judge by")
        found = load_shakespeare(root)
        self.source = found.source
        self._names = _roles(found, tasks, roles)
        self._codes = [encode(found.text(role)) for role in self._names]
        self.parts = [
            stretches(len(codes), role, clients, window, stride, shares)
            for role, codes in zip(self._names, self._codes, strict=True)
        ]
        self.parts = [
            _thinned(part, (rows, test_rows), shares[0], Seeds(seed).at("rows", task))
            for task, part in enumerate(self.parts)
        ]

    @property
    def tasks(self) -> Sequence[str]:
        """The roles' names."""
        return self._names

    @property
    def row_bytes(self) -> int:
        """Bytes that a kept row takes: one for each character of its window, and the next."""
        return self._window + 1

    @cached_property
    def sites(self) -> Sequence[Site]:
        """One site a client; its size counts the windows of all roles."""
        clients = range(len(self.parts[0].train))
        return LazySites([sum(len(part.train[site]) for part in self.parts) for site in clients])

    @property
    def blocks(self) -> Sequence[Block]:
        """The embedding, the last layer, and the layers between them where there are any."""
        blocks = [Block("embedding", ("embedding/*",)), Block("head", ("head/*",))]
        return [*blocks, Block("body", ("body/*",))] if len(self._widths) > 1 else blocks

    def model(self) -> nn.Module:
        """Build the network: characters (n, window) int64 to scores (n, 65)."""
        embedding, *hidden = self._widths
        made = nn.Sequential()
        made.add_module("embedding", nn.Embedding(len(ALPHABET), embedding))
        made.add_module("flat", nn.Flatten())
        features, layers = embedding * self._window, list[nn.Module]()
        for width in hidden:
            layers += [nn.Linear(features, width), nn.ReLU()]
            features = width
        if layers:
            made.add_module("body", nn.Sequential(*layers))
        made.add_module("head", nn.Linear(features, len(ALPHABET)))
        return made

    def initial_arrays(self, seeds: Seeds) -> dict[str, np.ndarray]:
        """Return normal embeddings, He-initialised weights and zero biases."""
        rng, arrays = seeds.numpy(), {}
        for name, value in self.model().state_dict().items():
            shape = tuple(value.shape)
            drawn = rng.standard_normal(shape) if len(shape) > 1 else np.zeros(shape)
            scale = 1.0 if name.startswith("embedding") else np.sqrt(2.0 / np.prod(shape[1:]))
            arrays[name] = (scale * drawn).astype(np.float32)
        return arrays

    def task_rows(self, site: int, task: int) -> int:
        """Return how many windows a site trains on of a role."""
        return len(self._part(site, task).train[site])

    def task_data(self, site: int, task: int, rows: np.ndarray) -> Batch:
        """Return characters (n, window) int64 and those after them (n,) int64.

        Raises :class:`DataError` for a task or rows that the site has not.
        """
        own = self._part(site, task).train[site]
        return self._batch(dealt.picked(own, rows, site, task, self.tasks[task]), task)

    def site_data(self, site: int) -> Batch:
        """Return a site's windows of all roles, role after role."""
        return joined(batch for _, batch in self._batches(lambda part: part.train[site]))

    def site_eval_data(self, site: int) -> Batch:
        """Return the windows of all roles that a site holds out, role after role.

        Raises :class:`DataError` where it holds none out.
        """
        dealt.check_held(site, sum(len(part.held[site]) for part in self.parts))
        return joined(batch for _, batch in self._batches(lambda part: part.held[site]))

    def site_eval_slices(self, site: int) -> dict[str, np.ndarray]:
        """Return where each role's windows lie in :meth:`site_eval_data`, by its number."""
        return sliced(len(part.held[site]) for part in self.parts)

    def scores(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return scores (n, 65) of the next character."""
        scores: torch.Tensor = model(batch[0])
        return scores

    def loss(
        self, model: nn.Module, batch: Batch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        """Return the mean cross-entropy in nats a character, and the accuracy."""
        return judging.cross_entropy(self.scores(model, batch), batch[1])

    def evaluate(self, arrays: Arrays) -> dict[str, float]:
        """Judge a model on the server's windows: means over roles, and each role's own."""
        batches = self._batches(lambda part: part.test)
        return judging.server_scores(self, arrays, batches, losses=True)

    def site_scores(self, site: int, arrays: Arrays) -> dict[str, float]:
        """Judge a model on the windows that a site holds out: ``accuracy/<task>``."""
        return judging.site_scores(self, arrays, self._batches(lambda part: part.held[site]))

    def _part(self, site: int, task: int) -> Stretches:
        dealt.check_task(site, task, len(self.parts))
        return self.parts[task]

    def _batch(self, starts: np.ndarray, task: int) -> Batch:
        return tuple(map(torch.from_numpy, windows(self._codes[task], starts, self._window)))

    def _batches(self, of: Callable[[Stretches], np.ndarray]) -> Iterator[tuple[int, Batch]]:
        for task, part in enumerate(self.parts):
            yield task, self._batch(of(part), task)


def _share(value: float, key: str) -> float:
    if not 0.0 <= number(value, f"task.{key}") < 1.0:
        raise ConfigError(f"task.{key} is {value}, but must lie in [0, 1)")
    return float(value)


def _roles(found: RoleSet, tasks: int, roles: Sequence[str] | None) -> tuple[str, ...]:
    if roles is None:
        if tasks > len(found.speeches):
            raise ConfigError(f"task.tasks is {tasks}, but only {len(found.speeches)} roles speak")
        return tuple(found.largest(tasks))
    roles = listed(roles, "task.roles")
    for place, role in enumerate(roles):
        if role not in found.speeches:
            raise ConfigError(f"task.roles: no role '{role}'{nearest(role, found.speeches)}")
        if role in roles[:place]:
            raise ConfigError(f"task.roles: '{role}' is named twice")
    if len(roles) != tasks:
        raise ConfigError(f"task.roles names {len(roles)} roles, but task.tasks is {tasks}")
    return tuple(roles)


def _thinned(
    part: Stretches, most: tuple[int | None, int | None], held_out: float, seeds: Seeds
) -> Stretches:
    """Draw at most so many of each client's windows, and of the server's.

    Of windows held out no more are drawn than are that share of those that a client keeps.
    """

    def drawn(starts: np.ndarray, most: int | None, *key: int | str) -> np.ndarray:
        if most is None or len(starts) <= most:
            return starts
        return np.sort(seeds.at(*key).numpy().choice(starts, most, replace=False))

    train = tuple(drawn(starts, most[0], site) for site, starts in enumerate(part.train))
    held = tuple(
        drawn(starts, dealt.held_share(len(kept), held_out), "held", site)
        if len(kept) < len(whole)
        else starts
        for site, (starts, kept, whole) in enumerate(zip(part.held, train, part.train, strict=True))
    )
    return Stretches(train, held, drawn(part.test, most[1], "test"))
