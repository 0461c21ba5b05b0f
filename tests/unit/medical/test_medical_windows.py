"""Sliding windows: what they put together is what the network says of the whole image."""

import sys

import numpy as np
import pytest
import torch

from fedalt.errors import ConfigError, DataError
from fedalt.medical.windows import predict

IMAGES = {2: (37, 22), 3: (21, 18, 13)}


def _image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _pointwise(windows: torch.Tensor) -> torch.Tensor:
    """Classes by thresholds: each voxel by itself, as a 1×1 convolution."""
    return torch.cat([0 * windows, 2 * windows - 0.5, 3 * windows - 1.5], dim=1)


def _directly(image: np.ndarray) -> np.ndarray:
    return _pointwise(torch.as_tensor(image)[None, None])[0].argmax(0).numpy()


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_pointwise_network_labels_as_without_windows(
    dimensions: int, overlap: float, mode: str
) -> None:
    image = _image(*IMAGES[dimensions])
    found = predict(_pointwise, image, (8,) * dimensions, overlap=overlap, mode=mode, batch=3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, _directly(image))


@pytest.mark.parametrize("shape", [(5, 30), (5, 4), (3, 9, 20), (7, 7, 2)])
def test_images_smaller_than_the_window_are_padded_and_cropped_back(shape: tuple[int, ...]) -> None:
    image = _image(*shape)
    found = predict(_pointwise, image, (16,) * len(shape))
    np.testing.assert_array_equal(found, _directly(image))


def test_padding_is_filled_as_told() -> None:
    seen = []

    def network(windows: torch.Tensor) -> torch.Tensor:
        seen.append(windows)
        return _pointwise(windows)

    predict(network, np.ones((3, 3)), (8, 8), fill=-2.0)
    values, counts = torch.cat(seen).unique(return_counts=True)
    assert values.tolist() == [-2, 1] and counts.tolist() == [64 - 9, 9]


@pytest.mark.parametrize("size", [(8, 8), (40, 8), (8, 8, 8)])
def test_a_constant_network_labels_everything_alike(size: tuple[int, ...]) -> None:
    scores = torch.tensor([0.0, 1.0, 5.0, 2.0])

    def network(windows: torch.Tensor) -> torch.Tensor:
        spread = scores.reshape(1, 4, *[1] * (windows.ndim - 2))
        return spread.expand(len(windows), -1, *windows.shape[2:])

    assert (predict(network, _image(21, 18, 13), size) == 2).all()
    assert scores.tolist() == [0, 1, 5, 2]


@pytest.mark.parametrize("batch", [1, 4, 50])
def test_a_flat_network_labels_a_volume_slice_by_slice(batch: int) -> None:
    volume = _image(20, 17, 6)
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 3, 3, padding=1)
    found = predict(network, volume, (8, 8), batch=batch)
    for z in range(6):
        alone = predict(network, volume[..., z], (8, 8), batch=batch)
        np.testing.assert_array_equal(found[..., z], alone)
    assert len(np.unique(found)) == 3 and found.flags.c_contiguous


def test_calls_hold_at_most_a_batch_of_windows() -> None:
    sizes = []

    def network(windows: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(windows.shape))
        return _pointwise(windows)

    predict(network, _image(16, 16, 7), (8, 8), batch=5, overlap=0.0)
    assert max(s[0] for s in sizes) == 5 and {s[1:] for s in sizes} == {(1, 8, 8)}
    assert sum(s[0] for s in sizes) == 4 * 7


def test_a_network_is_neither_changed_nor_traced_for_gradients() -> None:
    network = torch.nn.Conv2d(1, 2, 1)
    kept: list[torch.Tensor] = []

    def watched(windows: torch.Tensor) -> torch.Tensor:
        kept.append(network(windows))
        return kept[-1]

    image = _image(8, 8)
    predict(watched, image, (8, 8))
    assert not kept[0].requires_grad
    expected = network(torch.as_tensor(image)[None, None])
    torch.testing.assert_close(kept[0], expected.detach())


def test_half_precision_scores_are_averaged_in_single() -> None:
    image = _image(20, 20)
    found = predict(lambda windows: _pointwise(windows).bfloat16(), image, (8, 8))
    expected = _pointwise(torch.as_tensor(image)[None, None]).bfloat16()[0].float()
    clear = np.diff(np.sort(expected.numpy(), axis=0)[-2:], axis=0)[0] > 1e-3
    np.testing.assert_array_equal(found[clear], expected.argmax(0).numpy()[clear])


@pytest.mark.parametrize(
    ("image", "size", "settings", "error", "words"),
    [
        (np.zeros((4,)), (4,), {}, DataError, "expected"),
        (np.zeros((4, 0)), (4, 4), {}, DataError, "expected"),
        (np.full((4, 4), np.nan), (4, 4), {}, DataError, "NaN"),
        (np.zeros((4, 4)), (4, 4, 4), {}, ConfigError, "window"),
        (np.zeros((4, 4, 4)), (4,), {}, ConfigError, "needs 2 or 3 sides"),
        (np.zeros((4, 4)), (4, 0), {}, ConfigError, "at least one voxel"),
        (np.zeros((4, 4)), (4, 4), {"overlap": 1.0}, ConfigError, "overlap"),
        (np.zeros((4, 4)), (4, 4), {"batch": 0}, ConfigError, "batch"),
        (np.zeros((4, 4)), (4, 4), {"mode": "mean"}, ConfigError, "gaussian or constant"),
    ],
)
def test_what_does_not_fit_is_refused(
    image: np.ndarray, size: tuple[int, ...], settings: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        predict(_pointwise, image, size, **settings)


def test_a_network_s_output_must_fit_its_windows() -> None:
    with pytest.raises(DataError, match="expected \\(n, K, \\*size\\)"):
        predict(lambda windows: windows[..., ::2], np.zeros((8, 8)), (8, 8))
    with pytest.raises(DataError, match="at most 256"):
        predict(lambda windows: windows.expand(-1, 300, -1, -1), np.zeros((8, 8)), (8, 8))


def test_without_monai_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.inferers.utils", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedalt\[medical\]'"):
        predict(_pointwise, np.zeros((8, 8)), (8, 8))


def test_a_read_only_volume_is_read_without_a_warning() -> None:
    """As one mapped from disk is; warnings are errors here."""
    image = _image(8, 8, 8)
    wanted = _directly(image)
    image.setflags(write=False)
    assert np.array_equal(predict(_pointwise, image, (8, 8, 8)), wanted)
