"""Client-level privacy around a strategy: it is shown one reply, the noised mean, and no other.

    reply = current + (Σ_i w_i Δ̄_i + noise)/m

A strategy of the mean's family (FedAvg, its server optimisers, Blockwise by ``mean``) takes a
single reply for the mean that it is, so that its own rule goes on unchanged, and as
post-processing costs nothing. See ``fedalt.privacy.central`` for sum and noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    FedYogi,
    Strategy,
)

from fedalt.alternation.block import ALL, BlockMap
from fedalt.alternation.local import LOCAL
from fedalt.alternation.phase import Phase
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.alternation.site import Site
from fedalt.errors import ConfigError
from fedalt.privacy.central import ClippedSum, Memory, noised
from fedalt.privacy.clipping import bounded_groups, check_floats
from fedalt.privacy.noise import noise_generator
from fedalt.privacy.release import Protection
from fedalt.privacy.sampling import expected_clients
from fedalt.seeds import Seeds
from fedalt.server.strategies.blockwise import DEFAULT_RULE, Blockwise, pool_metrics
from fedalt.server.strategies.state import capture, restore
from fedalt.wire.arrays import arrays_of
from fedalt.wire.messages import broadcast
from fedalt.wire.records import WEIGHT, Reply, make_reply, read_reply
from fedalt.wire.report import ClientReport

MEANS = (FedAvg, FedProx, FedAvgM, FedAdam, FedAdagrad, FedYogi)
"""Flower's strategies that take a single reply for the mean."""
RULES = (DEFAULT_RULE, "keep", LOCAL)
"""The block rules that do."""
INNER = "inner"
"""Where a wrapped strategy's facts stand among the wrapper's."""


class Private(Strategy):
    """Bounds and noises what a phase's clients send, before ``inner`` sees their mean.

    ``applied`` is what protected the last round's clients. ``seeds`` are the run's, which only
    a spec with ``rng: seeded`` draws from.
    """

    def __init__(self, inner: Strategy, seeds: Seeds) -> None:
        self.inner = inner
        self.applied: Protection | None = None
        self._seeds = seeds
        self._phase = Phase("train", privacy=PrivacySpec())
        self._members: Mapping[str, Sequence[str]] = {}
        self._expected = 1.0
        self._current: dict[str, np.ndarray] = {}
        self._memory = Memory()
        if isinstance(inner, FedAvg):
            # A draw may be of one client or of nobody; the schedule decides who takes part.
            inner.min_train_nodes = inner.min_available_nodes = 0

    def enter_phase(self, phase: Phase, blocks: BlockMap, sites: Sequence[Site]) -> None:
        """Take up a phase; raises :class:`ConfigError` where ``inner`` cannot be bounded."""
        check_private(phase, self.inner, blocks)
        self._phase, self._members = phase, blocks.members
        self._expected = expected_clients(phase, sites)
        enter = getattr(self.inner, "enter_phase", None)
        if enter is not None:
            enter(phase, blocks, sites)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let ``inner`` configure the round, of a cohort that may be empty."""
        self._current = arrays_of(arrays)
        check_floats(self._current, f"phase '{self._phase.name}'")
        return self.inner.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Noise the clipped sum of the replies, be it of none, and hand on what it makes."""
        spec = self._spec
        answers = _by_site(replies)
        names, clip = list(self._current), self._memory.clip or None
        groups = bounded_groups(spec, names, self._members, clip)
        clipped = ClippedSum(spec, groups, self._current)
        for answer in answers:
            clipped.add(answer.arrays, answer.metrics[WEIGHT])
        place = self._seeds.at("round", server_round, "phase", self._phase.name)
        found = noised(clipped, self._expected, self._memory, noise_generator(spec.rng, place))
        self.applied, self._memory = found.applied, found.memory
        metrics = dict(found.metrics)
        if spec.metrics == "release" and answers:
            metrics |= pool_metrics(answers)
            metrics["clipped"] = 1.0 - clipped.within / len(answers)
        return self._hand_on(server_round, found.total, metrics)

    def aggregate_sum(
        self, server_round: int, total: Mapping[str, np.ndarray], replies: int
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hand on the mean of a sum that was clipped, weighted and noised by those who made it."""
        self.applied = None
        return self._hand_on(server_round, total, {})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Leave evaluation to ``inner``."""
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Leave evaluation to ``inner``."""
        return self.inner.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Let ``inner`` log its own."""
        self.inner.summary()

    def export_state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return all arrays for the checkpoint, and facts that :meth:`import_state` reads."""
        inner, facts = capture(self.inner)
        own = {f"past|{name}": values for name, values in self._memory.past.items()}
        own["clip"] = np.array([self._memory.clip])
        own["deviations"] = np.array(self._memory.deviations, np.float64)
        return {**own, **{f"{INNER}|{name}": v for name, v in inner.items()}}, {INNER: facts}

    def import_state(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Take up what :meth:`export_state` returned."""

        def under(key: str) -> dict[str, np.ndarray]:
            found = {name.partition("|"): values for name, values in arrays.items()}
            return {name: values for (first, bar, name), values in found.items()
                    if bar and first == key}  # fmt: skip

        deviations = tuple(arrays["deviations"].tolist())
        self._memory = Memory(float(arrays["clip"][0]), under("past"), deviations)
        restore(self.inner, under(INNER), facts[INNER])

    @property
    def _spec(self) -> PrivacySpec:
        spec = self._phase.privacy
        assert spec is not None
        return spec

    def _hand_on(
        self, server_round: int, total: Mapping[str, np.ndarray], metrics: Mapping[str, float]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Show ``inner`` one reply: the current arrays, moved by the sum over its denominator."""
        denominator = self._spec.denominator or self._expected
        arrays = {}
        with np.errstate(over="ignore"):
            for name, old in self._current.items():
                moved = old.astype(np.float64) + total[name] / denominator
                arrays[name] = moved.astype(old.dtype)
        report = ClientReport("", server_round, self._phase.name, 0, 1, steps=0, seconds=0.0)
        reply = broadcast(make_reply(report, arrays, {}), MessageType.TRAIN, [0])
        record, told = self.inner.aggregate_train(server_round, reply)
        return record, MetricRecord({**(told or {}), **metrics})


def is_wrapped(phase: Phase) -> bool:
    """Say whether a phase's strategy is shown the noised mean of its clients, and no more."""
    spec = phase.privacy
    return spec is not None and spec.unit == "client" and spec.trust != "local"


def check_private(phase: Phase, strategy: Strategy, blocks: BlockMap) -> None:
    """Raise :class:`ConfigError` for a phase whose strategy cannot go on from a noised mean.

    Where sites add the noise themselves any strategy will do. A strategy of one's own counts as
    the mean's family if it aggregates with the method of one that is.
    """
    if not is_wrapped(phase):
        return
    where, name = f"phase '{phase.name}'", type(strategy).__name__
    if isinstance(strategy, Blockwise):
        own = type(strategy)
        if (own.aggregate_train, own.aggregate_decoded) != (
            Blockwise.aggregate_train,
            Blockwise.aggregate_decoded,
        ):
            raise _unbounded(where, f"{name}, which aggregates in a way of its own")
        for block in phase.train or (ALL,):
            rule = phase.aggregate.get(block, DEFAULT_RULE)
            if rule not in RULES:
                raise _unbounded(where, f"rule '{rule}' for block '{block}'")
    elif not any(type(strategy).aggregate_train is mean.aggregate_train for mean in MEANS):
        raise _unbounded(where, name)
    elif isinstance(strategy, FedAvg) and strategy.fraction_train != 1.0:
        raise ConfigError(
            f"{where}: {name} draws a fraction of {strategy.fraction_train:g} of those that the "
            "schedule drew, so that the number expected, and ε, would be wrong; set "
            "strategy.fraction_train=1.0 and let the phase's clients say who takes part"
        )
    assert phase.privacy is not None
    names = blocks.select(phase.train, where)
    bounded_groups(phase.privacy, names, blocks.members)


def _unbounded(where: str, what: str) -> ConfigError:
    means = ", ".join(mean.__name__ for mean in MEANS)
    return ConfigError(
        f"{where} protects clients, but {what} is a mechanism without bounded sensitivity here: "
        f"noise is calibrated for a clipped sum; use {means}, or Blockwise with rules "
        f"{', '.join(RULES)}, or add the noise at the sites (privacy.trust=local)"
    )


def _by_site(replies: Iterable[Message]) -> list[Reply]:
    """Decode replies in the order of their sites; of one site's the first counts."""
    found: dict[int, Reply] = {}
    for message in replies:
        if message.has_content():
            answer = read_reply(message.content)
            found.setdefault(answer.report.site, answer)
    return [found[site] for site in sorted(found)]
