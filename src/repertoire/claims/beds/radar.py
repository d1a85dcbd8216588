"""Drawn echoes of rotors, as a radar of low resolution hears them: three kinds that are known and one that is not.

The body of a target returns a line, and each of its blades a chirp that flashes when it stands across the beam. A
sample is 32 bursts of 16 pulses, of which the detectors see either the mean spectrum, 16 numbers, or the covariance of
the pulses of a burst, 256 numbers, by its logarithm.
"""

from __future__ import annotations

import numpy as np

ROTORS = ((2, 0.9, 1.0), (3, 1.2, 0.9), (4, 1.5, 1.1))
"""Blades, turns for each 64 pulses, and length of a blade: the kinds that are known."""
UNKNOWN = (3, 1.5, 1.0)
"""A kind whose blades are as many as those of one known kind, and turn as fast as those of another."""
LENGTHS = (0.6, 1.5)
"""Least and greatest length of the blades of an unknown kind, where a claim does not settle for one."""

BURSTS, PULSES = 32, 16

DRAWN = "drawn echoes of three kinds of rotors, and of a fourth that is like them"


def echoes(kind: tuple[int, float, float], count: int, generator: np.random.Generator) -> np.ndarray:
    """Complex `[count, 32, 16]`: what the radar hears of targets of a kind, with noise."""
    blades, turns, length = kind
    time = np.arange(BURSTS * PULSES) / 64
    scale = generator.uniform(0.9, 1.1, size=(2, count, 1))
    angle = 2 * np.pi * (scale[0] * turns * time + generator.uniform(size=(count, 1)))
    reach = 6 * length * scale[1]
    sound = np.exp(2j * np.pi * (generator.uniform(-0.05, 0.05, size=(count, 1)) * 64 * time))
    for blade in range(blades):
        across = np.sin(angle + 2 * np.pi * blade / blades)
        # The integral of the echo along the blade: what turns towards the radar, and a flash where none of it does.
        sound = sound + 1.5 * np.exp(1j * reach * across) * np.sinc(reach * across / np.pi)
    noise = generator.normal(size=(2, *sound.shape))
    heard = sound + 0.7 * (noise[0] + 1j * noise[1])
    return np.asarray(heard.reshape(count, BURSTS, PULSES))


def spectra(heard: np.ndarray) -> np.ndarray:
    """Logarithm of the mean spectrum of the bursts, `[N, 16]`."""
    return np.asarray(np.log(np.abs(np.fft.fft(heard, axis=2)).mean(1)))


def covariances(heard: np.ndarray) -> np.ndarray:
    """Complex covariance of the pulses of a burst, `[N, 16, 16]`, with a little of the identity."""
    found = np.einsum("nbi,nbj->nij", heard, heard.conj()) / heard.shape[1]
    size = np.trace(found, axis1=1, axis2=2).real / heard.shape[2]
    return np.asarray(found + 1e-3 * size[:, None, None] * np.eye(heard.shape[2]))


def log_euclidean(matrices: np.ndarray) -> np.ndarray:
    r"""Hermitian matrices as vectors whose distances are those of their logarithms.

    Arsigny et al., *Log-Euclidean Metrics for Fast and Simple Calculus on Diffusion Tensors* (2006).

    Args:
        matrices: complex `[N, n, n]`, positive definite.

    Returns:
        float64 `[N, n * n]`: the diagonal of the logarithm, and the real and imaginary parts above it, times the root
        of two.
    """
    values, vectors = np.linalg.eigh(matrices)
    logs = (vectors * np.log(values)[:, None, :]) @ vectors.conj().transpose(0, 2, 1)
    rows, columns = np.triu_indices(matrices.shape[1], 1)
    above = np.sqrt(2) * logs[:, rows, columns]
    return np.hstack([np.diagonal(logs, axis1=1, axis2=2).real, above.real, above.imag])
