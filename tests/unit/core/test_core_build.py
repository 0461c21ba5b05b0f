"""Only allow-listed targets can be built, whatever their name looks like."""

from __future__ import annotations

import pytest

from fedalt.build import TaskCache, build, locate
from fedalt.errors import ConfigError


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.run",
        "builtins.eval",
        "fedalt.runs.files.os",
        "fedalt.runs.folder.metadata",
        "fedaltevil.thing",
        "fedalt.build.importlib",
        "fedalt.runs.folder.sys.exit",
        "flwr.common.logger.log",
        "",
        "fedalt",
    ],
)
def test_other_targets_are_refused(target: str) -> None:
    with pytest.raises(ConfigError):
        locate(target)


def test_an_import_made_by_an_allowed_module_is_no_way_in() -> None:
    """``fedalt.runs.folder.contextmanager`` exists there, but is defined in contextlib."""
    with pytest.raises(ConfigError, match="defined in 'contextlib'"):
        locate("fedalt.runs.folder.contextmanager")


def test_allowed_targets_are_built() -> None:
    spec = {"_target_": "flwr.serverapp.strategy.FedAvg", "fraction_train": 0.5}
    assert build(spec, "strategy").fraction_train == 0.5


def test_unknown_settings_name_the_nearest() -> None:
    spec = {"_target_": "flwr.serverapp.strategy.FedAvg", "fraction_trian": 0.5}
    with pytest.raises(
        ConfigError, match=r"unknown setting 'fraction_trian' \(did you mean 'fraction_train'"
    ):
        build(spec, "strategy")
    with pytest.raises(ConfigError, match="did you mean 'FedAvg'"):
        build({"_target_": "flwr.serverapp.strategy.FedAvgg"}, "strategy")
    with pytest.raises(ConfigError, match="strategy: '_target_' is missing"):
        build({}, "strategy")


def test_bad_values_name_the_place() -> None:
    spec = {"_target_": "flwr.serverapp.strategy.FedTrimmedAvg", "beta": 0.7}
    with pytest.raises(ConfigError, match=r"strategy: .*beta"):
        build(spec, "strategy")


def test_a_task_is_built_once() -> None:
    spec = {"_target_": "fedalt.scenarios.federated_pca.task.FederatedPCA", "data": "synthetic"}
    cache = TaskCache()
    assert cache(spec) is cache(dict(spec))
    with pytest.raises(ConfigError, match="no Task"):
        cache({"_target_": "flwr.serverapp.strategy.FedAvg"})
