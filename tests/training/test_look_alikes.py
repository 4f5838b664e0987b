import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from training.look_alikes import look_alikes, twins
from training.picture_files import read_image
from training.samples import write_category


@pytest.fixture(scope="module", params=["flange", "cloth"])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """Thirty good parts, (30, 3, 224, 224) uint8."""
    folder = tmp_path_factory.mktemp("parts")
    written = write_category(folder, request.param, train=30, test_good=1, test_defective=1, size=224)
    paths = sorted((written / "train/good").iterdir())
    return torch.stack([torch.from_numpy(read_image(path)).permute(2, 0, 1) for path in paths])


def saved_again(part: Tensor, *, quality: int) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(part.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


def taken_again(part: Tensor) -> Tensor:
    noise = np.random.default_rng(0).normal(0, 2, part.shape)
    return torch.from_numpy((part.numpy() + noise).round().clip(0, 255).astype(np.uint8))


def test_parts_of_one_kind_do_not_look_alike(parts: Tensor) -> None:
    assert look_alikes(parts.split(16), None).tolist() == list(range(30))


def test_a_picture_that_was_saved_or_taken_again_looks_like_the_first(parts: Tensor) -> None:
    again = [saved_again(parts[4], quality=95), saved_again(parts[20], quality=85), taken_again(parts[4])]
    groups = look_alikes(torch.cat([parts[:10], torch.stack(again), parts[10:]]).split(16), None)
    assert groups.shape == (33,)
    assert groups[10] == groups[12] == groups[4]
    assert groups[11] == groups[23]
    assert sorted(set(groups.tolist())) == list(range(30))


def test_how_many_there_are_at_a_time_changes_nothing(parts: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = torch.cat([parts, torch.stack([saved_again(part, quality=90) for part in parts])])
    whole = look_alikes([twice], None)
    assert whole.tolist() == [*range(30), *range(30)]
    monkeypatch.setattr("training.look_alikes._AT_ONCE", 7)
    assert np.array_equal(look_alikes(twice.split(1), None), whole)


def test_what_is_ignored_makes_no_picture_like_or_unlike_another(parts: Tensor) -> None:
    """A clock in the corner: other digits on a part's second picture, the same hour on two parts'."""
    shown = torch.cat([parts[:10], parts[4:5]])
    shown[:, :, 150:, 150:] = torch.arange(11, dtype=torch.uint8).view(-1, 1, 1, 1) * 25
    keep = torch.ones(28, 28, dtype=torch.bool)
    keep[18:, 18:] = False
    assert look_alikes([shown], None).tolist() == list(range(11))
    assert look_alikes([shown], keep).tolist() == [*range(10), 4]
    keep[:] = False
    assert look_alikes([shown], keep).tolist() == list(range(11))


def test_pictures_far_from_all_others_are_told_apart(parts: Tensor) -> None:
    """They are looked at together with the others, whose distances are a hundredth of theirs."""
    near = (128 + (parts.float() - 128) / 50).round().byte()
    shown = torch.cat([near, torch.full_like(parts[:1], 255), torch.zeros_like(parts[:1])])
    assert look_alikes([shown], None).tolist() == list(range(32))


@pytest.mark.parametrize("step", [0.05, 0.25, 1.0])
def test_parts_that_change_little_by_little_are_not_all_one(step: float) -> None:
    """A web that moves on: each picture looks like the one before it, and not like the first."""
    x = np.arange(224)
    waves = [128 + 80 * np.sin((x + step * index) / 9)[:, None] + 40 * np.cos(x / 30)[None] for index in range(250)]
    web = torch.from_numpy(np.stack(waves).astype(np.uint8))[:, None].expand(-1, 3, -1, -1)
    groups = look_alikes(web.split(16), None)
    assert np.bincount(groups).max() <= 250 * 0.5**0.5
    assert np.bincount(groups).min() >= 1


@pytest.mark.parametrize(("different", "shots"), [(8, 7), (4, 3), (6, 5), (20, 2)])
def test_a_few_parts_that_were_taken_often_are_as_many_as_they_are(parts: Tensor, different: int, shots: int) -> None:
    generator = np.random.default_rng(0)
    taken = [
        (part.numpy() + generator.normal(0, 2, part.shape)).round().clip(0, 255).astype(np.uint8)
        for part in parts[:different]
        for _ in range(shots)
    ]
    groups = look_alikes(torch.from_numpy(np.stack(taken)).split(16), None)
    assert groups.tolist() == np.repeat(np.arange(different), shots).tolist()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_pictures_that_are_hardly_different_are_as_different_as_there_are(parts: Tensor, count: int) -> None:
    same = parts[:1].repeat(count, 1, 1, 1)
    same[torch.arange(count), 0, torch.arange(count), 0] ^= 1
    groups = look_alikes([same], None)
    assert len(groups) == count
    assert sorted(set(groups.tolist())) == list(range(count))


def test_twins_are_told_where_they_are_many() -> None:
    paths = [Path(f"{index}.png") for index in range(20)]
    groups = np.arange(20)
    assert twins(groups, paths) is None
    groups[[15, 17]] = 3
    assert twins(groups, paths) is None
    groups[[18, 19]] = 3, 6
    told = twins(groups, paths)
    assert told is not None
    assert "4 of 20 (15.png like 3.png, 17.png like 3.png, 18.png like 3.png, ...)" in told
