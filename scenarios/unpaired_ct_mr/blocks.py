"""The blocks of a segmentation network, each array in one of them."""

from __future__ import annotations

from torch import nn

from fedalt.alternation.block import Block
from fedalt.scenarios.unpaired_ct_mr.norms import norm_arrays


def blocks_of(model: nn.Module) -> tuple[Block, ...]:
    """Return ``encoder``, ``decoder``, ``head`` and ``norm``.

    ``norm`` is all arrays of the backbone's normalisation layers, running statistics included:
    what a site keeps to itself in FedBN. The head's own layers stay with the head. A block
    without arrays, as norms without scale and shift leave none, is left out.
    """
    norms = {name for name in norm_arrays(model) if not name.startswith("head.")}
    parts: dict[str, list[str]] = {"encoder": [], "decoder": [], "head": [], "norm": []}
    for name in model.state_dict():
        parts["norm" if name in norms else name.partition(".")[0]].append(name)
    return tuple(Block(part, tuple(names)) for part, names in parts.items() if names)
