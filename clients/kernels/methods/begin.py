"""The methods of a client's stages, made ready while its model is as received."""

from __future__ import annotations

import numpy as np

from fedalt.clients.kernels.client import Client
from fedalt.clients.kernels.methods.agem import agem
from fedalt.clients.kernels.methods.base import Former, Hooks, Scene
from fedalt.clients.kernels.methods.distill import lwf
from fedalt.clients.kernels.methods.ewc import ewc
from fedalt.clients.kernels.methods.replay import replay
from fedalt.clients.kernels.methods.settings import MethodSettings
from fedalt.clients.kernels.methods.si import si
from fedalt.clients.kernels.model import ReusedModel
from fedalt.clients.kernels.stages import Stage
from fedalt.clients.kernels.streamed import Streamed
from fedalt.errors import DataError, FedaltError

# What wraps the gradient does so in this order: SI watches the task's own, on the batch that
# replay has joined; A-GEM projects all of it.
_METHODS = {"si": si, "lwf": lwf, "replay": replay, "agem": agem, "ewc": ewc}


def begin(model: ReusedModel, client: Client) -> list[tuple[Hooks, ...]]:
    """Return the hooks of each of a client's stages; none where no method is on.

    The model must hold what was received. Raises :class:`ConfigError` where a method asks for
    what the task has not, and :class:`FedaltError` where a task cannot be consolidated; both
    name the site.
    """
    return [_begin(model, client, stage) for stage in client.stages]


def _begin(model: ReusedModel, client: Client, stage: Stage) -> tuple[Hooks, ...]:
    settings, streamed = stage.settings.methods, client.streamed
    if settings is None or streamed is None:
        return ()
    scene = _scene(model, client, stage, settings, streamed)
    try:
        hooks = [method(scene) for name, method in _METHODS.items() if name in settings.names]
    except DataError:
        raise
    except FedaltError as error:
        raise type(error)(f"{client.where}: {error}") from error
    if scene.fresh:
        meeting = streamed.meeting
        mark = np.array([meeting.experience, meeting.task], np.int32)
        hooks.append(Hooks(leave=lambda: {scene.key("methods", "at"): mark}))
    return tuple(hooks)


def _scene(
    model: ReusedModel,
    client: Client,
    stage: Stage,
    settings: MethodSettings,
    streamed: Streamed,
) -> Scene:
    """Say whether an experience has ended: the last in which this very stage was trained.

    Where it never was, as its methods were off, it is the last that the client was in.
    """
    before = streamed.before
    mark = client.site.state.get(f"methods/{stage.scope}/at")
    experience, task = (before.now, before.task) if mark is None else map(int, mark)
    fresh = mark is None or experience != streamed.meeting.experience
    ended = experience not in (-1, streamed.meeting.experience)
    former = Former(experience, task, streamed.after.pools[task]) if ended else None
    trained = model.choose(stage.arrays)
    return Scene(model, client, stage, streamed, settings, trained, former, fresh)
