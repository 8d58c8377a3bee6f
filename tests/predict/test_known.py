"""Distances from what is known: the mathematics against numpy, SciPy and scikit-learn, and statistics that are damaged."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import oas

from gkd_core.errors import DataError, WeightsError
from gkd_core.predict.known import FILE, Known, Moments, Named, Part, part_of, read_known, write_known
from gkd_core.records import sha256_of

WIDTH = 6


def vectors(count: int, seed: int = 0, width: int = WIDTH) -> torch.Tensor:
    """Vectors (count, width) whose channels depend on each other, far from zero and of different sizes."""
    draws = np.random.default_rng(seed)
    mixed = draws.normal(size=(count, width)) @ np.random.default_rng(99).normal(size=(width, width))
    return torch.from_numpy(mixed * np.geomspace(1e-2, 1e2, width) + 50).float()


def statistics_of(rows: torch.Tensor, held_out: torch.Tensor, batch: int = 7) -> Part:
    width = rows.shape[1]
    return part_of("source", Named("a/train", rows.split(batch)), Named("a/val", held_out.split(batch)), width)


@pytest.mark.parametrize("count", [5, 300])
def test_distances_are_those_of_scipy_under_the_covariance_of_scikit_learn(count: int) -> None:
    rows, held_out, asked = vectors(count), vectors(41, seed=1), vectors(9, seed=2) * 1.1
    part = statistics_of(rows, held_out)
    exact = rows.double().numpy()
    scale = exact.std(axis=0)
    covariance, shrinkage = oas((exact - exact.mean(axis=0)) / scale, assume_centered=True)
    inverse = np.linalg.inv(covariance * np.outer(scale, scale))

    def distances(of: torch.Tensor) -> np.ndarray:
        return np.array([mahalanobis(row, exact.mean(axis=0), inverse) for row in of.double().numpy()])

    assert part.record.shrinkage == pytest.approx(shrinkage, rel=1e-9)
    reference = np.sort(distances(held_out))
    np.testing.assert_allclose(part.held_out.numpy(), reference, rtol=1e-8)
    found = part.distances(asked)
    np.testing.assert_allclose([each.value for each in found], distances(asked) / np.median(reference), rtol=1e-8)
    shares = [100 * (reference <= distance).mean() for distance in distances(asked)]
    np.testing.assert_allclose([each.percentile for each in found], shares)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 2**16))
def test_one_pass_gives_what_two_give_however_the_vectors_come(sizes: list[int], seed: int) -> None:
    rows = vectors(max(1, sum(sizes)), seed)
    moments = Moments(WIDTH)
    for part in rows.split(sizes) if sum(sizes) else [rows]:
        moments.add(part)
    exact = rows.double().numpy()
    assert moments.count == len(rows)
    np.testing.assert_allclose(moments.mean.numpy(), exact.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(moments.covariance.numpy(), np.cov(exact.T, bias=True), rtol=1e-6, atol=1e-9)


@given(st.permutations(range(30)))
def test_the_order_of_the_images_changes_nothing(order: list[int]) -> None:
    rows, held_out, asked = vectors(30), vectors(30, seed=1), vectors(5, seed=2)
    told, other = statistics_of(rows, held_out), statistics_of(rows[order], held_out[order], batch=4)
    for one, two in zip(told.distances(asked), other.distances(asked), strict=True):
        assert one == pytest.approx(two, rel=1e-6)


def test_vectors_are_let_go_as_they_are_counted() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def rows(seed: int) -> Iterator[torch.Tensor]:
        for index in range(50):
            assert sum(each() is not None for each in alive) <= 2
            made = vectors(4, seed + index)
            alive.append(weakref.ref(made))
            yield made

    part = part_of("source", Named("a", rows(0)), Named("b", rows(100)), WIDTH)
    assert (part.record.count, part.record.held) == (200, 200)


def test_a_channel_that_never_varies_is_no_ground_for_a_distance_without_end() -> None:
    rows, held_out = vectors(40), vectors(20, seed=1)
    rows[:, 2] = held_out[:, 2] = 3
    part = statistics_of(rows, held_out)
    assert part.whitening.isfinite().all() and part.held_out.isfinite().all()
    moved = rows[:1].clone()
    moved[0, 2] += 1
    (near,), (far,) = part.distances(rows[:1]), part.distances(moved)
    assert near.value < far.value < 100


@pytest.mark.parametrize(
    ("rows", "held_out", "line"),
    [
        (vectors(1), vectors(3), "a/train: 1 images; statistics need 2 at least"),
        (torch.ones(9, WIDTH), vectors(3), "a/train: the images all look the same"),
        (vectors(9), vectors(1)[:0], "a/val: no image to judge distances by"),
    ],
)
def test_too_little_to_say_is_one_line(rows: torch.Tensor, held_out: torch.Tensor, line: str) -> None:
    with pytest.raises(DataError, match=line):
        statistics_of(rows, held_out)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, Known]:
    rows, other = statistics_of(vectors(30), vectors(12, 1)), part_of(
        "proxy", Named("p/all", [vectors(25, 5)]), Named("p/all, held out", [vectors(6, 6)]), WIDTH
    )
    known = Known({"source": rows, "proxy": other})
    write_known(known, tmp_path / FILE)
    return tmp_path / FILE, known


def test_they_come_back_bit_for_bit(stored: tuple[Path, Known]) -> None:
    path, known = stored
    read, asked = read_known(path, known.record(), sha256_of(path), WIDTH), vectors(4, 9)
    assert read.distances(asked) == known.distances(asked)
    assert list(read.distances(asked)[0]) == ["source", "proxy"]


def without(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[name]

    return change


def put(name: str, value: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({name: value})


DAMAGES = {
    "source.mean is not there": without("source.mean"),
    "other.mean is of no part that the manifest lists": put("other.mean", torch.zeros(3)),
    r"proxy.whitening is torch.float64 \(5, 6\), expected torch.float64 \(6, 6\)": put(
        "proxy.whitening", torch.zeros(5, 6, dtype=torch.float64)
    ),
    "source.mean is torch.float32": put("source.mean", torch.zeros(WIDTH)),
    "source.mean holds numbers that are not finite": put("source.mean", torch.full((WIDTH,), torch.nan, dtype=torch.float64)),
    "source.held_out is no ascending list": put("source.held_out", torch.arange(12, 0, -1).double()),
    "proxy.held_out is no ascending list": put("proxy.held_out", torch.zeros(6, dtype=torch.float64)),
}


@pytest.mark.parametrize("line", DAMAGES)
def test_damaged_statistics_are_one_line(stored: tuple[Path, Known], line: str) -> None:
    path, known = stored
    tensors = safetensors.torch.load_file(path)
    DAMAGES[line](tensors)
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(WeightsError, match=line) as refused:
        read_known(path, known.record(), sha256_of(path), WIDTH)
    assert str(refused.value).isprintable()


def test_another_content_than_the_digest_s_and_another_network_are_refused(stored: tuple[Path, Known]) -> None:
    path, known = stored
    with pytest.raises(WeightsError, match="its content is not what"):
        read_known(path, known.record(), "0" * 64, WIDTH)
    with pytest.raises(WeightsError, match=r"source.held_out|whitening|mean"):
        read_known(path, known.record(), sha256_of(path), WIDTH + 1)
