import pytest

from models.errors import JigSightError, RecipeError
from training.benchmark.method import GROUPS, METHODS, PEERS, Method, chosen_methods, method_recipe, resolved


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.peer is None])
def test_every_method_of_ours_has_a_recipe(name: str) -> None:
    recipe = method_recipe(METHODS[name], "mobilenet_v2", false_reject_rate=0.07)
    if recipe.calibration.rule == "conformal":  # the other has no rate
        assert recipe.calibration.false_reject_rate == 0.07
    bare, _, stages = name.partition("+")
    if bare in ("memory_bank", "coupled"):
        assert recipe.scorer.name == bare
        assert (recipe.alignment.use, recipe.map.smoothing) == ("never", (4.0,))
        assert recipe.jigsaw.use == ("always" if "jigsaw" in stages else "never")
        assert recipe.fusion.use == ("always" if "fusion" in stages else "never")


def test_padim_takes_as_many_channels_as_published() -> None:
    for arch, channels in (("wide_resnet50_2", 550), ("mobilenet_v2", 100)):
        recipe = method_recipe(METHODS["padim"], arch, false_reject_rate=0.05)
        assert (recipe.jigsaw.use, recipe.fusion.use) == ("never", "never")
        assert recipe.scorer.model_dump() == {"name": "dense_gaussian", "channels": channels, "epsilon": 0.01}
        assert (recipe.alignment.use, recipe.map.smoothing) == ("never", (4.0,))
        assert resolved(METHODS["anomalib_padim"].peer.settings, arch)["channels"] == channels


def test_the_seed_keeps_its_own_threshold() -> None:
    recipe = method_recipe(METHODS["seed"], "mobilenet_v2", false_reject_rate=0.05)
    assert (recipe.calibration.rule, recipe.jigsaw.use, recipe.fusion.use) == ("train_max", "always", "always")


def test_overrides_leave_the_rest_of_a_section_alone() -> None:
    plain = method_recipe(METHODS["default"], "resnet18", false_reject_rate=0.05)
    method = Method(name="few", about="", overrides={"jigsaw": {"tiles": 4}})
    recipe = method_recipe(method, "resnet18", false_reject_rate=0.05)
    assert recipe.jigsaw == plain.jigsaw.model_copy(update={"tiles": 4})
    assert (recipe.fusion, recipe.scorer) == (plain.fusion, plain.scorer)


def test_an_override_that_does_not_fit_is_named() -> None:
    method = Method(name="odd", about="", overrides={"jigsaw": {"colour": 1}})
    with pytest.raises(RecipeError, match=r"method odd cannot be run: .*jigsaw\.colour"):
        method_recipe(method, "resnet18", false_reject_rate=0.05)


def test_names_and_groups_give_each_method_once_in_the_order_of_the_tables() -> None:
    names = [method.name for method in chosen_methods(["table2", "padim", "memory_bank"], peers=False)]
    assert names == ["padim", *GROUPS["table2"]]
    everything = [method.name for method in chosen_methods(["all"], peers=True)]
    assert everything == list(METHODS)
    assert everything[-len(PEERS) :] == list(PEERS)


def test_unknown_names_and_peers_without_their_environment_are_refused() -> None:
    with pytest.raises(JigSightError, match=r"no method 'padin': there are table1, .*padim"):
        chosen_methods(["padin"], peers=False)
    with pytest.raises(JigSightError, match=r"anomalib_padim needs .* --peers"):
        chosen_methods(["anomalib_padim"], peers=False)
