from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.alignment import OVERSAMPLING, AlignmentConfig
from models.backbone import Backbone
from models.calibration import Calibration
from models.compact_gaussian import CompactGaussianConfig
from models.folding import fits_bfloat16, folded
from models.preprocess import Preprocess, PreprocessConfig
from training import workshop as workshops
from training.choose import Candidate, ValidationSet, make_validation_set
from training.folds import assign_folds
from training.synthetic import Synthetic, Tiles
from training.textures import ProceduralTextures
from training.workshop import Workshop

MakeWorkshop = Callable[..., Workshop]
ALIGN = AlignmentConfig(name="shift", along=1.2, across=1.2)
SEVERAL = {"name": "gaussian", "rank": [4, 2], "shrinkage": 0.1, "pooling": [3, 1], "dimensions": 0.1}


def held_out(tiles: Tiles) -> ValidationSet:
    return make_validation_set(Synthetic(tiles, ProceduralTextures(), 0), defects=1)


def taken_wide(tiles: Tiles) -> Tiles:
    return Tiles(
        tiles.images.repeat_interleave(OVERSAMPLING, 2).repeat_interleave(OVERSAMPLING, 3),
        tiles.foregrounds.repeat(OVERSAMPLING, 1).repeat(OVERSAMPLING, 2),
        tiles.chosen,
    )


def candidates(
    workshop: Workshop, backbone: Backbone, tiles: Tiles, *, align: AlignmentConfig | None = None
) -> list[Candidate]:
    good, apart = tiles.subset(range(11)), tiles.subset(range(11, 16))
    return workshop.candidates(backbone, None, align=align, good=good, held_out=held_out(apart))


def test_every_setting_is_a_candidate(make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles) -> None:
    workshop = make_workshop(scorer=SEVERAL, map={"smoothing": [4.0, 0.0]})
    assert workshop.settings == 8
    found = candidates(workshop, part_backbone, part_tiles)
    assert len({candidate.label for candidate in found}) == len(found) == 8
    assert {candidate.smoothing for candidate in found} == {4.0, 0.0}
    assert len({candidate.figures for candidate in found}) > 1
    assert all(candidate.figures.decisive > 0.6 for candidate in found)


@pytest.mark.parametrize("align", [None, ALIGN], ids=["as it lies", "aligned"])
def test_a_candidate_is_worth_what_its_detector_is(
    make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles, align: AlignmentConfig | None
) -> None:
    workshop = make_workshop()
    tiles = part_tiles if align is None else taken_wide(part_tiles)
    (candidate,) = candidates(workshop, part_backbone, tiles, align=align)
    config = workshop.config(align=align, fused=False, scorer=candidate.scorer, smoothing=candidate.smoothing)
    detector = workshop.assemble(config, part_backbone, None)
    workshop.complete(detector, tiles.subset(range(11)), groups=np.arange(11))
    data = held_out(tiles.subset(range(11, 16)))
    scores = detector(data.tiles).score.numpy()
    wins = [float(defective > good) for good in scores[:5] for defective in scores[5:]]
    assert candidate.figures.image_auroc == pytest.approx(np.mean(wins), abs=0.05)


@pytest.mark.parametrize("name", ["dense_gaussian", "memory_bank", "coupled"])
def test_scorers_without_settings_have_one_candidate(
    make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles, name: str
) -> None:
    few = {"coupled": {"steps": 2, "dimensions": 16}, "memory_bank": {"projection": 16}}.get(name, {"channels": 20})
    workshop = make_workshop(scorer={"name": name, **few})
    (candidate,) = candidates(workshop, part_backbone, part_tiles)
    assert candidate.scorer.name == name
    assert candidate.figures.decisive > 0.5


def test_a_detector_has_weights_as_an_artifact_stores_them(
    make_workshop: MakeWorkshop, part_backbone: Backbone
) -> None:
    workshop = make_workshop()
    before = {name: tensor.clone() for name, tensor in part_backbone.state_dict().items()}
    config = workshop.config(align=None, fused=False, scorer=workshop.fitter.first(16), smoothing=4.0)
    detector = workshop.assemble(config, part_backbone, None)
    folded_in, shift = folded(part_backbone["conv1"], part_backbone["bn1"])
    assert torch.equal(detector.backbone["conv1"].weight, folded_in.bfloat16().float())
    assert torch.equal(detector.backbone["bn1"].bias, shift.bfloat16().float())
    assert fits_bfloat16(detector.backbone)
    for name, tensor in part_backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not detector.training
    assert not any(parameter.requires_grad for parameter in detector.parameters())


def test_a_fusion_is_trained_and_put_in(
    make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles
) -> None:
    workshop = make_workshop()
    fusion = workshop.fuse(part_backbone, Synthetic(part_tiles, ProceduralTextures(), 0))
    config = workshop.config(align=None, fused=True, scorer=workshop.fitter.first(16), smoothing=4.0)
    assert config.fusion == workshop.recipe.fusion.form
    detector = workshop.assemble(config, part_backbone, fusion)
    assert detector.fusion is not None
    for name, tensor in detector.fusion.state_dict().items():
        torch.testing.assert_close(tensor, fusion.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_what_is_ignored_is_left_out_by_detectors_and_candidates(
    make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles
) -> None:
    ignored = np.zeros((128, 128), np.bool_)
    ignored[:64] = True
    workshop = make_workshop(ignored=ignored)
    config = workshop.config(align=None, fused=False, scorer=workshop.fitter.first(16), smoothing=4.0)
    detector = workshop.assemble(config, part_backbone, None)
    workshop.complete(detector, part_tiles, groups=np.arange(len(part_tiles)))
    maps = detector(part_tiles.images).map
    assert not maps[:, :8].any()
    assert bool((maps[:, 8:] > 0).all())
    (seen,), (partly,) = (
        candidates(each, part_backbone, part_tiles) for each in (replace(workshop, ignored=None), workshop)
    )
    assert partly.figures != seen.figures


def test_the_threshold_comes_from_scores_of_unseen_pictures(
    make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles
) -> None:
    workshop = make_workshop(calibration={"folds": 4, "false_reject_rate": 0.5})
    config = workshop.config(align=None, fused=False, scorer=workshop.fitter.first(16), smoothing=4.0)
    detector = workshop.assemble(config, part_backbone, None)
    record, scores, warning = workshop.complete(detector, part_tiles, groups=np.arange(len(part_tiles)))
    assert warning is None
    assert record.value == scores.sort().values[8]  # the 9th of 16 at a half
    assert record.pixel is not None
    assert 0 < record.pixel <= record.value
    # In the precision that the features were in: rounding moves a score by a percent.
    seen = detector.for_scoring(workshop.device, workshop.dtype)(part_tiles.images).score
    assert bool((scores > seen).float().mean() > 0.8)
    assert scores.mean() > 1.05 * seen.mean()
    distances, pose = workshop.fit(detector, part_tiles, folds=assign_folds(16, 4, seed=0))
    assert pose is None
    assert distances.out_of_sample is not None
    torch.testing.assert_close(detector.finish(distances.out_of_sample, None).amax((1, 2)), scores)
    assert not any(workshop.folder.rglob("*"))


def test_pictures_of_one_group_are_scored_by_fits_that_know_none_of_them(
    make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles
) -> None:
    workshop = make_workshop(calibration={"folds": "leave_one_out"})
    twice = Tiles(part_tiles.images.repeat(2, 1, 1, 1), part_tiles.foregrounds)
    config = workshop.config(align=None, fused=False, scorer=workshop.fitter.first(32), smoothing=4.0)
    found = []
    for tiles, groups in ((part_tiles, np.arange(16)), (twice, np.arange(32) % 16), (twice, np.arange(32))):
        detector = workshop.assemble(config, part_backbone, None)
        found.append(workshop.complete(detector, tiles, groups=groups)[1])
    once, grouped, apart = found
    torch.testing.assert_close(grouped[:16], grouped[16:], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(grouped[:16], once, rtol=0.1, atol=0)
    assert grouped.max() > 1.5 * apart.max()


def test_each_of_a_group_has_the_highest_of_their_scores(
    make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles
) -> None:
    workshop = make_workshop(calibration={"folds": "leave_one_out", "false_reject_rate": 0.2})
    config = workshop.config(align=None, fused=False, scorer=workshop.fitter.first(16), smoothing=4.0)
    groups = np.array([0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 7, 8, 8, 8, 8, 8])
    detector = workshop.assemble(config, part_backbone, None)
    record, scores, warning = workshop.complete(detector, part_tiles, groups=groups)
    assert scores.shape == (16,)
    assert len(scores.unique()) == 9
    assert warning is None
    distances, _ = workshop.fit(detector, part_tiles, folds=assign_folds(9, 9, seed=0)[groups])
    assert distances.out_of_sample is not None
    own = detector.finish(distances.out_of_sample, None).amax((1, 2))
    for group in range(9):
        assert bool((scores[groups == group] == own[groups == group].max()).all())
    assert record.value == Calibration(scores).threshold(0.2)  # or the artifact would be refused
    wished = make_workshop(calibration={"folds": "leave_one_out", "false_reject_rate": 0.06})
    record, scores, warning = wished.complete(detector, part_tiles, groups=groups)
    assert record.false_reject_rate == pytest.approx(1 / 10)  # of nine
    assert record.value == Calibration(scores).threshold(record.false_reject_rate)
    assert "9 good images cannot vouch" in str(warning)


@pytest.mark.parametrize(("twins", "folds"), [(0, 60), (20, 40), (21, 20)])
def test_one_by_one_is_left_where_many_share_a_fold(make_workshop: MakeWorkshop, twins: int, folds: int) -> None:
    workshop = make_workshop(calibration={"folds": "leave_one_out"})
    groups = np.concatenate([np.arange(60 - twins), np.arange(twins)])
    assert workshop._folds(groups) == folds
    assert make_workshop(calibration={"folds": 7})._folds(groups) == 7


def test_a_new_backbone_depends_on_the_seed_alone(make_workshop: MakeWorkshop) -> None:
    first = make_workshop().new_backbone()
    torch.rand(5)
    again, other = make_workshop().new_backbone(), make_workshop(seed=1).new_backbone()
    assert torch.equal(first["conv1"].weight, again["conv1"].weight)
    assert not torch.equal(first["conv1"].weight, other["conv1"].weight)
    assert not first.training


def test_loaded_weights_give_what_they_gave_and_stages_see_pictures_as_they_do(
    make_workshop: MakeWorkshop,
    part_backbone: Backbone,
    part_tiles: Tiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workshop, given = make_workshop(), make_workshop().recipe.preprocess
    torch.save(part_backbone.state_dict(), tmp_path / "weights.pth")
    loaded, _ = workshop.load_backbone(str(tmp_path / "weights.pth"))
    ours = workshop.preprocess(None)
    assert (given.eight_digits, ours.eight_digits) == (False, True)
    with torch.inference_mode():
        wanted = part_backbone.eval()(Preprocess(given)(part_tiles.images))
        found = loaded.eval()(Preprocess(ours)(part_tiles.images))
        wrong = loaded(Preprocess(given)(part_tiles.images))
    for level, peer, other in zip(found, wanted, wrong, strict=True):
        assert float((level - peer).norm() / peer.norm()) < 0.02  # what lies beyond the border is another mean
        assert float((other - peer).norm() / peer.norm()) > 0.04
    seen: list[PreprocessConfig] = []
    for stage in ("finetune", "train_fusion"):
        monkeypatch.setattr(workshops, stage, lambda *_, preprocess, **__: seen.append(preprocess))
    source = Synthetic(part_tiles, ProceduralTextures(), 0)
    workshop.tune(loaded, source)
    workshop.fuse(loaded, source)
    assert seen == [ours, ours]


def test_a_checkpoint_is_of_the_backbone_that_a_stage_began_with(
    make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    monkeypatch.setattr(workshops, "finetune", lambda *_, checkpoint, **__: names.append(checkpoint.name))
    workshop, source = make_workshop(), Synthetic(part_tiles, ProceduralTextures(), 0)
    for backbone in (part_backbone, part_backbone, workshop.new_backbone()):
        workshop.tune(backbone, source)
    assert names[0] == names[1] != names[2]


def test_tuning_leaves_the_backbone_that_it_starts_from(
    make_workshop: MakeWorkshop, part_backbone: Backbone, part_tiles: Tiles
) -> None:
    before = {name: tensor.clone() for name, tensor in part_backbone.state_dict().items()}
    tuned = make_workshop().tune(part_backbone, Synthetic(part_tiles, ProceduralTextures(), 0))
    assert not torch.equal(tuned["layer3"][0].conv1.weight, before["layer3.0.conv1.weight"])
    for name, tensor in part_backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_sizes_of_the_scorer_are_the_networks(make_workshop: MakeWorkshop) -> None:
    workshop = make_workshop(preprocess={"image_size": 32, "tiles": 2})
    assert workshop.fitter.side == 64
    assert workshop.fitter.first(9) == CompactGaussianConfig(dimensions=45, rank=4, shrinkage=0.1, pooling=3)
    assert workshop.preprocess(ALIGN).taken == 128
