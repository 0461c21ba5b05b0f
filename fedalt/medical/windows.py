"""Sliding-window inference: a network that reads windows labels whole images.

The outputs of overlapping windows are averaged, by default with a Gaussian weight that trusts a
window's middle (Isensee et al. 2021, nnU-Net, Nature Methods 18), and each voxel takes its
largest class. monai does the windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from fedalt.errors import ConfigError, DataError

Network = Callable[[torch.Tensor], torch.Tensor]
"""Windows (n, 1, *size) to class scores (n, K, *size)."""
_MODES = ("gaussian", "constant")


def predict(
    network: Network,
    image: np.ndarray,
    size: Sequence[int],
    *,
    overlap: float = 0.5,
    batch: int = 4,
    mode: str = "gaussian",
    fill: float = 0.0,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Return the labels (x, y[, z]) uint8 that a network gives an image (x, y[, z]).

    ``size`` is the window in voxels; ``overlap`` the share of it that neighbours have in common;
    ``batch`` the windows a call. An image smaller than the window is padded with ``fill`` and the
    labels are cropped back. With a window of two sides an image of three is read slice by slice
    along z. ``network`` lies on ``device`` already, in evaluation mode if it has one.

    Raises ConfigError for settings that do not fit, DataError for an image with values that are
    not finite and for a network whose output does not fit its input.
    """
    pixels = np.asarray(image, np.float32)
    _check(pixels, size, overlap, batch, mode)
    scan = _scanner(network, tuple(size), overlap, batch, mode, fill, torch.device(device))
    if len(size) == pixels.ndim:
        return np.asarray(scan(pixels[None])[0])
    slices = np.moveaxis(pixels, -1, 0)
    # A few slices a time: the class scores of all would be K times the volume.
    parts = [scan(slices[start : start + batch]) for start in range(0, len(slices), batch)]
    return np.ascontiguousarray(np.moveaxis(np.concatenate(parts), 0, -1))


def _scanner(
    network: Network,
    size: tuple[int, ...],
    overlap: float,
    batch: int,
    mode: str,
    fill: float,
    device: torch.device,
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from images (n, *shape) to labels (n, *shape)."""
    try:
        from monai.inferers.utils import sliding_window_inference
    except ImportError as error:
        raise ConfigError("sliding windows need monai: pip install 'fedalt[medical]'") from error

    def scores(windows: torch.Tensor) -> torch.Tensor:
        given = network(windows)
        if given.shape[:1] + given.shape[2:] != windows.shape[:1] + windows.shape[2:]:
            raise DataError(
                f"network: scores {tuple(given.shape)} for windows {tuple(windows.shape)}; "
                "expected (n, K, *size) for (n, 1, *size)"
            )
        # monai weighs the scores in place: they must not be the network's own memory.
        return given.to(torch.float32, copy=True)

    def scan(images: np.ndarray) -> np.ndarray:
        # A copy: volumes mapped from disk are read-only, which torch.as_tensor warns of.
        inputs = torch.tensor(images)[:, None].to(device)
        with torch.no_grad():
            scored = sliding_window_inference(
                inputs, size, batch, scores, overlap=overlap, mode=mode, cval=fill
            )
        if not isinstance(scored, torch.Tensor) or scored.shape[1] > 256:
            raise DataError("network: class scores are one tensor of at most 256 classes")
        return scored.argmax(1).to(torch.uint8).cpu().numpy()

    return scan


def _check(image: np.ndarray, size: Sequence[int], overlap: float, batch: int, mode: str) -> None:
    if image.ndim not in (2, 3) or not image.size:
        raise DataError(f"image: shape {image.shape}, expected (x, y) or (x, y, z)")
    if len(size) not in (2, image.ndim) or min(size) < 1:
        raise ConfigError(
            f"window {tuple(size)}: an image of {image.ndim} dimensions needs "
            f"{'2 or 3' if image.ndim == 3 else '2'} sides of at least one voxel"
        )
    if not 0 <= overlap < 1:
        raise ConfigError(f"overlap: {overlap}, expected a share from 0 to below 1")
    if batch < 1:
        raise ConfigError(f"batch: {batch} windows a call, expected at least 1")
    if mode not in _MODES:
        raise ConfigError(f"mode: '{mode}', expected {' or '.join(_MODES)}")
    if not np.isfinite(image).all():
        raise DataError("image: some values are NaN or infinite")
