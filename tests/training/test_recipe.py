import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

import training.recipe
from models.errors import RecipeError
from training.fit_coupled import CoupledSection
from training.fit_dense import DenseGaussianSection
from training.fit_gaussian import GaussianSection
from training.fit_memory_bank import MemoryBankSection
from training.recipe import (
    AlignmentSection,
    MapSection,
    Recipe,
    read_recipe,
    shipped_recipes,
)


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
    assert (recipe.jigsaw.frozen_levels, recipe.jigsaw.blend) == (0, 1.0)
    assert recipe.jigsaw.head_learning_rate == recipe.jigsaw.schedule.learning_rate  # it speaks of one Adam
    assert (recipe.fusion.use, recipe.fusion.form) == ("always", "mfcsam")
    assert recipe.alignment.use == "never"
    assert recipe.scorer == DenseGaussianSection(channels=550, epsilon=0.01)
    assert recipe.map.smoothing == (4.0,)
    assert recipe.calibration.rule == "train_max"


def test_the_default_recipe_promises_a_false_reject_rate() -> None:
    recipe = read_recipe("default")
    assert (recipe.calibration.rule, recipe.calibration.false_reject_rate) == ("conformal", 0.02)
    assert (recipe.alignment.use, recipe.jigsaw.use, recipe.fusion.use) == ("choose",) * 3
    assert recipe.scorer.name == "gaussian"


def test_what_the_default_recipe_says_of_the_scorer_and_the_maps_are_the_defaults() -> None:
    recipe = read_recipe("default")
    assert (recipe.scorer, recipe.map, recipe.alignment) == (GaussianSection(), MapSection(), AlignmentSection())


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


def test_overrides_change_what_they_name(tmp_path: Path) -> None:
    named = write(tmp_path, "[calibration]\nfalse_reject_rate = 0.1\nfolds = 3\n")
    assert read_recipe(named).calibration.false_reject_rate == 0.1
    rate = {"calibration": {"false_reject_rate": 0.3}}
    overridden = read_recipe(named, overrides=rate).calibration
    assert (overridden.false_reject_rate, overridden.folds) == (0.3, 3)
    assert read_recipe(write(tmp_path, ""), overrides=rate).calibration.false_reject_rate == 0.3


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("gaussian", GaussianSection()),
        ("dense_gaussian", DenseGaussianSection()),
        ("memory_bank", MemoryBankSection()),
        ("coupled", CoupledSection()),
    ],
)
def test_another_scorer_replaces_the_recipes_with_all_its_settings(tmp_path: Path, name: str, section: object) -> None:
    own = write(tmp_path, '[scorer]\nname = "coupled"\nvectors = 99\n')
    expected = CoupledSection(vectors=99) if name == "coupled" else section
    assert read_recipe(own, overrides={"scorer": {"name": name}}).scorer == expected
    assert read_recipe(write(tmp_path, ""), overrides={"scorer": {"name": name}}).scorer == section


def test_the_recipes_own_scorer_keeps_its_settings() -> None:
    recipe = read_recipe("seed", overrides={"scorer": {"name": "dense_gaussian"}})
    assert recipe == read_recipe("seed")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("rank = 8", (8,)),
        ("rank = [8, 4]", (8, 4)),
    ],
)
def test_a_value_is_one_or_a_list(tmp_path: Path, text: str, values: tuple[int, ...]) -> None:
    recipe = read_recipe(write(tmp_path, f"[scorer]\nname = 'gaussian'\n{text}\n[map]\nsmoothing = [1, 0]\n"))
    assert isinstance(recipe.scorer, GaussianSection)
    assert recipe.scorer.rank == values
    assert recipe.scorer.shrinkage == GaussianSection().shrinkage
    assert recipe.map.smoothing == (1.0, 0.0)
    assert read_recipe(write(tmp_path, "[alignment]\nways = 'shift'")).alignment.ways == ("shift",)


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("colour = 1", "colour"),
        ("[jigsaw]\npieces = 3", "jigsaw.pieces"),
        ("[jigsaw.schedule]\nepochs = 3", "jigsaw.schedule.epochs"),
        ('[jigsaw]\nuse = "sometimes"', "jigsaw.use"),
        ("[jigsaw]\ntiles = 1", "jigsaw.tiles"),
        ("[jigsaw]\nfrozen_levels = 3", "jigsaw.frozen_levels"),
        ("[jigsaw]\nblend = 0.0", "jigsaw.blend"),
        ('[fusion]\nform = "none"', "fusion.form"),
        ("[jigsaw]\ntiles = 2\npermutations = 30", "jigsaw"),
        ("[jigsaw.schedule]\nlearning_rate = 0.0", "jigsaw.schedule.learning_rate"),
        ("[fusion.schedule]\nlearning_rate = inf", "fusion.schedule.learning_rate"),
        ("[gaussian]\nrank = 3", "gaussian"),
        ("[scorer]\nrank = 3", "scorer"),
        ('[scorer]\nname = "forest"', "scorer"),
        ('[scorer]\nname = "gaussian"\nepsilon = nan', "scorer.epsilon"),
        ('[scorer]\nname = "gaussian"\nrank = []', "scorer.rank"),
        ('[scorer]\nname = "gaussian"\nrank = [4, 0]', "scorer.rank"),
        ('[scorer]\nname = "gaussian"\nshrinkage = 0.0', "scorer.shrinkage"),
        ('[scorer]\nname = "gaussian"\npooling = [3, 2]', "scorer.pooling"),
        ('[scorer]\nname = "dense_gaussian"\nchannels = 0', "scorer.channels"),
        ('[scorer]\nname = "dense_gaussian"\nrank = 3', "scorer.rank"),
        ('[scorer]\nname = "memory_bank"\nlevels = [3, 2]', "scorer.levels"),
        ('[scorer]\nname = "coupled"\nradius = "large"', "scorer.radius"),
        ("[alignment]\nways = []", "alignment.ways"),
        ('[alignment]\nways = ["turn"]', "alignment.ways"),
        ("[alignment]\nstretches = 0.5", "alignment.stretches"),
        ("[map]\nsmoothing = -1", "map.smoothing"),
        ("[calibration]\nfolds = 1", "calibration.folds"),
        ('[calibration]\nrule = "guess"', "calibration.rule"),
        ("[calibration]\nfalse_reject_rate = 1.0", "calibration.false_reject_rate"),
        ("[validation]\nshare = 0.5", "validation.share"),
        ("[preprocess]\nimage_size = 100", "preprocess"),
        ("seed = -1", "seed"),
        ("calibration = 3", "calibration"),
        ("[preprocess]\nimage_size = 32\n[map]\nsmoothing = [1, 8]", r"recipe: .*map\.smoothing of 8\.0 .* 32"),
        ('[preprocess]\nalign = { name = "shift" }', r"recipe: .*preprocess\.align .* \[alignment\]"),
        ("[preprocess]\nresize = 256", r'recipe: .*preprocess\.resize .*alignment\.use = "never"'),
        ('[preprocess]\nresize = 256\ntiles = 2\n[alignment]\nuse = "never"', "preprocess"),
        ("[preprocess]\nimage_size = 2048\ntiles = 8", "preprocess"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path, text: str, setting: str) -> None:
    with pytest.raises(RecipeError, match=rf"/mine\.toml cannot be used\. {setting}[.: ]"):
        read_recipe(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("colour = 1", r"colour: there is no such setting; there are seed, .*validation\."),
        ("[jigsaw.schedule]\nepochs = 3", r"there are learning_rate, batch_size, max_epochs, patience, tolerance\."),
        ('[scorer]\nname = "coupled"\nrank = 3', r"scorer\.rank: .*; for this scorer there are name, .*vectors"),
        ("[scorer]\nrank = 3", r"scorer: its name is missing; give one of 'gaussian', .*'coupled'\."),
        ('[scorer]\nname = "forest"', r"scorer: there is no 'forest'; name one of 'gaussian', .*'coupled'\."),
        ('[scorer]\nname = "gaussian"\nrank = []', r"scorer\.rank: it is too short; at least 1 wanted, not 0\."),
        ('[scorer]\nname = "gaussian"\nrank = [4, 0]', r"scorer\.rank: it must be .* equal to 1, not 0\."),
        ('[jigsaw]\nuse = "sometimes"', r"it must be 'always', 'choose' or 'never', not 'sometimes'\."),
        ("[calibration]\nfolds = 1", r"folds: it must be greater than .* 2, or 'leave_one_out', not 1\."),
        ('[calibration]\nfolds = "x"', r"folds: it must be a valid integer, or 'leave_one_out', not 'x'\."),
        ("calibration = 3", r"calibration: it is a section: put its settings under \[calibration\]\."),
        ("seed = -1\nhue = 2", r"seed: .*, not -1; hue: there is no such"),
    ],
)
def test_what_is_wrong_is_said_in_words(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        read_recipe(write(tmp_path, text))


def test_a_file_that_is_not_there_is_no_shipped_recipe() -> None:
    with pytest.raises(RecipeError, match=r"no file default\.toml; shipped .* without \.toml: default, "):
        read_recipe("default.toml")


def test_an_overriding_rate_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"calibration\.false_reject_rate"):
        read_recipe("default", overrides={"calibration": {"false_reject_rate": 2.0}})
    with pytest.raises(RecipeError, match="calibration"):
        read_recipe(write(tmp_path, "calibration = 3"), overrides={"calibration": {"false_reject_rate": 0.1}})
    with pytest.raises(RecipeError, match="scorer"):
        read_recipe(write(tmp_path, "scorer = 3"), overrides={"scorer": {"name": "coupled"}})


def test_a_rule_without_a_rate_is_given_none() -> None:
    with pytest.raises(RecipeError, match="rule train_max, which has no false-reject rate"):
        read_recipe("seed", overrides={"calibration": {"false_reject_rate": 0.1}})


def test_pictures_too_large_to_be_aligned_are_refused(tmp_path: Path) -> None:
    text = "[preprocess]\nimage_size = 2048\ntiles = 2"
    with pytest.raises(RecipeError, match=r"pictures of 4096 px are too large to be aligned \(at most 2048\)"):
        read_recipe(write(tmp_path, text))
    read_recipe(write(tmp_path, text), overrides={"alignment": {"use": "never"}})


def test_a_centre_can_be_cut_out_where_nothing_is_aligned(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, '[preprocess]\nresize = 256\n[alignment]\nuse = "never"'))
    assert recipe.preprocess.resize == 256


def test_tiles_leave_room_for_more_smoothing(tmp_path: Path) -> None:
    text = "[preprocess]\nimage_size = 32\n[map]\nsmoothing = 8"
    tiled = read_recipe(write(tmp_path, text), overrides={"preprocess": {"tiles": 3}})
    assert tiled.preprocess.side == 96


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


def test_large_jpegs_are_decoded_at_a_fraction_unless_a_recipe_says_otherwise(tmp_path: Path) -> None:
    for name in shipped_recipes():
        assert read_recipe(name).preprocess.reduced_jpeg is (name != "seed"), name
    silent = ("", "[preprocess]\nimage_size = 64\n[map]\nsmoothing = 1")
    for text in silent:
        assert read_recipe(write(tmp_path, text)).preprocess.reduced_jpeg is True
    assert read_recipe("default", overrides={"preprocess": {"image_size": 256}}).preprocess.reduced_jpeg is True
    recipe = read_recipe(write(tmp_path, "[preprocess]\nreduced_jpeg = false"))
    assert recipe.preprocess.reduced_jpeg is False
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize("value", ['"yes"', '"false"', "1", "0.0", "[true]"])
def test_what_is_true_or_false_is_not_guessed(tmp_path: Path, value: str) -> None:
    with pytest.raises(RecipeError, match=r"preprocess: reduced_jpeg must be true or false, without quotes, not "):
        read_recipe(write(tmp_path, f"[preprocess]\nreduced_jpeg = {value}"))


@pytest.mark.parametrize("name", ["default", "small", "seed"])
def test_recipes_to_copy_say_how_jpegs_are_decoded(name: str) -> None:
    document = tomllib.loads((Path(training.recipe.__file__).parent / "recipes" / f"{name}.toml").read_text())
    assert document["preprocess"]["reduced_jpeg"] is (name != "seed")
