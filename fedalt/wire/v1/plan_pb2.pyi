from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Scalar(_message.Message):
    __slots__ = ("flag", "integer", "number", "text")
    FLAG_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    flag: bool
    integer: int
    number: float
    text: str
    def __init__(self, flag: _Optional[bool] = ..., integer: _Optional[int] = ..., number: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class Environment(_message.Message):
    __slots__ = ("kind", "exponent", "scale", "p_new")
    KIND_FIELD_NUMBER: _ClassVar[int]
    EXPONENT_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    P_NEW_FIELD_NUMBER: _ClassVar[int]
    kind: str
    exponent: float
    scale: float
    p_new: float
    def __init__(self, kind: _Optional[str] = ..., exponent: _Optional[float] = ..., scale: _Optional[float] = ..., p_new: _Optional[float] = ...) -> None: ...

class StreamView(_message.Message):
    __slots__ = ("tasks", "experience", "new", "rehearsal", "environments", "order", "budget", "first")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    EXPERIENCE_FIELD_NUMBER: _ClassVar[int]
    NEW_FIELD_NUMBER: _ClassVar[int]
    REHEARSAL_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedScalarFieldContainer[int]
    experience: int
    new: int
    rehearsal: float
    environments: _containers.RepeatedCompositeFieldContainer[Environment]
    order: str
    budget: str
    first: int
    def __init__(self, tasks: _Optional[_Iterable[int]] = ..., experience: _Optional[int] = ..., new: _Optional[int] = ..., rehearsal: _Optional[float] = ..., environments: _Optional[_Iterable[_Union[Environment, _Mapping]]] = ..., order: _Optional[str] = ..., budget: _Optional[str] = ..., first: _Optional[int] = ...) -> None: ...

class PrivacySpec(_message.Message):
    __slots__ = ("unit", "trust", "mechanism", "clip", "clips", "noise", "bands", "weight_cap", "denominator", "quantile", "rate", "count_noise", "dropouts", "sample_rate", "contributions", "per_sample", "rng", "metrics")
    class ClipsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    UNIT_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    MECHANISM_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    CLIPS_FIELD_NUMBER: _ClassVar[int]
    NOISE_FIELD_NUMBER: _ClassVar[int]
    BANDS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_CAP_FIELD_NUMBER: _ClassVar[int]
    DENOMINATOR_FIELD_NUMBER: _ClassVar[int]
    QUANTILE_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    COUNT_NOISE_FIELD_NUMBER: _ClassVar[int]
    DROPOUTS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    PER_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    RNG_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    unit: str
    trust: str
    mechanism: str
    clip: float
    clips: _containers.ScalarMap[str, float]
    noise: float
    bands: int
    weight_cap: float
    denominator: float
    quantile: float
    rate: float
    count_noise: float
    dropouts: float
    sample_rate: float
    contributions: int
    per_sample: str
    rng: str
    metrics: str
    def __init__(self, unit: _Optional[str] = ..., trust: _Optional[str] = ..., mechanism: _Optional[str] = ..., clip: _Optional[float] = ..., clips: _Optional[_Mapping[str, float]] = ..., noise: _Optional[float] = ..., bands: _Optional[int] = ..., weight_cap: _Optional[float] = ..., denominator: _Optional[float] = ..., quantile: _Optional[float] = ..., rate: _Optional[float] = ..., count_noise: _Optional[float] = ..., dropouts: _Optional[float] = ..., sample_rate: _Optional[float] = ..., contributions: _Optional[int] = ..., per_sample: _Optional[str] = ..., rng: _Optional[str] = ..., metrics: _Optional[str] = ...) -> None: ...

class Phase(_message.Message):
    __slots__ = ("name", "kernel", "train", "send", "epochs", "steps", "batch_size", "modality", "task", "params", "aggregate", "view_fraction", "branch", "inner", "view_stream", "view_slices", "privacy")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Scalar, _Mapping]] = ...) -> None: ...
    class AggregateEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    SEND_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MODALITY_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    AGGREGATE_FIELD_NUMBER: _ClassVar[int]
    VIEW_FRACTION_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    INNER_FIELD_NUMBER: _ClassVar[int]
    VIEW_STREAM_FIELD_NUMBER: _ClassVar[int]
    VIEW_SLICES_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_FIELD_NUMBER: _ClassVar[int]
    name: str
    kernel: str
    train: _containers.RepeatedScalarFieldContainer[str]
    send: _containers.RepeatedScalarFieldContainer[str]
    epochs: int
    steps: int
    batch_size: int
    modality: str
    task: str
    params: _containers.MessageMap[str, Scalar]
    aggregate: _containers.ScalarMap[str, str]
    view_fraction: float
    branch: str
    inner: _containers.RepeatedCompositeFieldContainer[Phase]
    view_stream: StreamView
    view_slices: _containers.RepeatedScalarFieldContainer[str]
    privacy: PrivacySpec
    def __init__(self, name: _Optional[str] = ..., kernel: _Optional[str] = ..., train: _Optional[_Iterable[str]] = ..., send: _Optional[_Iterable[str]] = ..., epochs: _Optional[int] = ..., steps: _Optional[int] = ..., batch_size: _Optional[int] = ..., modality: _Optional[str] = ..., task: _Optional[str] = ..., params: _Optional[_Mapping[str, Scalar]] = ..., aggregate: _Optional[_Mapping[str, str]] = ..., view_fraction: _Optional[float] = ..., branch: _Optional[str] = ..., inner: _Optional[_Iterable[_Union[Phase, _Mapping]]] = ..., view_stream: _Optional[_Union[StreamView, _Mapping]] = ..., view_slices: _Optional[_Iterable[str]] = ..., privacy: _Optional[_Union[PrivacySpec, _Mapping]] = ...) -> None: ...

class RoundPlan(_message.Message):
    __slots__ = ("major", "minor", "run_id", "round", "seed", "phase", "returns", "keeps")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    RETURNS_FIELD_NUMBER: _ClassVar[int]
    KEEPS_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    run_id: str
    round: int
    seed: int
    phase: Phase
    returns: _containers.RepeatedScalarFieldContainer[str]
    keeps: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ..., run_id: _Optional[str] = ..., round: _Optional[int] = ..., seed: _Optional[int] = ..., phase: _Optional[_Union[Phase, _Mapping]] = ..., returns: _Optional[_Iterable[str]] = ..., keeps: _Optional[_Iterable[str]] = ...) -> None: ...
