"""Text embeddings e[m, c] of modalities and classes, by name and never by position.

What a network gets is centred and scaled: from each vector the mean over all (m, c) at hand is
taken away, since the words that all prompts share say nothing, and the rest is brought to length
√d, so that a component is about one in size, as the controller's first layer expects of its
inputs. Full whitening is left out on purpose: with fewer vectors than dimensions it would put
all of them equally far apart and leave nothing of what the text says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fedalt.errors import ConfigError, DataError, nearest
from fedalt.medical.label_map import AMOS, MMWHS
from fedalt.scenarios.unpaired_ct_mr import encoders

BACKGROUND = "background"
SHIPPED = Path(__file__).with_name("embeddings.safetensors")
SHIPPED_HASH = "da4af19c2909dcf184a04743251809ca21cbb3988d95cbae4518d559f765ee6a"
SOURCES = ("shipped", "ngrams", "minilm")
_KEY = "embeddings"
_NAMES = ("modalities", "classes")
_MORE = (
    *("prostate", "colon", "small_bowel", "portal_vein_and_splenic_vein", "heart"),
    *("spinal_cord", "vertebrae", "muscle", "fat", "body", "bone", "lung_left", "lung_right"),
)
SHIPPED_CLASSES = tuple(dict.fromkeys((BACKGROUND, *AMOS.values(), *MMWHS.values(), *_MORE)))
"""Classes of the shipped file, background first."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """``values`` (M, K, d) float32 of M modalities and K classes, each by its name."""

    values: np.ndarray
    modalities: tuple[str, ...]
    classes: tuple[str, ...]

    @cached_property
    def hash(self) -> str:
        """The SHA-256 of names and values."""
        names = json.dumps([self.modalities, self.classes, self.values.shape])
        data = np.ascontiguousarray(self.values, "<f4").tobytes()
        return hashlib.sha256(names.encode() + data).hexdigest()

    def select(
        self, modalities: Sequence[str], classes: Sequence[str], where: str = "task.embeddings"
    ) -> Embeddings:
        """Return the vectors of some names, in the order asked.

        Raises :class:`ConfigError` naming what is not there and the nearest name that is.
        """
        rows = [_find(name, self.modalities, where, "modality") for name in modalities]
        columns = [_find(name, self.classes, where, "class") for name in classes]
        chosen = self.values[np.ix_(rows, columns)]
        return Embeddings(chosen, tuple(modalities), tuple(classes))


def load_embeddings(
    source: str, modalities: Sequence[str], organs: Sequence[str], template: str = "V3"
) -> Embeddings:
    """Return centred and scaled embeddings of the modalities and of background and organs.

    ``source`` is ``shipped`` (hashed n-grams from the file of this package, template V3),
    ``ngrams`` (the same, made now for any names), ``minilm`` (the extra ``text``), or the path of
    a file as :func:`read_embeddings` has it, such as vectors of CLIP. Raises
    :class:`ConfigError` for unknown names, :class:`DataError` for a bad file.
    """
    names = (tuple(modalities), (BACKGROUND, *organs))
    for what, given in zip(("modality", "organ"), names, strict=True):
        twice = sorted({name for name in given if given.count(name) > 1})
        if twice:
            raise ConfigError(f"task: {what} '{twice[0]}' is named twice")
    if source == "ngrams":
        return prepared(encoded(encoders.ngrams, *names, template))
    if source == "minilm":
        return prepared(encoded(encoders.minilm, *names, template))
    if source == "shipped":
        return prepared(_shipped(template).select(*names, where=_SHIPPED_WHERE))
    if Path(source).suffix not in (".npz", ".safetensors"):
        raise ConfigError(
            f"task.embeddings: '{source}' is neither a source{nearest(source, SOURCES)} nor a "
            "file .npz or .safetensors"
        )
    return prepared(read_embeddings(Path(source)).select(*names, where=f"'{source}'"))


_SHIPPED_WHERE = "task.embeddings 'shipped' (task.embeddings=ngrams takes any names)"


def encoded(
    encoder: encoders.Encoder,
    modalities: Sequence[str],
    classes: Sequence[str],
    template: str = "V3",
) -> Embeddings:
    """Return the vectors of the prompts as an encoder makes them."""
    texts = [encoders.prompt(m, c, template) for m in modalities for c in classes]
    values = encoder(texts).reshape(len(modalities), len(classes), -1)
    return Embeddings(values, tuple(modalities), tuple(classes))


def prepared(raw: Embeddings) -> Embeddings:
    """Centre the vectors over (m, c) and bring each to length √d.

    A vector that is the mean becomes zero.
    """
    values = raw.values.astype(np.float64)
    centred = values - values.mean((0, 1))
    # What rounding leaves of a vector that is the mean is no direction.
    scale = np.linalg.norm(values, axis=-1, keepdims=True)
    centred = np.where(np.abs(centred) > 1e-6 * scale, centred, 0.0)
    scaled = np.sqrt(values.shape[2]) * encoders.unit(centred)
    return Embeddings(scaled.astype(np.float32), raw.modalities, raw.classes)


def read_embeddings(path: Path) -> Embeddings:
    """Read vectors as they are, with their names.

    In ``.npz``: arrays ``embeddings`` (M, K, d), ``modalities`` (M,) and ``classes`` (K,) of text.
    In ``.safetensors``: the tensor ``embeddings``, and in its metadata the two lists as JSON.
    Raises :class:`DataError` naming the file and what is wrong with it.
    """
    try:
        values, names = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
    except FileNotFoundError as error:
        raise DataError(f"'{path}': no such file of embeddings") from error
    except KeyError as error:
        raise DataError(
            f"'{path}' has no '{error.args[0]}': embeddings need 'embeddings', 'modalities' and "
            "'classes'"
        ) from error
    except Exception as error:
        raise DataError(f"'{path}' cannot be read as embeddings: {error}") from error
    found = Embeddings(np.asarray(values, np.float32), *map(tuple, names))
    shape = (len(found.modalities), len(found.classes))
    if found.values.ndim != 3 or found.values.shape[:2] != shape:
        raise DataError(
            f"'{path}': embeddings have shape {found.values.shape}, but the names are for {shape} "
            "and a length"
        )
    if not np.isfinite(found.values).all():
        raise DataError(f"'{path}': embeddings are not finite numbers everywhere")
    return found


def write_embeddings(path: Path, found: Embeddings) -> None:
    """Write vectors with their names as safetensors."""
    from safetensors.numpy import save_file

    names = {"modalities": json.dumps(found.modalities), "classes": json.dumps(found.classes)}
    save_file({_KEY: np.ascontiguousarray(found.values, np.float32)}, path, names)


def write_shipped(path: Path) -> str:
    """Write the file this package ships, and return its hash, which ``SHIPPED_HASH`` must be.

    After a change to ``SHIPPED_CLASSES``: ``write_shipped(SHIPPED)`` in a Python shell.
    """
    found = encoded(encoders.ngrams, tuple(encoders.SPOKEN), SHIPPED_CLASSES)
    write_embeddings(path, found)
    return found.hash


def _shipped(template: str) -> Embeddings:
    if template != "V3":
        raise ConfigError(
            f"task.template is {template}, but the shipped embeddings are of V3; "
            "set task.embeddings=ngrams"
        )
    found = read_embeddings(SHIPPED)
    if found.hash != SHIPPED_HASH:
        raise DataError(
            f"'{SHIPPED}' is not the file that was shipped (SHA-256 of its content {found.hash}, "
            f"expected {SHIPPED_HASH}); install fedalt again"
        )
    return found


def _read_npz(path: Path) -> tuple[np.ndarray, list[list[str]]]:
    with np.load(path, allow_pickle=False) as file:
        for key in (_KEY, *_NAMES):
            if key not in file:
                raise KeyError(key)
        return file[_KEY], [file[key].tolist() for key in _NAMES]


def _read_safetensors(path: Path) -> tuple[np.ndarray, list[list[str]]]:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        names: Mapping[str, Any] = file.metadata() or {}
        if _KEY not in file.keys():  # noqa: SIM118 - not a mapping
            raise KeyError(_KEY)
        return file.get_tensor(_KEY), [json.loads(names[key]) for key in _NAMES]


def _find(name: str, known: Sequence[str], where: str, what: str) -> int:
    if name not in known:
        raise ConfigError(f"{where} has no {what} '{name}'{nearest(name, known)}")
    return known.index(name)
