"""Client report and site description, to and from protobuf."""

from __future__ import annotations

from dataclasses import dataclass, fields

from google.protobuf.message import Message as ProtoMessage

from fedalt.alternation.site import Site
from fedalt.errors import WireError
from fedalt.wire.v1 import report_pb2
from fedalt.wire.version import MAJOR, MINOR, check_version


@dataclass(frozen=True)
class Applied:
    """What a site did to protect the people in its data, in one stage of a phase.

    ``clip`` is the L2 norm that bounded a contribution, ``noise_std`` the standard deviation of
    the noise that it added, ``noise_multiplier`` that over the sensitivity of its release. Each
    of ``steps`` releases drew rows with probability ``sample_rate`` (0: all of them).
    """

    unit: str
    clip: float
    noise_std: float
    noise_multiplier: float
    sample_rate: float
    steps: int
    rng: str


@dataclass(frozen=True)
class ClientReport:
    """What a site says about its answer to one phase of one round."""

    run_id: str
    round: int
    phase: str
    site: int
    num_examples: int
    steps: int
    seconds: float
    applied: tuple[Applied, ...] = ()


def encode_report(report: ClientReport) -> bytes:
    """Return the protobuf bytes of a report."""
    return report_pb2.ClientReport(
        major=MAJOR,
        minor=MINOR,
        run_id=report.run_id,
        round=report.round,
        phase=report.phase,
        site=report.site,
        num_examples=report.num_examples,
        steps=report.steps,
        seconds=report.seconds,
        applied=[report_pb2.Applied(**vars(item)) for item in report.applied],
    ).SerializeToString(deterministic=True)


def decode_report(data: bytes) -> ClientReport:
    """Read a report; raises :class:`WireError` as :func:`fedalt.wire.plan.decode_plan` does."""
    message = report_pb2.ClientReport()
    _parse(message, data, "the client report")
    check_version(message.major, message.minor, "the client report")
    return ClientReport(
        run_id=message.run_id,
        round=message.round,
        phase=message.phase,
        site=message.site,
        num_examples=message.num_examples,
        steps=message.steps,
        seconds=message.seconds,
        applied=tuple(
            Applied(**{item.name: getattr(found, item.name) for item in fields(Applied)})
            for found in message.applied
        ),
    )


def encode_site(site: Site) -> bytes:
    """Return the protobuf bytes of a site's description."""
    return report_pb2.SiteDescription(
        major=MAJOR,
        minor=MINOR,
        index=site.index,
        name=site.name,
        size=site.size,
        attributes=dict(site.attributes),
    ).SerializeToString(deterministic=True)


def decode_site(data: bytes) -> Site:
    """Read a site's description; raises :class:`WireError` likewise."""
    message = report_pb2.SiteDescription()
    _parse(message, data, "the site description")
    check_version(message.major, message.minor, "the site description")
    return Site(message.index, message.name, message.size, dict(message.attributes))


def _parse(message: ProtoMessage, data: bytes, what: str) -> None:
    try:
        message.ParseFromString(data)
    except Exception as error:
        raise WireError(f"{what} cannot be read: {error}") from error
