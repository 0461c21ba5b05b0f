"""Sites that are made when asked for: for federations of a hundred thousand and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np

from fedalt.alternation.site import Site
from fedalt.errors import ScheduleError


class LazySites(Sequence[Site]):
    """A task's sites, from one array of sizes.

    Parameters
    ----------
    sizes
        (N,) numbers of training records; site ``i`` has ``sizes[i]``.
    name
        Names by index, such as ``client-{}``.
    attributes
        Attribute to the values (N,) that the sites have of it.

    Raises :class:`ScheduleError` for an attribute with other than N values. Give scenarios'
    sites this way when there are many: 8 bytes each instead of about 300.
    """

    def __init__(
        self,
        sizes: Sequence[int] | np.ndarray,
        name: str = "client-{}",
        attributes: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._sizes = np.asarray(sizes, np.int64)
        self._name = name
        self._attributes = dict(attributes or {})
        for key, values in self._attributes.items():
            if len(values) != len(self._sizes):
                raise ScheduleError(
                    f"sites: attribute '{key}' has {len(values)} values for "
                    f"{len(self._sizes)} sites"
                )

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, index: int) -> Site: ...
    @overload
    def __getitem__(self, index: slice) -> list[Site]: ...
    def __getitem__(self, index: int | slice) -> Site | list[Site]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"there is no site {index} among {len(self)}")
        values = {key: str(column[place]) for key, column in self._attributes.items()}
        return Site(place, self._name.format(place), int(self._sizes[place]), values)
