from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Applied(_message.Message):
    __slots__ = ("unit", "clip", "noise_std", "noise_multiplier", "sample_rate", "steps", "rng")
    UNIT_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    NOISE_STD_FIELD_NUMBER: _ClassVar[int]
    NOISE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    RNG_FIELD_NUMBER: _ClassVar[int]
    unit: str
    clip: float
    noise_std: float
    noise_multiplier: float
    sample_rate: float
    steps: int
    rng: str
    def __init__(self, unit: _Optional[str] = ..., clip: _Optional[float] = ..., noise_std: _Optional[float] = ..., noise_multiplier: _Optional[float] = ..., sample_rate: _Optional[float] = ..., steps: _Optional[int] = ..., rng: _Optional[str] = ...) -> None: ...

class ClientReport(_message.Message):
    __slots__ = ("major", "minor", "run_id", "round", "phase", "site", "num_examples", "steps", "seconds", "applied")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    NUM_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    run_id: str
    round: int
    phase: str
    site: int
    num_examples: int
    steps: int
    seconds: float
    applied: _containers.RepeatedCompositeFieldContainer[Applied]
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ..., run_id: _Optional[str] = ..., round: _Optional[int] = ..., phase: _Optional[str] = ..., site: _Optional[int] = ..., num_examples: _Optional[int] = ..., steps: _Optional[int] = ..., seconds: _Optional[float] = ..., applied: _Optional[_Iterable[_Union[Applied, _Mapping]]] = ...) -> None: ...

class SiteDescription(_message.Message):
    __slots__ = ("major", "minor", "index", "name", "size", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    index: int
    name: str
    size: int
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ..., index: _Optional[int] = ..., name: _Optional[str] = ..., size: _Optional[int] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...
