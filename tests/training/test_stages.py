from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.backbone import Backbone
from models.manifest import Kind
from models.memory_bank import MemoryBankConfig
from training.choose import hold_out
from training.stages import Stages, choose_alignment, run_stages
from training.synthetic import Tiles, make_tiles
from training.textures import ProceduralTextures
from training.workshop import Workshop

MakeWorkshop = Callable[..., Workshop]
TEXTURES = ProceduralTextures()
CHOOSE = {"use": "choose", "ways": ["shift", "rotate"], "stretches": 1.0}
SEVERAL = {"name": "gaussian", "rank": [4, 2], "shrinkage": [0.1, 0.3], "pooling": 3, "dimensions": 0.1}
BRIEF = {"learning_rate": 1e-3, "batch_size": 8, "max_epochs": 1, "patience": 1}
JIGSAW = {"tiles": 2, "permutations": 4, "schedule": BRIEF}


def wedge(seed: int) -> np.ndarray:
    """A patchy wedge at any angle on a dark ground, (128, 128, 3)."""
    rng = np.random.default_rng(seed)
    picture = np.full((128, 128, 3), 40, np.uint8)
    cv2.fillPoly(picture, [np.array([[20, 56], [108, 44], [108, 84], [20, 72]], np.int32)], (150, 150, 150))
    for x, colour in ((30, (220, 40, 40)), (52, (40, 200, 60)), (74, (50, 70, 230)), (96, (240, 220, 60))):
        cv2.circle(picture, (x, 64), 7, colour, -1)
    turn = cv2.getRotationMatrix2D((63.5, 63.5), float(rng.uniform(0, 360)), 1.0)
    turned = cv2.warpAffine(picture, turn, (128, 128), borderValue=(40, 40, 40))
    return np.clip(turned + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def turned_parts(tmp_path_factory: pytest.TempPathFactory) -> Tiles:
    """Twenty wedges, taken as large as an alignment wants them."""
    pictures = torch.from_numpy(np.stack([wedge(seed) for seed in range(20)])).permute(0, 3, 1, 2)
    return make_tiles(pictures.contiguous(), "object", folder=tmp_path_factory.mktemp("wedges"))


def test_parts_that_lie_every_which_way_are_turned(
    make_workshop: MakeWorkshop, part_backbone: Backbone, turned_parts: Tiles
) -> None:
    workshop = make_workshop(alignment=CHOOSE)
    align, choice = choose_alignment(
        workshop, part_backbone, turned_parts, kind="object", square=True, textures=TEXTURES
    )
    assert align is not None
    assert align.name == "rotate"
    assert (choice.stage, choice.kept) == ("alignment", True)
    assert len(choice.figures) == 3
    assert choice.reason.startswith(f"rotate x{align.along:g} x{align.across:g}: of 3 the best mean AUROC")
    figures = {name.split()[0]: figure or 0 for name, figure in choice.figures.items()}
    assert figures["rotate"] > max(figures["none"], figures["shift"])
    assert not any(workshop.folder.rglob("*"))


def test_an_alignment_that_does_not_gain_by_the_margin_stays_away(
    make_workshop: MakeWorkshop, part_backbone: Backbone, turned_parts: Tiles
) -> None:
    workshop = make_workshop(alignment=CHOOSE, validation={"margin": 0.9})
    align, choice = choose_alignment(
        workshop, part_backbone, turned_parts, kind="object", square=True, textures=TEXTURES
    )
    assert (align, choice.kept) == (None, False)
    assert choice.reason.startswith("none: of 3")


def test_always_is_the_best_of_those_that_there_are(
    make_workshop: MakeWorkshop, part_backbone: Backbone, turned_parts: Tiles
) -> None:
    workshop = make_workshop(alignment={**CHOOSE, "use": "always"}, validation={"margin": 0.9})
    align, choice = choose_alignment(
        workshop, part_backbone, turned_parts, kind="object", square=False, textures=TEXTURES
    )
    assert align is not None
    assert align.name == "shift"
    assert choice.kept
    assert "none" not in choice.figures


@pytest.mark.parametrize(
    ("kind", "square", "count", "ways", "reason"),
    [
        ("texture", True, 20, ["shift", "rotate"], "a texture has no place and direction"),
        ("object", True, 9, ["shift", "rotate"], "9 good images are too few to measure it"),
        ("object", False, 20, ["rotate"], "the pictures are not square"),
    ],
)
def test_nothing_is_measured_where_there_is_nothing_to_align(
    make_workshop: MakeWorkshop,
    part_backbone: Backbone,
    turned_parts: Tiles,
    *,
    kind: Kind,
    square: bool,
    count: int,
    ways: list[str],
    reason: str,
) -> None:
    workshop = make_workshop(alignment={**CHOOSE, "ways": ways})
    tiles = turned_parts.subset(range(count))
    align, choice = choose_alignment(workshop, part_backbone, tiles, kind=kind, square=square, textures=TEXTURES)
    assert (align, choice.stage, choice.kept, choice.figures) == (None, "alignment", False, {})
    assert reason in choice.reason


def test_always_needs_no_figures_where_pictures_are_few(
    make_workshop: MakeWorkshop, part_backbone: Backbone, turned_parts: Tiles
) -> None:
    workshop = make_workshop(alignment={**CHOOSE, "ways": ["rotate"], "use": "always"})
    few = turned_parts.subset(range(9))
    align, choice = choose_alignment(workshop, part_backbone, few, kind="object", square=True, textures=TEXTURES)
    assert align is not None
    assert align.name == "rotate"
    assert (choice.kept, choice.figures) == (True, {})
    assert choice.reason.endswith(": the recipe says always")


@pytest.mark.parametrize("square", [True, False])
def test_a_part_that_does_not_stand_out_is_said(
    make_workshop: MakeWorkshop, part_backbone: Backbone, square: bool
) -> None:
    even = Tiles.without_foregrounds(torch.full((12, 3, 128, 128), 90, dtype=torch.uint8))
    workshop = make_workshop(alignment=CHOOSE)
    align, choice = choose_alignment(workshop, part_backbone, even, kind="object", square=square, textures=TEXTURES)
    assert align is None
    assert "no part stands out" in choice.reason


def stages(workshop: Workshop, backbone: Backbone, tiles: Tiles, *, kind: Kind = "object") -> Stages:
    return run_stages(workshop, backbone, tiles, align=None, kind=kind, textures=TEXTURES)


def test_where_there_is_nothing_to_choose_nothing_is_measured(
    make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles
) -> None:
    workshop = make_workshop()
    result = stages(workshop, part_backbone, part_tiles)
    assert result.backbone is part_backbone
    assert (result.fusion, result.figures, result.smoothing) == (None, None, 4.0)
    assert result.scorer == workshop.fitter.first(16)
    assert [(choice.stage, choice.kept, choice.reason) for choice in result.choices] == [
        (stage, False, "the recipe says never") for stage in ("jigsaw", "fusion")
    ]
    assert not workshop.progress.seconds


def test_the_best_settings_are_taken(make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles) -> None:
    workshop = make_workshop(scorer=SEVERAL, map={"smoothing": [4.0, 0.0]})
    result = stages(workshop, part_backbone, part_tiles)
    settings = result.choices[-1]
    assert (settings.stage, settings.kept, len(settings.figures)) == ("settings", True, 8)
    winner, figure = max(settings.figures.items(), key=lambda each: each[1] or 0)
    assert settings.reason.startswith(f"{winner}: of 8 ")
    assert result.figures is not None
    assert result.figures.decisive == figure
    scorer = result.scorer.model_dump()
    named = [f"{name} {scorer[name]:g}" for name in ("rank", "shrinkage", "pooling")]
    assert winner == ", ".join([*named, f"smoothing {result.smoothing:g}"])


def test_of_too_few_pictures_the_first_settings_are_taken(
    make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles
) -> None:
    workshop = make_workshop(
        scorer=SEVERAL, map={"smoothing": [2.0, 4.0]}, jigsaw={"use": "choose", **JIGSAW}, fusion={"use": "choose"}
    )
    result = stages(workshop, part_backbone, part_tiles.subset(range(9)))
    assert (result.scorer, result.smoothing) == (workshop.fitter.first(9), 2.0)
    assert [(choice.stage, choice.kept) for choice in result.choices] == [
        ("jigsaw", False),
        ("fusion", False),
        ("settings", True),
    ]
    assert all("9 good images are too few" in choice.reason for choice in result.choices)
    assert result.figures is None


def test_a_memory_bank_is_as_large_as_all_pictures_ask_for(
    make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles
) -> None:
    workshop = make_workshop(
        scorer={"name": "memory_bank", "share": 0.25, "projection": 16}, map={"smoothing": [4.0, 0.0]}
    )
    result = stages(workshop, part_backbone, part_tiles)
    assert result.figures is not None  # measured on a part of them
    assert isinstance(result.scorer, MemoryBankConfig)
    assert result.scorer.vectors == 0.25 * 16 * 64


@pytest.mark.parametrize(("margin", "kept"), [(0.0, None), (0.9, False)])
def test_stages_are_kept_where_they_gain(
    make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles, margin: float, kept: bool | None
) -> None:
    workshop = make_workshop(
        jigsaw={"use": "choose", **JIGSAW},
        fusion={"use": "choose", "schedule": BRIEF},
        validation={"margin": margin},
    )
    result = stages(workshop, part_backbone, part_tiles)
    jigsaw, fusion, settings = result.choices
    for choice in (jigsaw, fusion):
        gain = sum(
            (choice.figures[f"{what}_auroc_with"] or 0) - (choice.figures[f"{what}_auroc_without"] or 0)
            for what in ("image", "pixel")
        )
        assert choice.kept is (gain > 0 and gain / 2 >= margin)
        assert kept is None or choice.kept is kept
    assert (result.backbone is part_backbone) is not jigsaw.kept
    assert (result.fusion is None) is not fusion.kept
    assert result.figures is not None
    after = "with" if fusion.kept else "without"
    assert result.figures.image_auroc == fusion.figures[f"image_auroc_{after}"]
    assert list(settings.figures.values()) == [result.figures.decisive]


def test_a_texture_has_no_jigsaw_and_what_is_always_needs_no_figures(
    make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles
) -> None:
    workshop = make_workshop(jigsaw={"use": "always", **JIGSAW}, fusion={"use": "always", "schedule": BRIEF})
    result = stages(workshop, part_backbone, part_tiles, kind="texture")
    jigsaw, fusion = result.choices
    assert (jigsaw.kept, fusion.kept) == (False, True)
    assert "texture" in jigsaw.reason
    assert fusion.reason == "the recipe says always"
    assert result.backbone is part_backbone
    assert result.fusion is not None
    assert result.figures is None


def test_what_is_held_out_is_not_learnt_from(
    make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles, tmp_path: Path
) -> None:
    workshop = make_workshop(jigsaw={"use": "choose", **JIGSAW}, fusion={"use": "choose", "schedule": BRIEF})
    section = workshop.recipe.validation
    _, apart = hold_out(part_tiles, share=section.share, most=section.most, seed=0)
    inverted = part_tiles.images.clone()
    inverted[list(apart.chosen or ())] ^= 255
    learnt = []
    for folder, images in (("as they are", part_tiles.images), ("inverted", inverted)):
        (tmp_path / folder).mkdir()
        tiles = Tiles(images, part_tiles.foregrounds)
        result = stages(replace(workshop, folder=tmp_path / folder), part_backbone, tiles)
        (checkpoint,) = (tmp_path / folder).glob("jigsaw-plain-*.pt")
        state = torch.load(checkpoint, weights_only=True)
        learnt.append((state["losses"], result.figures))
    assert len(apart) == 3
    assert learnt[0][0] == learnt[1][0]
    assert learnt[0][1] != learnt[1][1]
