"""The simulated sensor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toyworld.sensor import Sensor

IDEAL = Sensor(1.0, 1.0, np.ones(3, np.float32), 0.0, 0.0, 0.0)


def capture(sensor: Sensor, fine: np.ndarray) -> np.ndarray:
    return np.asarray(sensor.capture(fine.astype(np.float32), np.random.default_rng(0)), int)


def test_ideal_sensor_averages_blocks_of_pixels() -> None:
    fine = np.random.default_rng(1).uniform(0, 1, (8, 12, 3))
    expected = fine.reshape(4, 2, 6, 2, 3).mean((1, 3)) * 255
    assert np.abs(capture(IDEAL, fine) - expected).max() <= 0.51


def test_sensor_applies_gamma_contrast_gain_and_vignetting() -> None:
    gray = np.full((40, 40, 3), 0.25)
    assert (capture(replace(IDEAL, gamma=0.5), gray) == 128).all()
    assert (capture(replace(IDEAL, contrast=0.5), gray) == 96).all()  # (0.25 - 0.5) * 0.5 + 0.5 = 0.375
    assert capture(replace(IDEAL, gain=np.array([1, 2, 0], np.float32)), gray)[0, 0].tolist() == [64, 128, 0]
    vignetted = capture(replace(IDEAL, vignette=0.5), gray)[..., 0]
    assert vignetted[0, 0] == 32 and vignetted[10, 10] == 64  # half at the corners


def test_sensor_noise_has_its_standard_deviation() -> None:
    noisy = capture(replace(IDEAL, noise=0.02), np.full((200, 200, 3), 0.5))
    assert abs(noisy.mean() - 127.5) < 0.2
    assert abs(noisy.std() / 255 - 0.02) < 0.001
