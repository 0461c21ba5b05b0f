from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LedgerTerms(_message.Message):
    __slots__ = ("relation", "delta", "disjoint", "policy", "budget", "config_sha256", "versions", "sites", "records", "adaptive")
    class BudgetEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RELATION_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    DISJOINT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    CONFIG_SHA256_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_FIELD_NUMBER: _ClassVar[int]
    relation: str
    delta: float
    disjoint: str
    policy: str
    budget: _containers.ScalarMap[str, float]
    config_sha256: str
    versions: _containers.ScalarMap[str, str]
    sites: int
    records: int
    adaptive: bool
    def __init__(self, relation: _Optional[str] = ..., delta: _Optional[float] = ..., disjoint: _Optional[str] = ..., policy: _Optional[str] = ..., budget: _Optional[_Mapping[str, float]] = ..., config_sha256: _Optional[str] = ..., versions: _Optional[_Mapping[str, str]] = ..., sites: _Optional[int] = ..., records: _Optional[int] = ..., adaptive: _Optional[bool] = ...) -> None: ...

class Draw(_message.Message):
    __slots__ = ("kind", "rate", "size", "population")
    KIND_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    POPULATION_FIELD_NUMBER: _ClassVar[int]
    kind: str
    rate: float
    size: int
    population: int
    def __init__(self, kind: _Optional[str] = ..., rate: _Optional[float] = ..., size: _Optional[int] = ..., population: _Optional[int] = ...) -> None: ...

class Charge(_message.Message):
    __slots__ = ("unit", "sites", "sites_sha256", "size", "blocks", "modality", "task", "draw", "steps", "event", "alone")
    class AloneEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    UNIT_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    SITES_SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    DRAW_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    ALONE_FIELD_NUMBER: _ClassVar[int]
    unit: str
    sites: str
    sites_sha256: str
    size: int
    blocks: _containers.RepeatedScalarFieldContainer[str]
    modality: str
    task: str
    draw: Draw
    steps: int
    event: str
    alone: _containers.ScalarMap[str, str]
    def __init__(self, unit: _Optional[str] = ..., sites: _Optional[str] = ..., sites_sha256: _Optional[str] = ..., size: _Optional[int] = ..., blocks: _Optional[_Iterable[str]] = ..., modality: _Optional[str] = ..., task: _Optional[str] = ..., draw: _Optional[_Union[Draw, _Mapping]] = ..., steps: _Optional[int] = ..., event: _Optional[str] = ..., alone: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Mechanism(_message.Message):
    __slots__ = ("name", "trust", "clip", "clips", "noise_multiplier", "noise_std", "sensitivity", "weights", "denominator", "rng")
    class ClipsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    CLIPS_FIELD_NUMBER: _ClassVar[int]
    NOISE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    NOISE_STD_FIELD_NUMBER: _ClassVar[int]
    SENSITIVITY_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    DENOMINATOR_FIELD_NUMBER: _ClassVar[int]
    RNG_FIELD_NUMBER: _ClassVar[int]
    name: str
    trust: str
    clip: float
    clips: _containers.ScalarMap[str, float]
    noise_multiplier: float
    noise_std: float
    sensitivity: float
    weights: str
    denominator: float
    rng: str
    def __init__(self, name: _Optional[str] = ..., trust: _Optional[str] = ..., clip: _Optional[float] = ..., clips: _Optional[_Mapping[str, float]] = ..., noise_multiplier: _Optional[float] = ..., noise_std: _Optional[float] = ..., sensitivity: _Optional[float] = ..., weights: _Optional[str] = ..., denominator: _Optional[float] = ..., rng: _Optional[str] = ...) -> None: ...

class Spent(_message.Message):
    __slots__ = ("unit", "epsilon", "bound")
    UNIT_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    unit: str
    epsilon: float
    bound: str
    def __init__(self, unit: _Optional[str] = ..., epsilon: _Optional[float] = ..., bound: _Optional[str] = ...) -> None: ...

class LedgerEntry(_message.Message):
    __slots__ = ("major", "minor", "number", "previous", "run_id", "status", "round", "phase", "settles", "terms", "charges", "mechanism", "planned", "replies", "released", "fixed_in_advance", "spent", "reason", "sha256")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    SETTLES_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    CHARGES_FIELD_NUMBER: _ClassVar[int]
    MECHANISM_FIELD_NUMBER: _ClassVar[int]
    PLANNED_FIELD_NUMBER: _ClassVar[int]
    REPLIES_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    FIXED_IN_ADVANCE_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    number: int
    previous: str
    run_id: str
    status: str
    round: int
    phase: str
    settles: int
    terms: LedgerTerms
    charges: _containers.RepeatedCompositeFieldContainer[Charge]
    mechanism: Mechanism
    planned: int
    replies: int
    released: _containers.RepeatedScalarFieldContainer[str]
    fixed_in_advance: bool
    spent: _containers.RepeatedCompositeFieldContainer[Spent]
    reason: str
    sha256: str
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ..., number: _Optional[int] = ..., previous: _Optional[str] = ..., run_id: _Optional[str] = ..., status: _Optional[str] = ..., round: _Optional[int] = ..., phase: _Optional[str] = ..., settles: _Optional[int] = ..., terms: _Optional[_Union[LedgerTerms, _Mapping]] = ..., charges: _Optional[_Iterable[_Union[Charge, _Mapping]]] = ..., mechanism: _Optional[_Union[Mechanism, _Mapping]] = ..., planned: _Optional[int] = ..., replies: _Optional[int] = ..., released: _Optional[_Iterable[str]] = ..., fixed_in_advance: _Optional[bool] = ..., spent: _Optional[_Iterable[_Union[Spent, _Mapping]]] = ..., reason: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...
