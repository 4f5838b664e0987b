from pathlib import Path

import pytest
from pydantic import ValidationError

from models.errors import RecipeError
from training.recipe import Recipe, read_recipe, shipped_recipes


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_can_be_used(name: str) -> None:
    assert isinstance(read_recipe(name), Recipe)


def test_the_seed_recipe_is_the_source_to_the_letter() -> None:
    recipe = read_recipe("seed")
    assert (recipe.jigsaw.use, recipe.jigsaw.tiles) == ("always", 3)
    assert recipe.fusion.use == "always"
    assert recipe.gaussian.epsilon == 0.01
    assert recipe.gaussian.channels == 550
    assert recipe.calibration.rule == "train_max"


def test_the_default_recipe_promises_a_false_reject_rate() -> None:
    recipe = read_recipe("default")
    assert (recipe.calibration.rule, recipe.calibration.false_reject_rate) == ("conformal", 0.02)
    assert recipe.fusion.use == "choose"


def test_a_file_sets_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    name = write(
        tmp_path,
        'seed = 7\n[preprocess]\nimage_size = 64\n[jigsaw]\nuse = "never"\nschedule = { max_epochs = 2 }\n'
        "[calibration]\nfolds = 5\n",
    )
    recipe = read_recipe(name)
    assert (recipe.seed, recipe.preprocess.image_size, recipe.jigsaw.use) == (7, 64, "never")
    assert (recipe.jigsaw.schedule.max_epochs, recipe.jigsaw.schedule.batch_size) == (2, 32)
    assert recipe.calibration.folds == 5
    assert recipe.fusion == Recipe().fusion


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path, "")) == Recipe()


def test_a_given_false_reject_rate_overrides_the_recipes(tmp_path: Path) -> None:
    named = write(tmp_path, "[calibration]\nfalse_reject_rate = 0.1\nfolds = 3\n")
    assert read_recipe(named).calibration.false_reject_rate == 0.1
    overridden = read_recipe(named, false_reject_rate=0.3).calibration
    assert (overridden.false_reject_rate, overridden.folds) == (0.3, 3)
    assert read_recipe(write(tmp_path, ""), false_reject_rate=0.3).calibration.false_reject_rate == 0.3


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("colour = 1", "colour"),
        ("[jigsaw]\npieces = 3", "jigsaw.pieces"),
        ("[jigsaw.schedule]\nepochs = 3", "jigsaw.schedule.epochs"),
        ('[jigsaw]\nuse = "sometimes"', "jigsaw.use"),
        ("[jigsaw]\ntiles = 1", "jigsaw.tiles"),
        ("[jigsaw]\ntiles = 2\npermutations = 30", "jigsaw"),
        ("[jigsaw.schedule]\nlearning_rate = 0.0", "jigsaw.schedule.learning_rate"),
        ("[fusion.schedule]\nlearning_rate = inf", "fusion.schedule.learning_rate"),
        ("[gaussian]\nepsilon = nan", "gaussian.epsilon"),
        ("[gaussian]\nchannels = 0", "gaussian.channels"),
        ("[calibration]\nfolds = 1", "calibration.folds"),
        ('[calibration]\nrule = "guess"', "calibration.rule"),
        ("[calibration]\nfalse_reject_rate = 1.0", "calibration.false_reject_rate"),
        ("[validation]\nshare = 0.5", "validation.share"),
        ("[preprocess]\nimage_size = 100", "preprocess"),
        ("seed = -1", "seed"),
        ("calibration = 3", "calibration"),
        ("[preprocess]\nimage_size = 32\n[gaussian]\nsmoothing = 8", r"recipe: .*gaussian\.smoothing of 8\.0 .* 32"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path, text: str, setting: str) -> None:
    with pytest.raises(RecipeError, match=rf"mine\.toml.* {setting}[.: ]"):
        read_recipe(write(tmp_path, text))


def test_an_overriding_rate_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"calibration\.false_reject_rate"):
        read_recipe("default", false_reject_rate=2.0)
    with pytest.raises(RecipeError, match="calibration"):
        read_recipe(write(tmp_path, "calibration = 3"), false_reject_rate=0.1)


def test_a_missing_recipe_names_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'fast'.*default.*seed"):
        read_recipe("fast")
    with pytest.raises(RecipeError, match="no recipe"):
        read_recipe(str(tmp_path))


@pytest.mark.parametrize("content", [b"seed = ", b"seed = 1\nseed = 2\n", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"broken\.toml is not valid TOML"):
        read_recipe(str(path))


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read_recipe("default").seed = 1
