"""A scenario's variants: run in its place, and compared with it."""

from __future__ import annotations

import argparse

from fedalt.cli.parser import chosen_overrides, overrides_of_variant
from fedalt.cli.simulate import with_variants
from fedalt.scenario import find_scenario


def test_a_variant_is_compared_with_the_scenarios_variants_not_with_its_own() -> None:
    scenario = find_scenario("unpaired_ct_mr")
    told = argparse.Namespace(variant="fedbn", overrides=["compare=[fedavg_bn]", "rounds=3"])
    main = overrides_of_variant(scenario, told)
    config = with_variants(scenario, told.overrides, main)
    other = config["compared"]["fedavg_bn"]
    assert config["phases"]["segment"]["aggregate"]["norm"] == "local"
    assert other["phases"]["segment"]["aggregate"]["norm"] == "balanced:modality"
    assert config["task"]["network"]["norm"] == other["task"]["network"]["norm"] == "batch"
    assert config["rounds"] == other["rounds"] == 3


def test_the_users_own_settings_count_more_than_a_variants() -> None:
    scenario = find_scenario("unpaired_ct_mr")
    told = argparse.Namespace(variant="alt_server", overrides=["rounds=5"])
    assert scenario.config(chosen_overrides(scenario, told))["rounds"] == 5
    none = argparse.Namespace(variant=None, overrides=["rounds=5"])
    assert chosen_overrides(scenario, none) == ["rounds=5"]
