"""Every mistake is told what, where and what to do; has its exit code; and leaves no run."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from e2e_command import DIGITS, PCA, Command

from fedalt.data.nsl_kdd_names import COLUMNS

CONFIG, DATA = 2, 3


def refused(command: Command, words: tuple[str, ...], code: int, message: str) -> None:
    told = command("simulate", *words)
    assert told.code == code, told.err
    assert re.search(message, told.err), told.err
    assert told.err.startswith("fedalt: ") and "Traceback" not in told.err
    assert told.out == ""
    assert command.runs() == [], "a run that cannot begin leaves no folder"


@pytest.mark.parametrize(
    ("override", "code", "message"),
    [
        ("task.rank=35", CONFIG, r"task.* 35 dimensions .* 34; choose .* between 1 and 3"),
        ("task.clients=30000", DATA, r"30000 clients .* 20000 rows; ask for fewer clients"),
        ("task.clients=0", CONFIG, r"task: clients is 0, but must be at least 1"),
        ("task.clients=many", CONFIG, r"task.clients='many': a whole number expected"),
        ("task.feature=weight", DATA, r"no feature 'weight'"),
        ("task.partition=srted", CONFIG, r"task.partition: .*'srted' \(did you mean 'sorted'"),
        ("task._target_=os.system", CONFIG, r"'os.system' may not be built: allowed are fedalt"),
        ("task._target_=fedalt.nope.X", CONFIG, r"'fedalt.nope.X' cannot be imported"),
        (
            "schedule={chain: [curvatur]}",
            CONFIG,
            r"schedule.chain\[0\]: .*did you mean 'curvature'",
        ),
        ("schedule={chian: [curvature]}", CONFIG, r"schedule: unknown .*did you mean 'chain'"),
        ("schedule={chain: [curvature", CONFIG, r"cannot be read .*quotes of its own"),
        ("sed=1", CONFIG, r"unknown override 'sed' \(did you mean 'seed'\?\)"),
        ("phases.curvature.send=penlty", CONFIG, r"phase 'curvature', send: .*no block 'penlty' "),
        (
            "phases.curvature.kernel=curvture",
            CONFIG,
            r"'curvature': unknown kernel 'curvture' \(did",
        ),
        (
            "phases.consensus.aggregate.subspace=consenus",
            CONFIG,
            r"phase 'consensus', block 'subspace': .*'consenus' \(did you mean 'consensus'",
        ),
        ("phases.consensus.steps=x", CONFIG, r"phases.consensus.steps='x': a whole number"),
        ("phases.consensus.clients.rate=x", CONFIG, r"phases.consensus.clients.rate='x': a number"),
        (
            "strategy._target_=flwr.serverapp.strategy.FedAvgg",
            CONFIG,
            r"has no 'FedAvgg' \(did you mean 'FedAvg'",
        ),
        ("strategy._target_=os.system", CONFIG, r"'os.system' may not be built"),
        ("strategy._target_=fedalt.seeds.Seeds", CONFIG, r"fedalt.seeds.Seeds is no Flower strat"),
        (
            "strategy._target_=flwr.serverapp.strategy.FedMedian",
            CONFIG,
            r"aggregate names rules .* ~phases.standardise.aggregate",
        ),
        ("+strategy.foo=1", CONFIG, r"strategy: unknown setting 'foo'"),
        ("rounds=abc", CONFIG, r"rounds: .*Integer \(set by 'rounds=abc'\)"),
        ("seed=-1", CONFIG, r"seed=-1: must be from 0"),
        ("quorum=0", CONFIG, r"quorum=0.0: must be in \(0, 1\]"),
        ("seed", CONFIG, r"'seed' is no override; write key=value"),
        ("engine.device=tpu", CONFIG, r"engine.device='tpu': not to be had here .*device=cpu"),
        ("report=os:system", CONFIG, r"report='os:system': a function of an installed scenario"),
        (
            "report=fedalt.scenarios.federated_pca.report:wrte",
            CONFIG,
            r"no function 'wrte' \(did you mean 'write'",
        ),
        ("report=fedalt.scenarios.nope:write", CONFIG, r"No module named .*report=null"),
    ],
)
def test_a_setting_that_cannot_be(command: Command, override: str, code: int, message: str) -> None:
    refused(command, (*PCA, override), code, message)


@pytest.mark.parametrize(
    ("override", "code", "message"),
    [
        ("task.clients=501", DATA, r"501 clients cannot be made of 500 rows; ask for fewer"),
        ("phases.train.clients.count=50", CONFIG, r"phase 'train', clients: 50 needed, but 5 of 5"),
        (
            "phases.train.train=haed",
            CONFIG,
            r"phase 'train', train: .*'haed' \(did you mean 'head'",
        ),
        (
            "phases.train.clients.count=1",
            CONFIG,
            r"round 1, phase 'train': .* selects 1 client, but",
        ),
    ],
)
def test_a_federation_that_cannot_be(
    command: Command, override: str, code: int, message: str
) -> None:
    refused(command, (*DIGITS, override), code, message)


def test_a_poisson_draw_that_will_be_too_small_is_foreseen(command: Command) -> None:
    words = (*DIGITS, "rounds=50", "phases.train.clients={mode: poisson, rate: 0.2}")
    message = (
        r"round \d+, phase 'train': .* 1 client, .* waits for 2 .*\+\+strategy.min_train_nodes"
    )
    refused(command, words, CONFIG, message)
    allowed = ("++strategy.min_train_nodes=1", "++strategy.min_available_nodes=1")
    assert command("simulate", *words, *allowed, "rounds=4").code == 0


def test_a_mistake_in_a_variant_names_the_variant(command: Command) -> None:
    compare = ("compare=[odd]", "++variants.odd=['phases.curvature.kernel=curvture']")
    message = r"variant 'odd': phase 'curvature': unknown kernel 'curvture'"
    refused(command, (*PCA, *compare), CONFIG, message)
    compare = ("compare=[odd]", "++variants.odd=['task.rnk=3']")
    refused(command, (*PCA, *compare), CONFIG, r"variant 'odd': unknown override 'task.rnk'")
    refused(command, (*PCA, "compare=[fedp]"), CONFIG, r"unknown variant 'fedp' \(did you mean")


def test_an_empty_client(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def split(*_: object) -> list[np.ndarray]:
        return [np.arange(400), np.arange(0), np.arange(400, 500)]

    monkeypatch.setattr("fedalt.scenarios.fedavg_mnist.task.split", split)
    message = r"1 of 3 sites hold no rows to learn from \('client-1'\); ask for fewer clients"
    refused(command, DIGITS, DATA, message)


def record(**values: str) -> str:
    fields = dict.fromkeys(COLUMNS, "0")
    fields |= {"protocol_type": "tcp", "service": "http", "flag": "SF", "label": "normal"}
    return ",".join({**fields, **values}.values())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([record(), record() + ",1"], r"KDDTrain\+.txt', line 2: 44 columns, expected 43"),
        ([record(), record(hot="nan")], r"line 2, column 'hot': 'nan' is not a finite number"),
        ([record(), record(label="neptun")], r"line 2: unknown attack 'neptun' \(did you mean"),
        ([record(), record()[:-20]], r"line 2: the last line is incomplete, .* truncated"),
        ([], r"KDDTrain\+.txt' is empty"),
    ],
)
def test_a_bad_row(
    command: Command, monkeypatch: pytest.MonkeyPatch, lines: list[str], message: str
) -> None:
    monkeypatch.setattr("fedalt.data.nsl_kdd.PUBLISHED_ROWS", {})
    Path("KDDTrain+.txt").write_text("\n".join(lines))
    Path("KDDTest+.txt").write_text(record() + "\n")
    refused(command, (*PCA, "task.data=nsl_kdd", "task.root=."), DATA, message)


def test_a_data_folder_that_is_not_there(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    message = r"the data folder '/nowhere' named by \S+ does not exist; create it, correct"
    refused(command, (*PCA, "task.data=nsl_kdd", "task.root=/nowhere"), DATA, message)
    message = r"NSL-KDD's KDDTrain\+ was not found in .*Request .*FEDALT_DATA"
    refused(command, (*PCA, "task.data=nsl_kdd"), DATA, message)
    monkeypatch.setenv("FEDALT_DATA", "/nowhere")
    message = r"'/nowhere' named by FEDALT_DATA does not exist"
    refused(command, (*PCA, "task.data=auto"), DATA, message)


def test_a_truncated_file(command: Command) -> None:
    Path("KDDTrain+.txt").write_text(record() + "\n")
    words = (*PCA, "task.data=nsl_kdd", "task.root=.")
    refused(command, words, DATA, r"KDDTrain\+.txt' is truncated: 1 rows, published are 125973")
    Path("NSL_KDD.zip").write_bytes(b"PK\x03\x04 half an archive")
    refused(command, words, DATA, r"NSL_KDD.zip' is damaged or truncated")


def test_a_scenario_that_is_not_there(command: Command) -> None:
    refused(
        command, ("fedavg",), CONFIG, r"unknown scenario 'fedavg' \(did you mean 'fedavg_mnist'"
    )
    refused(command, (".",), CONFIG, r"the folder '.' holds no scenario.yaml")


def test_a_scenario_of_ones_own_with_a_mistake(command: Command) -> None:
    folder = Path("mine")
    folder.mkdir()
    (folder / "scenario.yaml").write_text("name: mine\nphases: {a: [}\n")
    refused(command, ("./mine",), CONFIG, r"mine/scenario.yaml, line 2, column \d+ is no YAML")
    (folder / "scenario.yaml").write_text("name: mine\nphasse: {}\n")
    refused(command, ("./mine",), CONFIG, r"unknown key 'phasse' \(did you mean 'phases'\?\)")


def test_a_place_that_cannot_be_written(command: Command) -> None:
    Path("taken").write_text("a file")
    message = r"out=taken.*: no run can be kept there \(.+\); name another place"
    refused(command, (*PCA, "out=taken"), CONFIG, message)
    refused(command, (*PCA, "out=taken/below"), CONFIG, message)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place(command: Command) -> None:
    Path("closed").mkdir(mode=0o555)
    message = r"out=closed: no run can be kept there \(Permission denied\)"
    refused(command, (*PCA, "out=closed"), CONFIG, message)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "plan.xyz",
            r"--plot plan.xyz: unknown kind of picture '.xyz' \(known: .pdf, .png, .svg\)",
        ),
        ("plan", r"unknown kind of picture '' \(use .png, .svg, .pdf\)"),
        ("gone/plan.png", r"there is no folder 'gone'; make it first"),
        ("folder.png", r"that is a folder; name a file in it"),
    ],
)
def test_a_picture_that_cannot_be_drawn(command: Command, target: str, message: str) -> None:
    Path("folder.png").mkdir()
    told = command("plan", *PCA, "--plot", target)
    assert told.code == CONFIG and re.search(message, told.err), told.err
    assert [path.name for path in Path().iterdir()] == ["folder.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("smulate",), r"fedalt: unknown command 'smulate' \(did you mean 'simulate'\?\); see: "),
        (("simulate",), r"fedalt simulate: .* required: scenario; see: fedalt simulate --help"),
        (("simulate", "fedavg_mnist", "--jsn"), r"unknown option --jsn \(did you mean '--json'"),
        (("simulate", "fedavg_mnist", "--json=3"), r"--json"),
        (("runs",), r"fedalt runs: .*required: VERB; see: fedalt runs --help"),
        (("runs", "lst"), r"unknown command 'lst' \(did you mean 'list'"),
        (("runs", "list", "more"), r"unrecognized arguments: more; see: fedalt runs list --help"),
        (("--nope",), r"unknown option --nope"),
    ],
)
def test_a_command_line_that_cannot_be(
    command: Command, words: tuple[str, ...], message: str
) -> None:
    told = command(*words)
    assert told.code == CONFIG and re.search(message, told.err), told.err
    assert len(told.err.splitlines()) == 1 and told.out == ""
