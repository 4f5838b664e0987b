"""Learning the coupled-hypersphere scorer, on levels in which every place looks its own way."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from rich.console import Console

from models.coupled import Coupled
from models.errors import RecipeError
from training.distances import Distances
from training.features import Features
from training.fit_coupled import CoupledSection, cluster, fit_coupled, hypersphere_loss
from training.progress import Progress

CHANNELS = (4, 6, 8)
GRIDS = ((8, 8), (4, 4), (2, 2))
IMAGES = 12
FOLDS = np.arange(IMAGES) % 3
QUICK = CoupledSection(steps=90, positions=32, learning_rate=1e-2)


def good(n: int, *, seed: int) -> Features:
    """The same random pattern in every image; the first channel of each level is mostly noise, the others hardly."""
    pattern, noise = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    levels = []
    for c, (h, w) in zip(CHANNELS, GRIDS, strict=True):
        level = 2 * torch.randn(h, w, 1, c, generator=pattern) + 0.1 * torch.randn(h, w, n, c, generator=noise)
        level[..., 0] += 6 * torch.randn(h, w, n, generator=noise)
        levels.append(level)
    return Features(tuple(levels), Path("unused"))


Fit = Callable[..., tuple[Coupled, Distances]]


@pytest.fixture
def fit() -> Fit:
    """A scorer fitted on a dozen good images unless said otherwise, and the distances that came of it."""

    def run(
        features: Features | None = None,
        section: CoupledSection = QUICK,
        *,
        seed: int = 0,
        folds: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> tuple[Coupled, Distances]:
        scorer = Coupled(section.config(CHANNELS, GRIDS), CHANNELS, GRIDS)
        distances = fit_coupled(
            scorer,
            features or good(IMAGES, seed=1),
            section,
            seed=seed,
            folds=folds,
            device=torch.device("cpu"),
            progress=progress or Progress.silent(),
        )
        return scorer, distances

    return run


def test_training_makes_a_defect_stand_out_of_what_varies_in_good_images(fit: Fit) -> None:
    image = good(1, seed=2).batch([0])
    image[0][0, 1:, 5:, 5:] *= -1
    defect = torch.zeros(8, 8, dtype=torch.bool)
    defect[5:, 5:] = True

    def contrast(learning_rate: float) -> float:
        scorer, _ = fit(section=QUICK.model_copy(update={"learning_rate": learning_rate}))
        scorer.check()
        score_map = scorer(image)[0]
        return float(score_map[defect].mean() / score_map[~defect].mean())

    untrained, trained = contrast(1e-30), contrast(1e-2)
    assert untrained < 1
    assert trained > 1.2


def test_the_bank_is_the_mean_description_of_each_position(fit: Fit) -> None:
    """A learning rate that moves nothing leaves the descriptor that made the bank."""
    features = good(IMAGES, seed=1)
    scorer, _ = fit(features, QUICK.model_copy(update={"learning_rate": 1e-30}))

    assert torch.allclose(scorer.bank.float(), scorer.embed(features.batch(range(IMAGES))).mean(0), atol=2e-3)


def test_the_same_seed_gives_the_same_numbers(fit: Fit) -> None:
    first, again, other = (fit(seed=seed)[0].state_dict() for seed in (3, 3, 4))

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["weight"], other["weight"])


def test_without_folds_there_are_no_maps(fit: Fit) -> None:
    _, distances = fit()

    assert distances.in_sample is None
    assert distances.out_of_sample is None


def test_maps_are_the_scorers_own_and_of_one_that_has_not_seen_the_image(fit: Fit) -> None:
    features = good(IMAGES, seed=1)
    scorer, before = fit(features, folds=FOLDS)
    assert before.in_sample is not None
    assert torch.allclose(before.in_sample, scorer(features.batch(range(IMAGES))), rtol=1e-5)

    # Another image 0, of fold 0, must not change what is said of its fold.
    features.levels[0][:, :, 0] += 3
    _, after = fit(features, folds=FOLDS)

    assert before.out_of_sample is not None
    assert after.out_of_sample is not None
    same = (before.out_of_sample == after.out_of_sample).flatten(1).all(1)
    assert same.tolist() == [i in (3, 6, 9) for i in range(IMAGES)]
    assert not torch.isclose(before.out_of_sample, before.in_sample).any(dim=1).all()


def test_many_folds_become_five_and_it_is_said(fit: Fit) -> None:
    page = io.StringIO()
    section = QUICK.model_copy(update={"steps": 2})
    _, many = fit(section=section, folds=np.arange(IMAGES), progress=Progress(Console(file=page, width=200)))
    _, five = fit(section=section, folds=np.arange(IMAGES) % 5)

    assert "12 folds are merged to 5" in page.getvalue()
    assert many.out_of_sample is not None
    assert five.out_of_sample is not None
    assert torch.equal(many.out_of_sample, five.out_of_sample)


def test_one_fold_cannot_score_out_of_sample(fit: Fit) -> None:
    with pytest.raises(RecipeError, match=r"All 12 images are in fold 0.*calibration\.folds"):
        fit(folds=np.zeros(IMAGES, np.int64))


def test_a_loss_that_is_not_finite_says_what_to_do(fit: Fit) -> None:
    with pytest.raises(RecipeError, match=r"loss is (nan|inf) at step 2 of 3: lower scorer.learning_rate"):
        fit(section=QUICK.model_copy(update={"steps": 3, "learning_rate": 1e30}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_features_that_no_bank_can_hold_are_refused(fit: Fit, value: float) -> None:
    features = good(IMAGES, seed=1)
    features.levels[2][1, 1, 5, 0] = value

    with pytest.raises(RecipeError, match="half precision holds"):
        fit(features)


def test_a_bank_needs_vectors_to_keep_away_from(fit: Fit) -> None:
    with pytest.raises(RecipeError, match="7 vectors is too small for 5 neighbours and 3 more"):
        fit(section=CoupledSection(vectors=7, neighbours=5))


def test_a_smaller_bank_is_clustered(fit: Fit) -> None:
    scorer, _ = fit(section=QUICK.model_copy(update={"vectors": 10}))

    assert scorer.bank.shape == (10, 18)
    assert len(scorer.bank.unique(dim=0)) == 10


def test_centres_are_the_means_of_what_is_nearest_to_them() -> None:
    random = torch.Generator().manual_seed(0)
    around = torch.tensor([[0.0, 0.0], [10.0, 0.0]]).repeat_interleave(20, dim=0)
    points = around + torch.randn(40, 2, generator=random)

    centres = cluster(points, 2, random)

    expected = torch.stack([points[:20].mean(0), points[20:].mean(0)])
    assert torch.allclose(centres[centres[:, 0].argsort()], expected, atol=1e-5)
    assert torch.equal(cluster(points, 40, random), points)


def test_a_centre_without_points_stays() -> None:
    points = torch.tensor([[1.0, 2.0]] * 4)

    assert torch.equal(cluster(points, 3, torch.Generator().manual_seed(0)), points[:3])


def test_the_loss_draws_in_what_is_outside_the_radius_and_repels_what_is_inside() -> None:
    distances = torch.tensor([[0.2, 3.0, 0.5, 2.0]])  # two neighbours; two to keep away from

    # r² = 1: (0 + 2)/2 is drawn in, (1 - 0.5 - 0.1 + 0)/2 pushed out.
    assert float(hypersphere_loss(distances, torch.tensor(1.0), neighbours=2)) == pytest.approx(1200, rel=1e-5)
    assert float(hypersphere_loss(distances, torch.tensor(0.1), neighbours=2)) == pytest.approx(1590, rel=1e-5)


def test_a_learned_radius_grows(fit: Fit) -> None:
    """Then good patches need not come as near to their centroids."""
    (_, fixed), (_, learned) = (
        fit(section=CoupledSection(steps=90, learning_rate=1e-2, radius=radius), folds=FOLDS)
        for radius in ("fixed", "learned")
    )

    assert fixed.in_sample is not None
    assert learned.in_sample is not None
    assert float(learned.in_sample.mean()) > 1.2 * float(fixed.in_sample.mean())


def test_sizes_are_bounded_by_what_there_is() -> None:
    small = CoupledSection().config((24, 32, 96), ((56, 56), (28, 28), (14, 14)))
    large = CoupledSection().config((256, 512, 1024), ((112, 112), (56, 56), (28, 28)))

    assert (small.dimensions, small.vectors, small.neighbours) == (152, 3136, 3)
    assert (large.dimensions, large.vectors) == (448, 3136)
    with pytest.raises(ValidationError, match="coreset"):
        CoupledSection(coreset=0.1)  # type: ignore[call-arg]
