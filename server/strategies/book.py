"""One strategy instance a phase, and the state of each, stock or ours.

Stock strategies assume that every round trains the same arrays; alternation does not. So
each phase has an instance of its own, whose moments belong to that phase's blocks. For a
resume to be exact their state must be in the checkpoint: our strategies say what it is,
of Flower's the attributes that hold arrays and plain numbers are taken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvgM, Strategy

from fedalt.alternation.block import BlockMap
from fedalt.alternation.phase import Phase
from fedalt.alternation.site import Site
from fedalt.errors import CheckpointError
from fedalt.wire.arrays import arrays_of, record_of

Factory = Callable[[], Strategy]


class StrategyBook:
    """The strategies of a run, by phase name."""

    def __init__(self, factory: Factory, blocks: BlockMap, sites: Sequence[Site]) -> None:
        self._factory = factory
        self._blocks = blocks
        self._sites = sites
        self._made: dict[str, Strategy] = {}

    def __call__(self, phase: Phase) -> Strategy:
        """Return a phase's strategy, told about the phase if it wants to know."""
        if phase.name not in self._made:
            self._made[phase.name] = self._factory()
        strategy = self._made[phase.name]
        enter = getattr(strategy, "enter_phase", None)
        if enter is not None:
            enter(phase, self._blocks, self._sites)
        return strategy

    def export_states(self) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
        """Return every strategy's arrays, and plain data that says how they belong."""
        arrays: dict[str, dict[str, np.ndarray]] = {}
        facts: dict[str, Any] = {}
        for name, strategy in self._made.items():
            if hasattr(strategy, "state_arrays"):
                arrays[name], facts[name] = strategy.state_arrays(), {}
            else:
                arrays[name], facts[name] = _capture(strategy)
        return arrays, facts

    def import_states(
        self, arrays: Mapping[str, Mapping[str, np.ndarray]], facts: Mapping[str, Any]
    ) -> None:
        """Make every strategy as it was."""
        self._made = {}
        for name, shape in facts.items():
            strategy = self._made[name] = self._factory()
            if hasattr(strategy, "load_state_arrays"):
                strategy.load_state_arrays(arrays.get(name, {}))
            else:
                _restore(strategy, arrays.get(name, {}), shape)


def _capture(strategy: Strategy) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {}
    for attribute, value in sorted(vars(strategy).items()):
        if _is_plain(value):
            facts[attribute] = {"kind": "plain", "value": value}
        elif isinstance(value, np.ndarray):
            facts[attribute] = {"kind": "array"}
            arrays[attribute] = value
        elif isinstance(value, ArrayRecord):
            facts[attribute] = {"kind": "record", "keys": list(value)}
            arrays.update({f"{attribute}/{k}": v for k, v in arrays_of(value).items()})
        elif isinstance(value, dict) and value and _all_arrays(value.values()):
            facts[attribute] = {"kind": "dict", "keys": list(value)}
            arrays.update({f"{attribute}/{k}": v for k, v in value.items()})
        elif isinstance(value, list) and value and _all_arrays(value):
            facts[attribute] = {"kind": "list", "length": len(value)}
            arrays.update({f"{attribute}/{i}": v for i, v in enumerate(value)})
        elif isinstance(value, dict) and _is_plain([list(pair) for pair in value.items()]):
            # JSON would turn keys that are numbers into text.
            facts[attribute] = {"kind": "pairs", "value": [list(p) for p in value.items()]}
        elif isinstance(value, bytes):
            facts[attribute] = {"kind": "bytes"}
            arrays[attribute] = np.frombuffer(value, np.uint8)
        elif isinstance(value, dict | list | tuple | set):
            raise CheckpointError(
                f"the state of {type(strategy).__name__} cannot be committed: '{attribute}' is a "
                f"{type(value).__name__} of neither numbers nor arrays; give the strategy "
                "state_arrays() and load_state_arrays()"
            )
    return {k: np.asarray(v) for k, v in arrays.items()}, facts


def _restore(
    strategy: Strategy, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> None:
    for attribute, shape in facts.items():
        value: Any
        if shape["kind"] == "plain":
            value = shape["value"]
        elif shape["kind"] == "pairs":
            value = dict(shape["value"])
        elif shape["kind"] == "array":
            value = arrays[attribute]
        elif shape["kind"] == "bytes":
            value = arrays[attribute].tobytes()
        elif shape["kind"] == "list":
            value = [arrays[f"{attribute}/{i}"] for i in range(shape["length"])]
        else:
            value = {key: arrays[f"{attribute}/{key}"] for key in shape["keys"]}
            value = record_of(value) if shape["kind"] == "record" else value
        setattr(strategy, attribute, value)


def rebase(strategy: Strategy, arrays: ArrayRecord) -> None:
    """Let FedAvgM step from the arrays it sends.

    It takes its first round's for a start and then its own results, but under alternation
    other phases move the model between its rounds, and a branch's results never enter it.
    """
    if isinstance(strategy, FedAvgM):
        strategy.current_arrays = arrays


def _is_plain(value: Any) -> bool:
    """Say whether JSON gives the value back as it is."""
    if value is None or isinstance(value, bool | int | float | str):
        return True
    if not isinstance(value, dict | list):
        return False
    try:
        same: bool = json.loads(json.dumps(value)) == value
    except (TypeError, ValueError):
        return False
    return same


def _all_arrays(values: Any) -> bool:
    # FedOpt's moments can be numpy scalars for arrays of shape ().
    return all(isinstance(value, np.ndarray | np.generic) for value in values)
