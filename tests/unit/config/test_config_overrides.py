"""Overrides and settings: what is understood, and what each mistake is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedalt.config import load_config
from fedalt.errors import ConfigError
from fedalt.scenario import find_scenario, installed_scenarios

YAML = """\
name: mine
task: {_target_: fedalt.scenarios.fedavg_mnist.task.DigitsTask, clients: 4, seed: "${seed}"}
phases:
  body: {train: body, clients: {mode: fixed, count: 2}}
  head: {train: head}
schedule: {chain: [body, {repeat: {of: head, times: 3}}]}
strategy: {_target_: flwr.serverapp.strategy.FedAvg}
variants: {short: [rounds=1]}
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "scenario.yaml").write_text(YAML)
    return folder


def value(config: dict[str, Any], key: str) -> Any:
    found: Any = config
    for part in key.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


@pytest.mark.parametrize(
    ("overrides", "key", "expected"),
    [
        (["seed=7"], "task.seed", 7),
        (["evaluate.clients_every=2"], "evaluate.clients_every", 2),
        (["evaluate={clients_every: 2}"], "evaluate.server_every", 1),
        (["+task.model=cnn"], "task.model", "cnn"),
        (["+task.model=cnn", "task.model=mlp"], "task.model", "mlp"),
        (
            ["~task.clients"],
            "task",
            {"_target_": "fedalt.scenarios.fedavg_mnist.task.DigitsTask", "seed": 0},
        ),
        (["~seed"], "seed", 0),
        (["phases.body.epochs=3"], "phases.body.epochs", 3),
        (["phases.head.clients.rate=0.5"], "phases.head.clients", {"rate": 0.5}),
        (["schedule={repeat: {of: head}}"], "schedule", {"repeat": {"of": "head"}}),
        (["schedule=head"], "schedule", "head"),
        (
            ["schedule={cycle: [body]}", "schedule.cycle=[body, head]"],
            "schedule",
            {"cycle": ["body", "head"]},
        ),
        (
            ["schedule.chain.1.repeat.times=9"],
            "schedule.chain.1.repeat",
            {"of": "head", "times": 9},
        ),
        (
            ["schedule.chain.1.repeat.of={chain: [head, body]}"],
            "schedule.chain.1.repeat.of",
            {"chain": ["head", "body"]},
        ),
        (
            ["phases.body.clients={mode: poisson, rate: 0.5}"],
            "phases.body.clients",
            {"mode": "poisson", "count": 2, "rate": 0.5},
        ),
        (
            ["+phases.tail={train: head}", "phases.tail.train=body"],
            "phases.tail",
            {"train": "body"},
        ),
        (["variants.short=['task.clients=2']"], "variants.short", ["task.clients=2"]),
    ],
)
def test_overrides_do_what_they_say(
    mine: Path, overrides: list[str], key: str, expected: object
) -> None:
    assert value(load_config(mine, overrides), key) == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", r"^'seed' is no override; write key=value, such as seed=1$"),
        ("=3", r"'=3' is no override"),
        ("sed=1", r"unknown override 'sed' \(did you mean 'seed'\?\)"),
        ("task.cleints=3", r"'task.cleints' \(did you mean 'clients'\?\); .* \+task.cleints=3"),
        ("phases.body.epoch=3", r"'phases.body.epoch' \(did you mean 'epochs'\?\)"),
        ("phases.bdy.epochs=3", r"unknown override 'phases.bdy.epochs' \(did you mean"),
        ("strategy.foo=1", r"'strategy.foo' \(known: _target_\)"),
        ("+foo=1", r"unknown override 'foo'"),
        ("~task.nope", r"override '~task.nope': there is no 'task.nope' to take away"),
        ("task/clients=3", r"unknown override 'task/clients'"),
        ("seed=1,2", r"'seed=1,2' holds several values, and a run takes one; .*seed=\[…\]"),
        ("schedule={chain: [body", r"cannot be read .*mappings \{key: value\}.*quotes"),
        ("variants.short=[a.b=c]", r"'variants.short=\[a.b=c\]' cannot be read .*quotes"),
        ("rounds=abc", r"rounds: .*'abc'.* Integer \(set by 'rounds=abc'\)"),
        ("rounds=0", r"rounds=0: must be at least 1"),
        ("seed=-1", r"seed=-1: must be from 0 to 2\^63"),
        ("quorum=0", r"quorum=0.0: must be in \(0, 1\]"),
        ("quorum=nan", r"quorum=nan: must be in \(0, 1\]"),
        ("engine.name=warp", r"engine.name='warp': must be"),
        ("engine.timeout=-1", r"engine.timeout=-1.0: must be null .* or more than 0"),
        ("checkpoint=3", r"checkpoint: entries 'name: value' expected, .* 3 \(set by"),
        (
            "privacy.budget=3",
            r"^privacy\.budget: entries 'unit: ε' expected, such as \{client: 8\}, .* 3 \(set by",
        ),
        (
            "privacy.budget=[client]",
            r"^privacy\.budget: entries 'unit: ε' .* \['client'\] \(set by",
        ),
        ("evaluate.foo=1", r"'evaluate.foo' \(known: clients_every, each, server_every\)"),
        ("watch=x", r"watch: a list such as \[a, b\] expected, but here is 'x'"),
        ("name=a/b", r"name='a/b': must be letters"),
        ("out=", r"out='': must be the folder"),
        ("name=${sed}", r"name: Interpolation key 'sed' not found \(set by"),
        ("schedule=null", r"schedule=None: must be given"),
        ("compare=[lang]", r"compare: unknown variant 'lang'"),
        ("variants.short=3", r"variants.short: a list of overrides expected, .*here is 3"),
    ],
)
def test_a_wrong_override_is_named_with_what_to_do(mine: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(mine, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [a\nseed: 1\n", r"scenario.yaml, line 2, column 5 is no YAML: .*flow sequence"),
        ("name: a\n\tseed: 1\n", r"scenario.yaml, line 2, column 1 is no YAML"),
        ("- a\n", r"scenario.yaml holds no settings; it needs task, phases, schedule, strategy"),
        ("", r"scenario.yaml holds no settings"),
        (YAML + "sheduel: 3\n", r"scenario.yaml: unknown key 'sheduel' \(did you mean 'schedule'"),
        (YAML + "rounds: many\n", r"rounds: .*'many'.* Integer \(.*scenario.yaml\)"),
        (YAML + "vars: [1]\n", r"vars: entries 'name: value' expected, .*scenario.yaml\)"),
        (
            YAML + "name: again\n",
            r"scenario.yaml, line \d+, column 1 is no YAML: .*duplicate key name",
        ),
    ],
)
def test_a_wrong_file_is_named_with_its_place(mine: Path, text: str, message: str) -> None:
    (mine / "scenario.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(mine)


def test_a_file_of_another_encoding(mine: Path) -> None:
    (mine / "scenario.yaml").write_bytes("summary: né\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"no UTF-8 text \(byte 10\); save it as UTF-8"):
        load_config(mine)


def test_scenarios_are_found_by_name_and_by_folder(mine: Path) -> None:
    assert {"federated_pca", "fedavg_mnist"} <= set(installed_scenarios())
    assert find_scenario(str(mine)).config()["name"] == "mine"
    with pytest.raises(ConfigError, match=r"unknown scenario 'fedavg' \(did you mean 'fedavg_mn"):
        find_scenario("fedavg")
    with pytest.raises(ConfigError, match=r"the folder '.*' holds no scenario.yaml"):
        find_scenario(str(mine.parent))


@pytest.mark.parametrize("name", sorted(installed_scenarios()))
def test_every_variant_of_every_scenario_resolves(name: str) -> None:
    scenario = find_scenario(name)
    for overrides in scenario.config()["variants"].values():
        assert scenario.config([*overrides, "compare=[]"])["phases"]
