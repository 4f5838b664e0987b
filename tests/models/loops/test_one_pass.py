"""Distances in one pass against z and the residual that they stand for, in double precision."""

import json
import platform
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.loops import integer_products
from models.loops.one_pass import distances, interleaved
from models.residuals import residual

GRIDS, FILLED = ((7, 6), (4, 3), (2, 2)), (5, 11, 19)
P, K, SHRINKAGE = GRIDS[0][0] * GRIDS[0][1], FILLED[-1], 0.1

Parts = list[Tensor]
Kept = tuple[Tensor, Tensor]


def parts(b: int, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> Parts:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(b, *grid, k, generator=random).to(dtype) for grid, k in zip(GRIDS, FILLED, strict=True)]


def kept(rank: int) -> Kept:
    """Directions that explain half of a squared length each, as an artifact holds them."""
    random = torch.Generator().manual_seed(1)
    directions = torch.linalg.qr(torch.randn(P, K, rank, generator=random)).Q
    steps = (127 * directions / directions.abs().amax(1, keepdim=True)).round()
    return steps.to(torch.int8), 0.5 / steps.square().sum(1)


def added(asked: Parts) -> Tensor:
    """z (p, b, k), float64."""
    z = torch.zeros(len(asked[0]), *GRIDS[0], K, dtype=torch.float64)
    for part in asked:
        fine = F.interpolate(part.double().permute(0, 3, 1, 2), GRIDS[0], mode="bilinear", align_corners=False)
        z[..., : part.shape[-1]] += fine.permute(0, 2, 3, 1)
    return z.flatten(1, 2).transpose(0, 1)


def assert_near(found: Tensor, asked: Parts, stored: Kept) -> None:
    """As near as rounding z allows: half a step in each dimension, and M is no steeper than 1/√λ."""
    z, (directions, corrections) = added(asked), stored
    wanted = residual(z, directions, corrections.double(), shrinkage=SHRINKAGE)
    half_steps = z.abs().amax(2) / (2 * 32767) * (z.shape[2] / SHRINKAGE) ** 0.5
    off = (found.flatten(1).double() - wanted.T).abs()
    assert (off <= half_steps.T + 1e-5 * wanted.T).all()


@pytest.mark.parametrize("rank", [1, 16, 19])
@pytest.mark.parametrize("b", [1, 2, 3, 4, 7, 9, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_residual_of_the_parts_stretched_and_added(b: int, rank: int, dtype: torch.dtype) -> None:
    asked, stored = parts(b, dtype=dtype), kept(rank)
    found = distances(asked, *interleaved(*stored), shrinkage=SHRINKAGE)
    assert found.dtype == torch.float32
    assert_near(found, asked, stored)


def test_what_is_left_of_a_long_z_is_as_exact() -> None:
    directions, corrections = kept(4)
    corrections *= 2 * (1 - 1e-4)  # of what lies along a direction a ten thousandth is left
    along = directions[0, :, 0].float() * 10
    asked = [torch.zeros_like(part) for part in parts(5)]
    asked[-1] += along
    found = distances(asked, *interleaved(directions, corrections), shrinkage=SHRINKAGE)
    assert_near(found, asked, (directions, corrections))
    assert found[0, 0, 0] < 0.02 * along.norm() / SHRINKAGE**0.5


@pytest.mark.parametrize("k", [1, 2, 511, 513, 4096])
@pytest.mark.parametrize("b", [1, 8])
@pytest.mark.parametrize("largest", [127, -128])
def test_no_sum_is_larger_than_its_bits(k: int, b: int, largest: int) -> None:
    """A direction that all of z lies along, which explains half of it, with the largest numbers that there are."""
    directions, corrections = torch.full((1, k, 3), largest, dtype=torch.int8), torch.zeros(1, 3)
    corrections[0, 0] = 0.5 / (k * largest**2)
    asked = [torch.full((b, 1, 1, 1), 0.0), torch.full((b, 1, 1, 1), 0.0), torch.full((b, 1, 1, k), -3.0)]
    found = distances(asked, *interleaved(directions, corrections), shrinkage=1.0)
    torch.testing.assert_close(found, torch.full((b, 1, 1), 3.0 * (k / 2) ** 0.5), rtol=1e-5, atol=0)


@pytest.mark.parametrize("k", [511, 600, 1100])
@pytest.mark.parametrize("b", [1, 7, 8])
def test_many_dimensions_are_added_up_in_pieces(k: int, b: int) -> None:
    random = torch.Generator().manual_seed(k)
    directions = torch.randint(-127, 128, (1, k, 20), dtype=torch.int8, generator=random)
    corrections = 0.04 / directions.float().square().sum(1)
    asked = [torch.randn(b, 1, 1, length, generator=random) for length in (3, k // 2, k)]
    z = sum(F.pad(part.double(), (0, k - part.shape[3])) for part in asked).flatten(1)  # (b, k)
    found = distances(asked, *interleaved(directions, corrections), shrinkage=SHRINKAGE)
    wanted = residual(z.unsqueeze(0), directions, corrections.double(), shrinkage=SHRINKAGE)
    torch.testing.assert_close(found.view(1, b).double(), wanted, rtol=3e-5, atol=0)


_OF_A_PROCESSOR = """
import json
import torch
from numba.core.registry import cpu_target
from models.loops import integer_products
from models.loops.one_pass import distances, interleaved
random = torch.Generator().manual_seed(0)
directions = torch.randint(-127, 128, (16, 37, 18), dtype=torch.int8, generator=random)
corrections = 1e-7 * torch.rand(16, 18, generator=random)
parts = [torch.randn(15, edge, edge, 37, generator=random) for edge in (4, 2, 1)]
found = distances(parts, *interleaved(directions, corrections), shrinkage=0.1).tolist()
way = integer_products._way(*cpu_target.target_context.codegen().magic_tuple())
print(json.dumps([way.at_once, found]))
"""
_WRITTEN_OUT = """
from models.loops import integer_products
integer_products._way = lambda *_: integer_products._Way(integer_products._written_out, at_once=3)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="these are processors of that kind")
def test_every_processor_finds_the_same(python: Callable[..., Any], tmp_path: Path) -> None:
    """This one, one with AVX2, one of the oldest, and one without an instruction for it: the sums are exact in all."""
    ways: tuple[tuple[dict[str, str], str, int | None], ...] = (
        ({}, "", None),
        ({"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+sse4.2,+avx,+avx2,+fma"}, "", 4),
        ({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, "", 2),
        ({}, _WRITTEN_OUT, 3),
    )
    results = []
    for number, (environment, before, at_once) in enumerate(ways):
        cache = {"NUMBA_CACHE_DIR": str(tmp_path / str(number))}  # what replaces a function changes no digest
        taken, found = json.loads(python(_OF_A_PROCESSOR, before=before, **environment, **cache).stdout)
        assert at_once in (None, taken)
        results.append(torch.tensor(found))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=2e-5, atol=0)  # z itself is put together in other orders


@pytest.mark.parametrize(
    ("features", "at_once"),
    [
        ("+avx2,+avx512f,+avx512bw", 8),
        ("+avx2,-avx512f,+avx512bw", 4),
        ("+avx512f,+avx512bw,-avx512bw,+avx2", 4),
        ("-avx,+avx2", 2),
        ("+avx2,-avx2", 2),
        ("", 2),
    ],
)
def test_a_processor_is_asked_for_what_it_has(features: str, at_once: int) -> None:
    assert integer_products._way("x86_64-unknown-linux-gnu", "any", features).at_once == at_once
    assert integer_products._way("aarch64-unknown-linux-gnu", "any", features).emit is not None


def test_where_numbers_lie_the_other_way_round_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(RuntimeError, match="lower half"):
        integer_products._way("s390x-unknown-linux-gnu", "any", "")


def test_a_picture_s_distances_do_not_depend_on_who_else_is_asked() -> None:
    many, stored = parts(9), interleaved(*kept(4))
    together = distances(many, *stored, shrinkage=SHRINKAGE)
    for j in range(9):
        alone = distances([part[j : j + 1] for part in many], *stored, shrinkage=SHRINKAGE)
        torch.testing.assert_close(alone[0], together[j], rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("b", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_finite_stays_so_and_stays_with_its_picture(
    value: float, level: int, b: int, dtype: torch.dtype
) -> None:
    asked, stored = parts(b, dtype=dtype), interleaved(*kept(4))
    asked[level][b - 1, 1, 1, 3] = value
    found = distances(asked, *stored, shrinkage=SHRINKAGE).flatten(1)
    assert not found[b - 1].isfinite().all()
    assert found[: b - 1].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("huge", [1e16, 1e17, 1e18, 1e19, 1e20, 1e30])
def test_what_is_larger_than_can_be_reckoned_with_is_never_near(huge: float, dtype: torch.dtype) -> None:
    asked = [huge * part for part in parts(5, dtype=dtype)]
    found = distances(asked, *interleaved(*kept(6)), shrinkage=SHRINKAGE)
    assert not (found < huge).any()  # what is not a number is a fault


@pytest.mark.parametrize(
    "change",
    [
        lambda parts, kept: ([parts[0][:, :-1], *parts[1:]], kept),
        lambda parts, kept: ([parts[0], parts[1][:1], parts[2]], kept),
        lambda parts, kept: ([*parts[:2], parts[2][..., :-1]], kept),
        lambda parts, kept: ([parts[0], torch.zeros(2, 4, 3, K + 1), parts[2]], kept),
        lambda parts, kept: ([*parts[:2], parts[2][:, :0]], kept),
        lambda parts, kept: (parts, (kept[0][:, :, :-1], kept[1])),
        lambda parts, kept: (parts, (kept[0][:, :0], kept[1])),
        lambda parts, kept: (parts, (kept[0].short(), kept[1])),
        lambda parts, kept: (parts, (kept[0].transpose(3, 4).contiguous().transpose(3, 4), kept[1])),
        lambda parts, kept: ([*parts[:2], parts[2][..., :0]], (kept[0][:, :, :0], kept[1])),
        lambda parts, kept: (parts, (kept[0], kept[1][:-1])),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(change: Callable[[Parts, Kept], tuple[Parts, Kept]]) -> None:
    asked, stored = change(parts(2), interleaved(*kept(4)))
    with pytest.raises(ValueError, match="do not go together"):
        distances(asked, *stored, shrinkage=SHRINKAGE)


def test_what_is_explained_to_the_last_digit_is_no_distance_and_not_less() -> None:
    directions = torch.zeros(P, K, K, dtype=torch.int8)
    directions[:, range(K), range(K)] = 127
    corrections = torch.full((P, K), (1 + 1e-6) / 127**2)  # rounded up
    assert (distances(parts(5), *interleaved(directions, corrections), shrinkage=SHRINKAGE) == 0).all()


def test_threads_that_ask_at_the_same_time_get_what_each_would_get_alone() -> None:
    stored, asked = interleaved(*kept(4)), [parts(4, seed=seed) for seed in range(4)]
    wanted = [distances(each, *stored, shrinkage=SHRINKAGE) for each in asked]
    found: dict[int, list[Tensor]] = {}

    def ask(number: int) -> None:
        found[number] = [distances(asked[number], *stored, shrinkage=SHRINKAGE) for _ in range(50)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, each in enumerate(wanted):
        assert len(found[number]) == 50
        assert all(torch.equal(once, each) for once in found[number])


def test_directions_lie_in_sixteens_and_their_numbers_in_pairs() -> None:
    directions, corrections = kept(18)  # of 19 dimensions
    blocks, lengths = interleaved(directions, corrections)
    assert blocks.shape == (P, 2, 10, 16, 2)
    assert blocks.is_contiguous()
    assert torch.equal(blocks[:, 1, 3, 1, 0], directions[:, 6, 17])
    assert torch.equal(blocks[:, 0, 4, 5, 1], directions[:, 9, 5])
    assert torch.equal(lengths.flatten(1)[:, :18], corrections)
    assert int(blocks.count_nonzero()) == int(directions.count_nonzero())
    assert not lengths[:, 1, 2:].any()
