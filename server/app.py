"""The Flower ServerApp: builds a run from its configuration and hands it to the loop.

``app`` is what ``flwr run`` loads; a simulation makes its own with :func:`create_app`, so that
server and clients share one task. The run's folder is the only channel for results.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedalt.alternation import BlockMap, Phase, Planner, parse_schedule
from fedalt.alternation.roster import Roster
from fedalt.alternation.site import Site
from fedalt.build import TaskCache, build
from fedalt.errors import CheckpointError, ConfigError, QuorumError, WireError
from fedalt.hashing import arrays_hash
from fedalt.privacy.ledger import Ledger
from fedalt.privacy.noise import secret_integer
from fedalt.privacy.stages import any_private
from fedalt.privacy.touches import TouchLedger
from fedalt.runs.checkpoint import newest_checkpoint
from fedalt.runs.events import EventLog, Sink
from fedalt.runs.files import remove_leftovers
from fedalt.runs.folder import RunFolder
from fedalt.runs.sinks import sinks_of
from fedalt.seeds import Seeds
from fedalt.server.loop import Loop, Parts, Progress, resume
from fedalt.server.round import Federation
from fedalt.server.stopwatch import OFF, Stopwatch
from fedalt.server.strategies.blockwise import group_by_rule
from fedalt.server.strategies.book import StrategyBook
from fedalt.task import Task
from fedalt.wire.records import OURS
from fedalt.wire.report import decode_site

TaskLoader = Callable[[Mapping[str, Any]], Task]


def create_app(load_task: TaskLoader | None = None, sinks: tuple[Sink, ...] = ()) -> ServerApp:
    """Make a ServerApp; ``sinks`` hear every event beside those the configuration names."""
    load = load_task or TaskCache()
    made = ServerApp()

    @made.main()
    def main(grid: Grid, context: Context) -> None:
        config = json.loads(str(context.run_config["config"]))
        folder = RunFolder(Path(str(context.run_config["folder"])))
        with folder.lock():
            folder.set_status("running")
            try:
                _run(grid, config, folder, load(config["task"]), sinks)
            except BaseException as error:
                # On a full disk the status cannot be told; the error must be.
                with suppress(OSError):
                    folder.set_status(
                        "stopped" if isinstance(error, KeyboardInterrupt) else "failed",
                        error=f"{type(error).__name__}: {error}",
                        exit_code=getattr(error, "exit_code", 1),
                    )
                raise

    return made


def _run(
    grid: Grid, config: Mapping[str, Any], folder: RunFolder, task: Task, sinks: tuple[Sink, ...]
) -> None:
    start = time.perf_counter()
    remove_leftovers(folder.path)
    snapshot, notes = newest_checkpoint(folder.checkpoints)
    if snapshot is None and notes:
        raise CheckpointError(
            f"no checkpoint of {folder.path} can be read, so the run cannot go on: {notes[0]}; "
            f"restore one, or delete {folder.checkpoints} to begin again"
        )
    offset = snapshot.facts["events"] if snapshot is not None else 0
    log = EventLog(folder.events, offset, (*sinks, *sinks_of(config, folder)))
    try:
        for note in notes:
            log.emit("warning", text=note)
        parts, progress = _assemble(grid, config, folder, task, log)
        log.emit("begin", round=snapshot.round if snapshot else 0, rounds=config["rounds"])
        if snapshot is not None:
            progress = resume(parts, snapshot)
        loop = Loop(parts, progress, snapshot)
        if snapshot is None:
            loop.commit()
        ended = loop.run()
        loop.commit()
        now = loop.progress
        result = {
            "round": now.round,
            "ended": ended,
            "weights_sha256": arrays_hash(now.model),
            "metrics": now.history.latest(),
            "bytes_down": now.bytes_down,
            "bytes_up": now.bytes_up,
            "seconds": round(time.perf_counter() - start, 3),
        }
        if loop.engine_facts:
            result["engine"] = loop.engine_facts
        if loop.reason:
            result["reason"] = loop.reason
        if parts.ledger.facts():
            result["ledger"] = parts.ledger.facts()
            result["privacy"] = parts.ledger.spent()
        log.emit("end", **result)
        folder.write_result(result)
        folder.set_status("finished", round=now.round)
    finally:
        log.close()


def _assemble(
    grid: Grid, config: Mapping[str, Any], folder: RunFolder, task: Task, log: EventLog
) -> tuple[Parts, Progress]:
    seeds = Seeds(config["seed"])
    model = task.initial_arrays(seeds.at("initial"))
    blocks = BlockMap.of(model, task.blocks)
    schedule = parse_schedule(config["phases"], config["schedule"])
    sites, nodes = describe(grid)
    phases = list(schedule.phases())
    secret = secret_integer() if any_private(phases) else None
    planner = Planner(schedule, seeds.at("schedule"), sites, blocks, secret=secret)
    for phase in phases:
        group_by_rule(phase, blocks)
    federation = Federation(
        run_id=folder.name,
        seed=config["seed"],
        grid=grid,
        nodes=nodes,
        blocks=blocks,
        quorum=config["quorum"],
        timeout=config["engine"]["timeout"],
        local=planner.local,
    )
    strategies = StrategyBook(
        lambda: build(config["strategy"], "strategy"), blocks, planner.sites, seeds
    )
    parts = Parts(
        federation=federation,
        task=task,
        sites=planner.sites,
        planner=planner,
        strategies=strategies,
        ledger=_ledger(config, phases, planner.sites, folder, log),
        folder=folder,
        log=log,
        max_rounds=config["rounds"],
        evaluate_every=config["evaluate"]["clients_every"],
        judge_every=config["evaluate"]["server_every"],
        tell_each=config["evaluate"].get("each", False),
        commit_every=config["checkpoint"]["every"],
        keep=config["checkpoint"]["keep"],
        watch=Stopwatch() if config.get("profile") else OFF,
    )
    return parts, Progress(model=model)


def _ledger(
    config: Mapping[str, Any],
    phases: Sequence[Phase],
    sites: Roster,
    folder: RunFolder,
    log: EventLog,
) -> Ledger:
    """Open a run's ledger, and tell what a reader of its ε should know."""
    if not any_private(phases):
        return TouchLedger()
    # Accounting is slow to import, and most runs have nothing to account for.
    from fedalt.privacy.private_ledger import PrivacyLedger
    from fedalt.privacy.terms import notes_of, terms_of

    terms = terms_of(config, phases, sites)
    assert terms is not None
    for note in notes_of(terms, phases):
        log.emit("warning", text=note)
    return PrivacyLedger(terms, sites, folder.path, folder.name)


def describe(grid: Grid) -> tuple[Sequence[Site], Mapping[int, int]]:
    """Return the sites by index, and the node of each.

    An engine that knows them says so (``describe()``); of any other each node is asked.
    """
    known: Callable[[], tuple[Sequence[Site], Mapping[int, int]] | None]
    known = getattr(grid, "describe", lambda: None)
    return known() or _ask(grid)


def _ask(grid: Grid) -> tuple[list[Site], dict[int, int]]:
    """Ask every node which site it is."""
    messages = [
        Message(RecordDict({OURS: ConfigRecord()}), dst_node_id=node, message_type="query.describe")
        for node in grid.get_node_ids()
    ]
    sites: dict[int, Site] = {}
    nodes: dict[int, int] = {}
    for reply in grid.send_and_receive(messages):
        if reply.has_error():
            raise QuorumError(f"a node could not say which site it is: {reply.error.reason}")
        data = reply.content.config_records.get(OURS, ConfigRecord()).get("site")
        if not isinstance(data, bytes):
            raise WireError(
                f"node {reply.metadata.src_node_id} does not say which site it is; "
                "does it run a fedalt client?"
            )
        site = decode_site(data)
        if site.index in sites:
            raise ConfigError(f"two nodes say they are site {site.index} ('{site.name}')")
        sites[site.index], nodes[site.index] = site, reply.metadata.src_node_id
    if len(sites) < len(messages):
        raise QuorumError(f"{len(messages) - len(sites)} of {len(messages)} nodes do not answer")
    return [sites[index] for index in sorted(sites)], nodes


app = create_app()
