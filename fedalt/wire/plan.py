"""Phase and round plan, to and from protobuf."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from fedalt.alternation.environment import Environment
from fedalt.alternation.phase import Phase, Scalar, View
from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.alternation.stream_view import StreamView
from fedalt.errors import ScheduleError, WireError
from fedalt.wire.v1 import plan_pb2
from fedalt.wire.version import MAJOR, MINOR, check_version


@dataclass(frozen=True)
class RoundPlan:
    """What one phase asks of its sites in one round.

    ``extension`` keeps the message as it came, so that passing a plan on loses no field a
    newer version may have added.
    """

    run_id: str
    round: int
    seed: int
    phase: Phase
    returns: tuple[str, ...]
    keeps: tuple[str, ...] = ()
    extension: bytes = field(default=b"", compare=False, repr=False)


def encode_plan(plan: RoundPlan) -> bytes:
    """Return the protobuf bytes of a plan; one passed on unchanged keeps unknown fields."""
    if plan.extension and replace(plan, extension=b"") == _known_part(plan.extension):
        return plan.extension
    message = plan_pb2.RoundPlan(major=MAJOR, minor=MINOR)
    message.run_id, message.round, message.seed = plan.run_id, plan.round, plan.seed
    message.phase.CopyFrom(_phase_to_proto(plan.phase))
    message.returns.extend(plan.returns)
    message.keeps.extend(plan.keeps)
    return message.SerializeToString(deterministic=True)


def decode_plan(data: bytes) -> RoundPlan:
    """Read a plan.

    Raises :class:`WireError` for bytes that are no plan and for another major version.
    """
    plan = _known_part(data)
    return replace(plan, extension=data)


def _known_part(data: bytes) -> RoundPlan:
    message = plan_pb2.RoundPlan()
    try:
        message.ParseFromString(data)
    except Exception as error:
        raise WireError(f"the round plan cannot be read: {error}") from error
    check_version(message.major, message.minor, "the round plan")
    try:
        phase = _phase_from_proto(message.phase)
    except ScheduleError as error:
        raise WireError(f"the round plan holds no sound phase: {error}") from error
    return RoundPlan(
        run_id=message.run_id,
        round=message.round,
        seed=message.seed,
        phase=phase,
        returns=tuple(message.returns),
        keeps=tuple(message.keeps),
    )


def _scalar_to_proto(value: Scalar) -> plan_pb2.Scalar:
    if isinstance(value, bool):
        return plan_pb2.Scalar(flag=value)
    if isinstance(value, int):
        return plan_pb2.Scalar(integer=value)
    if isinstance(value, float):
        return plan_pb2.Scalar(number=value)
    return plan_pb2.Scalar(text=value)


def _scalar_from_proto(key: str, scalar: plan_pb2.Scalar) -> Scalar:
    kind = scalar.WhichOneof("value")
    if kind is None:
        raise WireError(f"the round plan's parameter '{key}' has no value this version knows")
    value: Scalar = getattr(scalar, kind)
    return value


def _stream_to_proto(stream: StreamView | None) -> plan_pb2.StreamView | None:
    if stream is None:
        return None
    return plan_pb2.StreamView(
        tasks=stream.tasks,
        experience=stream.experience,
        new=stream.new,
        rehearsal=stream.rehearsal,
        environments=[plan_pb2.Environment(**vars(item)) for item in stream.environments],
        order=stream.order,
        budget=stream.budget,
        first=stream.first,
    )


def _stream_from_proto(message: plan_pb2.StreamView) -> StreamView:
    return StreamView(
        tasks=tuple(message.tasks),
        experience=message.experience,
        new=message.new,
        rehearsal=message.rehearsal,
        environments=tuple(
            Environment(item.kind, item.exponent, item.scale, item.p_new)
            for item in message.environments
        ),
        order=message.order,
        budget=message.budget,
        first=message.first,
    )


def _privacy_to_proto(spec: PrivacySpec | None) -> plan_pb2.PrivacySpec | None:
    return None if spec is None else plan_pb2.PrivacySpec(**spec.to_dict())


def _privacy_from_proto(message: plan_pb2.PrivacySpec) -> PrivacySpec:
    values = {item.name: getattr(message, item.name) for item in fields(PrivacySpec)}
    return PrivacySpec(**{**values, "clips": dict(sorted(message.clips.items()))})


def _phase_to_proto(phase: Phase) -> plan_pb2.Phase:
    return plan_pb2.Phase(
        name=phase.name,
        kernel=phase.kernel,
        train=phase.train,
        send=phase.send,
        epochs=phase.epochs,
        steps=phase.steps,
        batch_size=phase.batch_size,
        modality=phase.modality,
        task=phase.task,
        params={key: _scalar_to_proto(value) for key, value in phase.params.items()},
        aggregate=dict(phase.aggregate),
        view_fraction=phase.view.fraction,
        branch=phase.branch,
        inner=[_phase_to_proto(inner) for inner in phase.inner],
        view_stream=_stream_to_proto(phase.view.stream),
        view_slices=phase.view.slices,
        privacy=_privacy_to_proto(phase.privacy),
    )


def _phase_from_proto(message: plan_pb2.Phase) -> Phase:
    return Phase(
        name=message.name,
        kernel=message.kernel,
        train=tuple(message.train),
        send=tuple(message.send),
        epochs=message.epochs,
        steps=message.steps,
        batch_size=message.batch_size,
        modality=message.modality,
        task=message.task,
        params={
            key: _scalar_from_proto(key, message.params[key]) for key in sorted(message.params)
        },
        aggregate=dict(sorted(message.aggregate.items())),
        view=View(
            message.view_fraction,
            _stream_from_proto(message.view_stream) if message.HasField("view_stream") else None,
            tuple(message.view_slices),
        ),
        branch=message.branch,
        inner=tuple(_phase_from_proto(inner) for inner in message.inner),
        privacy=_privacy_from_proto(message.privacy) if message.HasField("privacy") else None,
    )
