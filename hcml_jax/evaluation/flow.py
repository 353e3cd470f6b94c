"""How much optical flow a level holds: the error of its own head, and of a linear read-out of its features."""

import numpy as np

from hcml_jax.ops import backward_warp


def flow_over(flow: np.ndarray, stride: int) -> np.ndarray:
    """Flow over `stride` frames, chained from flow over one: what a level that strides in time sees.

    Args:
      flow: `[B, T - 1, H, W, 2]`, from each frame to the next, in pixels.
      stride: frames.

    Returns:
      `[B, (T - 1) // stride, H, W, 2]`, from frames 0, stride, ... to frames stride, 2 stride, ...
    """
    pairs = flow.shape[1] // stride
    total = flow[:, ::stride][:, :pairs]
    for step in range(1, stride):
        total = total + np.asarray(backward_warp(flow[:, step::stride][:, :pairs], total)[0])
    return total


class LinearReadout:
    """Ridge regression from motion features to the flow at their place, in cells of their grid.

    It shows what flow the features of a level hold, also of levels that no flow head teaches (cf. HCML Figure 4).
    """

    def __init__(self, ridge: float = 1e-3):
        self._ridge = ridge
        self._gram = self._cross = 0.0
        self._weights = None

    def add(self, motion: np.ndarray, flow: np.ndarray) -> None:
        """Adds clips to learn from: motion `[B, T, H, W, C]`, flow on the same grid `[B, T, H, W, 2]`."""
        x, y = _with_bias(motion), flow.reshape(-1, 2)
        self._gram = self._gram + x.T @ x
        self._cross = self._cross + x.T @ y
        self._weights = None

    def __call__(self, motion: np.ndarray) -> np.ndarray:
        """Flow `[B, T, H, W, 2]` of motion features `[B, T, H, W, C]`."""
        if self._weights is None:
            size = len(self._gram)
            ridge = self._ridge * np.trace(self._gram) / size * np.eye(size)
            self._weights = np.linalg.solve(self._gram + ridge, self._cross)
        return (_with_bias(motion) @ self._weights).reshape(*motion.shape[:-1], 2)


def _with_bias(motion: np.ndarray) -> np.ndarray:
    flat = motion.reshape(-1, motion.shape[-1]).astype(np.float64)
    return np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
