"""A site's half of a secure aggregation: it sends keys, shares and one masked vector, no more.

    advertise → share → mask → unmask

(Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning",
protocol 4.) The server is trusted to follow the protocol and to be curious: it could hand out
public keys of its own making, against which sites would need signatures of someone they all
trust. What a site can see by itself it checks: a cohort of three or more, a threshold above
half of it, the same round, phase and roster from step to step, and that no site's seed and
masking key are both asked of it, nor anything twice.

What is secret lives in the node's ``Context`` for the length of one sum, beside the arrays that
a checkpoint saves and never among them, and goes with the last step, a new sum or a later round.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from flwr.app import Context, Message

from fedalt.alternation.privacy_spec import PrivacySpec
from fedalt.clients.kernels.base import Order, SiteContext, Work
from fedalt.clients.secure_update import encode_update
from fedalt.errors import ConfigError, WireError
from fedalt.secagg.keys import KEY, agree, commitment, new_pair, new_seed, seal, unseal
from fedalt.secagg.masks import mask
from fedalt.secagg.messages import (
    CALL,
    MASK,
    SHARE,
    UNMASK,
    VECTOR,
    Call,
    Claim,
    Keys,
    Masked,
    Roster,
    Routed,
    Sealed,
    Session,
    Shares,
    content_of,
    from_record,
    read,
    to_record,
)
from fedalt.secagg.shamir import SHARE as SHARE_BYTES
from fedalt.secagg.shamir import split
from fedalt.secagg.threshold import threshold
from fedalt.wire.arrays import record_of
from fedalt.wire.messages import reply_with
from fedalt.wire.records import OURS

MASKED_TYPE = f"train.{MASK}"
"""The type of the message that trains and asks for the masked vector."""
ADVERTISED, SHARED, SENT, ANSWERED = "advertised", "shared", "masked", "answered"
HELD = "fedalt.secagg"
"""The record of ``context.state`` that holds what a sum needs between its steps."""
_AFTER = {ADVERTISED: SHARE, SHARED: MASK, SENT: UNMASK, ANSWERED: "nothing more"}


@dataclass(frozen=True)
class Held(Session):
    """What a site holds between the steps of one sum; empty where it is not needed (any more)."""

    stage: str
    sites: int
    threshold: int
    sealing: bytes
    masking: bytes
    seed: bytes = b""
    own_shares: bytes = b""
    roster: tuple[int, ...] = ()
    sealing_keys: tuple[bytes, ...] = ()
    masking_keys: tuple[bytes, ...] = ()
    senders: tuple[int, ...] = ()
    boxes: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Held({self}, stage={self.stage!r})"


def advertise(message: Message, context: Context) -> Message:
    """Answer a call with two fresh public keys; whatever was held of another sum goes."""
    call = read(Call, message.content)
    forget(context)
    if call.threshold > call.sites or call.threshold < threshold(call.sites, 1.0):
        raise ConfigError(
            f"{call}: a secure sum of {call.sites} sites with a threshold of {call.threshold} "
            f"hides nobody; at least {threshold(call.sites, 1.0)} have to survive"
        )
    sealing, masking = new_pair(), new_pair()
    _hold(
        context,
        Held(
            *call.names(), ADVERTISED, call.sites, call.threshold, sealing.private, masking.private
        ),
    )
    keys = Keys(*call.names(), _site(context), sealing.public, masking.public)
    return reply_with(content_of(keys), message)


def share(message: Message, context: Context) -> Message:
    """Seal a share of the masking key and one of a fresh seed for each other site."""
    roster = read(Roster, message.content)
    held, me = _held(context, ADVERTISED, roster), _site(context)
    _check_roster(roster, held, me)
    points = [site + 1 for site in roster.sites]
    seed = new_seed()
    of_key = split(held.masking, held.threshold, points)
    of_seed = split(seed, held.threshold, points)
    boxes, own = [], b""
    for site, public, first, second in zip(
        roster.sites, roster.sealing, of_key, of_seed, strict=True
    ):
        if site == me:
            own = first + second
            continue
        key = agree(held.sealing, public, held.label("seal", *sorted((me, site))))
        boxes.append(seal(key, first + second, held.label("box", me, site)))
    _hold(
        context,
        replace(
            held,
            stage=SHARED,
            seed=seed,
            own_shares=own,
            roster=roster.sites,
            sealing_keys=roster.sealing,
            masking_keys=roster.masking,
        ),
    )
    digest = commitment(seed, held.label("seed", me))
    return reply_with(content_of(Sealed(*roster.names(), me, tuple(boxes), digest)), message)


def mask_work(
    message: Message, context: Context, order: Order, site: SiteContext, work: Work
) -> Message:
    """Answer with a kernel's clipped, weighted and noised update under masks, and nothing else."""
    routed = read(Routed, message.content)
    held = _held(context, SHARED, Session(order.run_id, order.round, order.phase.name))
    shared = sorted((*routed.senders, site.site))
    _check_routed(routed, held, site.site)
    spec = _spec(order, held)
    vector = encode_update(order, site, work, spec, held.sites)
    keys = dict(zip(held.roster, held.masking_keys, strict=True))
    pairs = {
        other: agree(held.masking, keys[other], held.label("mask", *sorted((site.site, other))))
        for other in shared
        if other != site.site
    }
    masked = mask(vector, site.site, held.seed, pairs)
    # From here on the site needs nothing that unmasks it by itself.
    _hold(
        context,
        replace(
            held,
            stage=SENT,
            masking=b"",
            seed=b"",
            masking_keys=(),
            senders=routed.senders,
            boxes=routed.boxes,
        ),
    )
    content = content_of(Masked(*held.names(), site.site))
    content["arrays"] = record_of({VECTOR: masked})
    return reply_with(content, message)


def unmask(message: Message, context: Context) -> Message:
    """Give up shares: of survivors' seeds and of lost sites' masking keys, once."""
    claim = read(Claim, message.content)
    held, me = _held(context, SENT, claim), _site(context)
    survivors, lost = set(claim.survivors), set(claim.lost)
    if both := survivors & lost:
        raise WireError(f"{claim}: both secrets are asked of site {min(both)}, which unmasks it")
    twice = len(claim.survivors) + len(claim.lost) > len(survivors) + len(lost)
    if twice or survivors | lost != {*held.senders, me} or me not in survivors:
        raise WireError(f"{claim}: survivors and lost are not the sites that site {me} heard from")
    if len(survivors) < held.threshold:
        raise WireError(
            f"{claim}: {len(survivors)} sites are in the sum, at least {held.threshold} must be"
        )
    boxes = dict(zip(held.senders, held.boxes, strict=True))
    publics = dict(zip(held.roster, held.sealing_keys, strict=True))

    def opened(site: int) -> bytes:
        if site == me:
            return held.own_shares
        try:
            key = agree(held.sealing, publics[site], held.label("seal", *sorted((me, site))))
            text = unseal(key, boxes[site], held.label("box", site, me))
        except WireError:
            return b""
        return text if len(text) == 2 * SHARE_BYTES else b""

    shares = Shares(
        *claim.names(),
        me,
        seeds=tuple(opened(site)[SHARE_BYTES:] for site in claim.survivors),
        keys=tuple(opened(site)[:SHARE_BYTES] for site in claim.lost),
    )
    _hold(context, Held(*held.names(), ANSWERED, held.sites, held.threshold, b"", b""))
    return reply_with(content_of(shares), message)


STEPS = {CALL: advertise, SHARE: share, UNMASK: unmask}
"""What answers each step that needs no kernel, by the action of its message."""


def is_masked(message: Message, order: Order) -> bool:
    """Say whether a work's answer goes under masks.

    Raises :class:`ConfigError` where message and phase disagree: such a phase's updates leave
    in no other way.
    """
    spec = order.phase.privacy
    kind = message.metadata.message_type
    asked = kind == MASKED_TYPE
    # An evaluation returns no arrays; a message of its type that asks for some is none.
    travels = bool(order.returns) or kind != "evaluate"
    wanted = travels and spec is not None and spec.trust == "distributed"
    if wanted != asked:
        how = "sends updates by secure aggregation alone" if wanted else "has no secure aggregation"
        raise ConfigError(f"phase '{order.phase.name}' {how}, but the message is of type '{kind}'")
    return wanted


def broadcast_of(message: Message) -> object:
    """Return what messages of one broadcast share: their content, or the plan in it."""
    content = message.content
    return content.get(OURS, content) if message.metadata.message_type == MASKED_TYPE else content


def forget(context: Context) -> None:
    """Drop what is held."""
    if HELD in context.state:
        del context.state[HELD]


def forget_former(context: Context, order: Order) -> None:
    """Drop what is held of another run or round than an order's."""
    if HELD in context.state:
        held = from_record(Held, context.state[HELD])
        if (held.run_id, held.round) != (order.run_id, order.round):
            forget(context)


def _hold(context: Context, held: Held) -> None:
    context.state[HELD] = to_record(held)


def _held(context: Context, stage: str, asked: Session) -> Held:
    """Return what is held for a step; raises :class:`WireError` where another one is due."""
    if HELD not in context.state:
        raise WireError(f"{asked}: this site holds nothing of that sum; call it first")
    held = from_record(Held, context.state[HELD])
    if held.names() != asked.names():
        raise WireError(f"{asked} was asked, but this site is in {held}")
    if held.stage != stage:
        raise WireError(
            f"{asked}: this site has {held.stage} and answers {_AFTER[held.stage]}, "
            f"it was asked for {_AFTER[stage]}"
        )
    return held


def _check_roster(roster: Roster, held: Held, me: int) -> None:
    sites, keys = roster.sites, (*roster.sealing, *roster.masking)
    wanted = (len(sites), 2 * len(sites))
    ascending = all(a < b for a, b in pairwise(sites))
    if not ascending or (len(roster.sealing), len(keys)) != wanted or me not in sites:
        raise WireError(f"{roster}: the roster is out of order, or lacks keys or site {me}")
    if not held.threshold <= len(sites) <= held.sites:
        raise WireError(
            f"{roster}: the roster is of {len(sites)} sites, of {held.sites} at least "
            f"{held.threshold} must be in"
        )
    if len(set(keys)) < len(keys) or not all(len(key) == KEY for key in keys):
        raise WireError(f"{roster}: public keys are of {KEY} bytes and of one site each")


def _check_routed(routed: Routed, held: Held, me: int) -> None:
    senders = set(routed.senders)
    odd = len(senders) < len(routed.senders) or len(routed.boxes) != len(senders)
    if odd or not senders <= set(held.roster) - {me} or len(senders) + 1 < held.threshold:
        raise WireError(
            f"{held}: {len(senders)} other sites and {len(routed.boxes)} boxes were routed, of a "
            f"roster of {len(held.roster)}; at least {held.threshold} sites have to share"
        )


def _spec(order: Order, held: Held) -> PrivacySpec:
    """Return the phase's spec; raises :class:`WireError` if the call was on other terms."""
    spec = order.phase.privacy
    assert spec is not None
    wanted = threshold(held.sites, spec.dropouts)
    if held.threshold != wanted:
        raise WireError(
            f"{held}: the call's threshold was {held.threshold}, the phase's dropouts="
            f"{spec.dropouts:g} make it {wanted}"
        )
    return spec


def _site(context: Context) -> int:
    return int(context.node_config["partition-id"])
