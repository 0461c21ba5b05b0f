from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ClientReport(_message.Message):
    __slots__ = ("major", "minor", "run_id", "round", "phase", "site", "num_examples", "steps", "seconds")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    NUM_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    run_id: str
    round: int
    phase: str
    site: int
    num_examples: int
    steps: int
    seconds: float
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ..., run_id: _Optional[str] = ..., round: _Optional[int] = ..., phase: _Optional[str] = ..., site: _Optional[int] = ..., num_examples: _Optional[int] = ..., steps: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

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
