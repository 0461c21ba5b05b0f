"""Which node is which site: the two numberings of a federation, both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fedalt.seeds import Seeds


class NodeTable(Mapping[int, int]):
    """Site index to node id; :attr:`sites` is the way back.

    ``node_ids`` are the nodes of the sites 0 … N−1. Both ways are made once, so that nothing
    has to turn a table of all nodes round to find the sender of one message.
    """

    def __init__(self, node_ids: Sequence[int]) -> None:
        self._ids = list(node_ids)
        self.sites: Mapping[int, int] = {node: site for site, node in enumerate(self._ids)}

    @property
    def ids(self) -> list[int]:
        """The node ids by site index; not to be changed."""
        return self._ids

    def __getitem__(self, site: int) -> int:
        if not 0 <= site < len(self._ids):
            raise KeyError(site)
        return self._ids[site]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._ids)))

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, site: object) -> bool:
        return isinstance(site, int | np.integer) and 0 <= int(site) < len(self._ids)


def draw_node_ids(number: int, seeds: Seeds) -> list[int]:
    """Draw distinct positive 63-bit ids, other than those Flower reserves."""
    rng = seeds.at("node-ids").numpy()
    ids = np.empty(0, np.int64)
    while len(ids) < number:
        drawn = rng.integers(2**16, 2**63 - 1, size=number - len(ids))
        together = np.concatenate([ids, drawn])
        _, first = np.unique(together, return_index=True)
        ids = together[np.sort(first)]
    return [int(value) for value in ids.tolist()]
