"""The state of a strategy, for a checkpoint: arrays, and plain data that says how they belong.

Our strategies say what it is (``state_arrays`` and ``load_state_arrays``, or ``export_state``
and ``import_state`` where plain data belongs to it); of Flower's the attributes that hold arrays
and plain numbers are taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy

from fedalt.errors import CheckpointError
from fedalt.wire.arrays import arrays_of, record_of


def capture(strategy: Strategy) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return a strategy's arrays, and facts for :func:`restore`.

    Raises :class:`CheckpointError` for a stock strategy with state that cannot be committed.
    """
    if hasattr(strategy, "export_state"):
        return strategy.export_state()  # type: ignore[no-any-return]
    if hasattr(strategy, "state_arrays"):
        return strategy.state_arrays(), {}
    return _capture(strategy)


def restore(strategy: Strategy, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Make a fresh strategy as the captured one was."""
    if hasattr(strategy, "import_state"):
        strategy.import_state(arrays, facts)
    elif hasattr(strategy, "load_state_arrays"):
        strategy.load_state_arrays(arrays)
    else:
        _restore(strategy, arrays, facts)


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
