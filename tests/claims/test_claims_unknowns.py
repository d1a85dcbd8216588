"""The beds of claims about unknown classes: what is drawn of radar echoes, and what a layer knows."""

from __future__ import annotations

import numpy as np
from scipy.linalg import logm

from repertoire.claims import Budget
from repertoire.claims.beds.radar import ROTORS, UNKNOWN, covariances, echoes, log_euclidean, spectra
from repertoire.claims.beds.unknowns import open_set


def test_log_euclidean_is_the_logarithm_of_scipy():
    """Distances between the vectors are Frobenius distances between the logarithms."""
    heard = echoes(ROTORS[0], 3, np.random.default_rng(0))
    matrices = covariances(heard)
    vectors, logs = log_euclidean(matrices), [logm(matrix) for matrix in matrices]
    assert vectors.shape == (3, 256)
    for i, j in ((0, 1), (1, 2)):
        np.testing.assert_allclose(
            np.linalg.norm(vectors[i] - vectors[j]), np.linalg.norm(logs[i] - logs[j]), rtol=1e-8
        )
    np.testing.assert_allclose(vectors[0, :16], np.diagonal(logs[0]).real, rtol=1e-8)


def test_covariances_and_spectra_by_loops():
    heard = echoes(UNKNOWN, 2, np.random.default_rng(1))
    plain = sum(np.outer(burst, burst.conj()) for burst in heard[1]) / 32
    expected = plain + 1e-3 * np.trace(plain).real / 16 * np.eye(16)
    np.testing.assert_allclose(covariances(heard)[1], expected, rtol=1e-10)
    lines = [np.mean([abs(np.fft.fft(burst)[k]) for burst in heard[0]]) for k in range(16)]
    np.testing.assert_allclose(spectra(heard)[0], np.log(lines), rtol=1e-10)


def test_blades_flash_and_kinds_differ():
    """More blades and faster ones spread the spectrum: what a detector has to go by is there."""
    generator = np.random.default_rng(2)
    means = [spectra(echoes(kind, 60, generator)).mean(0) for kind in (*ROTORS, UNKNOWN)]
    for i in range(4):
        for j in range(i):
            assert np.abs(means[i] - means[j]).max() > 0.05


def test_unknown_classes_are_seen_nowhere_else():
    bed = open_set(Budget("smoke"), 0)
    assert bed.weight.shape == (7, bed.train.x.shape[1])
    np.testing.assert_allclose(bed.test.f, bed.test.x @ bed.weight.T + bed.bias, atol=1e-4)
    assert set(bed.train.y.tolist()) == set(bed.test.y.tolist()) == set(range(7))
    assert set(bed.near.y.tolist()) == set(bed.far.y.tolist()) == {-1}
    rows = {row.tobytes() for part in (bed.train, bed.test) for row in part.x}
    assert len(bed.near.x) > 20
    assert not any(row.tobytes() in rows for row in bed.near.x)
    other = open_set(Budget("smoke"), 1)
    assert len(other.near.x) != len(bed.near.x) or (other.near.x != bed.near.x).any()
