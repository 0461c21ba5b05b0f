"""Settings against annotations: simple types are judged, all else is let through."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fedalt.cli.values import check_values
from fedalt.errors import ConfigError
from fedalt.runs.plan import amount


class Takes:
    def __init__(
        self,
        clients: int = 1,
        alpha: float = 0.5,
        root: str | None = None,
        flag: bool = False,
        rule: Callable[[int], int] | None = None,
        sizes: list[int] | None = None,
    ) -> None: ...


@pytest.mark.parametrize(
    "values",
    [
        {"clients": 3, "alpha": 1, "root": None, "flag": True},
        {"alpha": 0.3, "root": "data"},
        {"rule": "anything", "sizes": "anything", "unheard": 3},
    ],
)
def test_values_that_fit_pass(values: dict[str, object]) -> None:
    check_values(Takes, values, "task")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("clients", "abc", r"task.clients='abc': a whole number expected"),
        ("clients", 1.5, r"task.clients=1.5: a whole number expected"),
        ("clients", True, r"task.clients=True: a whole number expected"),
        ("alpha", None, r"task.alpha=None: a number expected"),
        ("root", 3, r"task.root=3: a text or null expected"),
        ("flag", 1, r"task.flag=1: true or false expected"),
    ],
)
def test_values_that_do_not_fit_are_named(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_values(Takes, {key: value}, "task")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (10_900, "10.9 kB"),
        (999_499, "999 kB"),
        (999_600, "1.00 MB"),
        (3.19e6, "3.19 MB"),
        (2e12, "2.00 TB"),
        (5e15, "5.00 PB"),
    ],
)
def test_bytes_have_three_digits(number: float, text: str) -> None:
    assert amount(number) == text
