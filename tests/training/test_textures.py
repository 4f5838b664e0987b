from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.errors import DatasetError
from training import textures
from training.patterns import PATTERNS
from training.textures import FolderTextures, ProceduralTextures, Textures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of different modes, sizes and depths, and files that are no pictures."""
    ramp = np.linspace(0, 255, 400 * 600).reshape(400, 600).astype(np.uint8)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([ramp, ramp.T.reshape(400, 600), ramp])).save(tmp_path / "deep" / "rgb.JPG")
    Image.fromarray(np.full((30, 40, 4), 200, dtype=np.uint8)).save(tmp_path / "deep" / "er" / "small.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def sources(folder: Path) -> list[Textures]:
    return [FolderTextures(folder), ProceduralTextures()]


@pytest.mark.parametrize("size", [1, 32, 224])
def test_textures_have_the_size_asked_for(folder: Path, size: int) -> None:
    rng = np.random.default_rng(0)
    for source in sources(folder):
        for _ in range(12):
            drawn = source.draw(rng, size)
            assert drawn.shape == (size, size, 3)
            assert drawn.dtype == np.uint8
            assert drawn.flags["C_CONTIGUOUS"]


def test_the_generator_alone_decides(folder: Path) -> None:
    for first, second in zip(sources(folder), sources(folder), strict=True):
        first.draw(np.random.default_rng(9), 48)  # what was drawn and cached before must not matter
        alike = [source.draw(np.random.default_rng(seed), 48) for seed in range(8) for source in (first, second)]
        for one, other in zip(alike[::2], alike[1::2], strict=True):
            np.testing.assert_array_equal(one, other)


def test_draws_differ(folder: Path) -> None:
    for source in sources(folder):
        rng = np.random.default_rng(3)
        drawn = {source.draw(rng, 32).tobytes() for _ in range(20)}
        assert len(drawn) >= 18


def test_a_folder_is_searched_to_its_bottom_for_pictures_only(folder: Path) -> None:
    assert [path.name for path in FolderTextures(folder).paths] == ["small.png", "rgb.JPG", "grey.png"]


def test_crops_are_turned_mirrored_and_recoloured(tmp_path: Path) -> None:
    """Red rises to the right, green downwards, blue is striped: each crop still tells how it was turned."""
    ramp = np.tile(np.linspace(20, 230, 64).astype(np.uint8), (64, 1))
    stripes = np.where(np.arange(64) // 4 % 2, 90, 160).astype(np.uint8)
    Image.fromarray(np.dstack([ramp, ramp.T, np.tile(stripes, (64, 1))])).save(tmp_path / "ramps.png")
    source, rng = FolderTextures(tmp_path), np.random.default_rng(0)
    orientations, contrasts = set(), []
    for _ in range(60):
        drawn = source.draw(rng, 64).astype(float)
        rises = [
            (c[:, -8:].mean() - c[:, :8].mean(), c[-8:].mean() - c[:8].mean()) for c in (drawn[..., 0], drawn[..., 1])
        ]
        orientations.add(tuple(np.sign(np.round(rise, -1)) for pair in rises for rise in pair))
        contrasts.append(np.ptp(drawn[..., 2]))
    assert len(orientations) == 8
    assert max(contrasts) > 1.6 * min(contrasts)


def test_the_cache_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        Image.fromarray(np.full((8, 8, 3), 40 * index, dtype=np.uint8)).save(tmp_path / f"{index}.png")
    monkeypatch.setattr(textures, "CACHED_IMAGES", 2)
    source, rng = FolderTextures(tmp_path), np.random.default_rng(0)
    for _ in range(30):
        source.draw(rng, 8)
    assert len(source._cache) == 2


def test_many_threads_may_draw_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(12):
        Image.fromarray(np.full((8, 8, 3), index, dtype=np.uint8)).save(tmp_path / f"{index}.png")
    monkeypatch.setattr(textures, "CACHED_IMAGES", 2)
    source = FolderTextures(tmp_path)

    def drawn(seed: int) -> bytes:
        return source.draw(np.random.default_rng(seed), 8).tobytes()

    alone = [drawn(seed) for seed in range(400)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(drawn, range(400))) == alone
    assert len(source._cache) <= 2 + 8


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.__name__)
def test_patterns_use_the_unit_range(pattern: object) -> None:
    assert callable(pattern)
    fields = np.stack([pattern(np.random.default_rng(seed), 64) for seed in range(12)])
    assert fields.dtype == np.float32
    assert fields.min() >= 0
    assert fields.max() <= 1
    assert (fields.std(axis=(1, 2)) > 0.02).all()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere does not exist.*procedural"):
        FolderTextures(tmp_path / "nowhere")


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(DatasetError, match="holds no picture"):
        FolderTextures(tmp_path)


def test_what_is_hidden_is_no_texture(folder: Path) -> None:
    (folder / "deep" / "._rgb.JPG").write_bytes(b"resource fork")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "folder.png").mkdir()
    assert [path.name for path in FolderTextures(folder).paths] == ["small.png", "rgb.JPG", "grey.png"]


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\nbroken", b"\xff\xd8\xff\xe0"])
def test_an_unreadable_picture_is_named_at_once(folder: Path, content: bytes) -> None:
    (folder / "broken.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"broken\.png cannot be read: .*[^.]\. Remove it"):
        FolderTextures(folder)


def test_a_picture_that_is_damaged_further_on_is_named_when_drawn(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "grey.png").read_bytes()
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"half\.png cannot be read"):
        FolderTextures(cut).draw(np.random.default_rng(0), 8)
