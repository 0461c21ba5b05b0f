"""Normalisation by policy, one for all layers of a backbone.

====================  =====================================================================
group                 GroupNorm: at most 16 groups, of at least three channels each
instance              InstanceNorm with scale and shift
batch                 BatchNorm; evaluation uses the running statistics of training
batch_statistics      BatchNorm of the batch at hand, in training and in evaluation alike
====================  =====================================================================

Running statistics of batches that hold one modality each drift from one to the other and fit
neither; ``batch_statistics`` keeps none. Both kinds of batch normalisation mix the rows of a
batch, so that what is predicted for one depends on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from torch import nn

Build = Callable[[int], nn.Module]

_BATCH: Mapping[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE: Mapping[int, type[nn.Module]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_INSTANCES = (nn.InstanceNorm2d, nn.InstanceNorm3d)
_BATCHES = (nn.BatchNorm2d, nn.BatchNorm3d)
_ALL = (nn.GroupNorm, nn.LayerNorm, *_INSTANCES, *_BATCHES)

NORMS = ("group", "instance", "batch", "batch_statistics")
_MOST_GROUPS = 16
_LEAST_CHANNELS = 3


def group_norm(channels: int) -> nn.GroupNorm:
    """Return GroupNorm of as many groups as divide the channels, within the policy's bounds.

    That is the paper's 16 for the widths it has (48, 64, 512, 768). Fewer channels make fewer
    groups: one channel a group would be instance normalisation under another name.
    """
    most = max(1, min(_MOST_GROUPS, channels // _LEAST_CHANNELS))
    groups = max(count for count in range(1, most + 1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)


def norm_of(policy: str, dims: int) -> Build:
    """Return what makes a policy's layer for a number of channels, in 2-D or 3-D."""
    made: dict[str, Build] = {
        "group": group_norm,
        "instance": partial(_INSTANCE[dims], affine=True),
        "batch": _BATCH[dims],
        "batch_statistics": partial(_BATCH[dims], track_running_stats=False),
    }
    return made[policy]


def replace_instance_norms(module: nn.Module, build: Build) -> None:
    """Put the policy's layers where a module has instance normalisation, in place."""
    for name, child in module.named_children():
        if isinstance(child, _INSTANCES):
            module.add_module(name, build(child.num_features))
        else:
            replace_instance_norms(child, build)


def norm_arrays(model: nn.Module) -> tuple[str, ...]:
    """Return the names of all arrays of normalisation layers, running statistics included."""
    homes = {name for name, module in model.named_modules() if isinstance(module, _ALL)}
    return tuple(name for name in model.state_dict() if name.rpartition(".")[0] in homes)


@contextmanager
def with_batch_statistics(model: nn.Module) -> Iterator[nn.Module]:
    """Let BatchNorm use the statistics of the batch at hand for a while; keeps the running ones.

    The same weights judged in this way tell whether running statistics are at fault. The batch
    must hold more than one value of a channel.
    """
    layers = [module for module in model.modules() if isinstance(module, _BATCHES)]
    former = [(layer.training, layer.track_running_stats) for layer in layers]
    try:
        for layer in layers:
            layer.training, layer.track_running_stats = True, False
        yield model
    finally:
        for layer, (training, tracked) in zip(layers, former, strict=True):
            layer.training, layer.track_running_stats = training, tracked
