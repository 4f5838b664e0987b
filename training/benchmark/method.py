"""The methods that are compared, as plain data: a shipped recipe and what differs from it, or a peer's settings.

`padim` is PaDiM as published: the dense Gaussian over a random choice of channels and no stage of ours. The source's
experiment 2 is `memory_bank` (PatchCore) and `coupled` (CFA), each bare and with jigsaw, fusion or both, here in the
forms of the recipe for production, not in the source's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from models.backbone import Architecture
from models.errors import JigSightError, RecipeError
from training.recipe import Recipe, read_recipe

Overrides = Mapping[str, Any]

# What the papers take: 100 channels of a small network's levels, 550 of a large one's.
PADIM_CHANNELS: Final[dict[str, int]] = {
    "resnet18": 100,
    "mobilenet_v2": 100,
    "resnet50": 550,
    "wide_resnet50_2": 550,
}
_BY_ARCH: Final = "by architecture"
# As in the papers: parts as they lie in the picture, maps smoothed by 4 pixels, nothing chosen.
_PLAIN: Final = {"alignment": {"use": "never"}, "map": {"smoothing": 4.0}}


@dataclass(frozen=True)
class Peer:
    """A model of anomalib: which, and its settings; `levels` count from 1."""

    model: Literal["padim", "patchcore"]
    settings: Overrides


@dataclass(frozen=True)
class Method:
    """One column of the tables: a shipped `recipe` with `overrides` section by section, or a `peer`."""

    name: str
    about: str
    recipe: str = "default"
    overrides: Overrides | None = None
    peer: Peer | None = None


def _experiment_2(scorer: str, about: str) -> tuple[Method, ...]:
    """A scorer bare and with the stages: always there, whatever they do."""
    return tuple(
        Method(
            name=scorer + "".join(f"+{stage}" for stage in stages),
            about=about + (f" with {' and '.join(stages)}" if stages else ", bare"),
            overrides={
                **_PLAIN,
                "jigsaw": {"use": "always" if "jigsaw" in stages else "never"},
                "fusion": {"use": "always" if "fusion" in stages else "never"},
                "scorer": {"name": scorer},
                "calibration": {"folds": 10},
            },
        )
        for stages in ((), ("jigsaw",), ("fusion",), ("jigsaw", "fusion"))
    )


_PADIM = Method(
    name="padim",
    about="PaDiM as published: dense Gaussian over 100 or 550 random channels, no jigsaw, no fusion",
    overrides={
        **_PLAIN,
        "jigsaw": {"use": "never"},
        "fusion": {"use": "never"},
        "scorer": {"name": "dense_gaussian", "channels": _BY_ARCH, "epsilon": 0.01},
        "calibration": {"folds": "leave_one_out"},
    },
)
_SEED = Method(name="seed", about="the source, literally, with its own threshold", recipe="seed")
_DEFAULT = Method(name="default", about="the recipe for production")
_GAUSSIAN = Method(
    name="gaussian",
    about="the compact Gaussian alone: no alignment, no jigsaw, no fusion",
    overrides={stage: {"use": "never"} for stage in ("alignment", "jigsaw", "fusion")},
)
_DEFAULT_SCORERS = tuple(
    Method(name=f"default_{scorer}", about=f"the recipe for production with --scorer {scorer}", overrides=overrides)
    for scorer, overrides in {s: {"scorer": {"name": s}} for s in ("memory_bank", "coupled")}.items()
)
_MEMORY_BANK = _experiment_2("memory_bank", "PatchCore's memory bank")
_COUPLED = _experiment_2("coupled", "CFA's coupled hyperspheres, 64 steps")
_PEERS = (
    Method(
        name="anomalib_padim",
        about="anomalib's PaDiM",
        peer=Peer(model="padim", settings={"levels": (1, 2, 3), "channels": _BY_ARCH}),
    ),
    Method(
        name="anomalib_patchcore",
        about="anomalib's PatchCore, its default coreset of a tenth",
        peer=Peer(model="patchcore", settings={"levels": (2, 3), "coreset": 0.1, "neighbours": 9}),
    ),
)

METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (_PADIM, _SEED, _GAUSSIAN, _DEFAULT, *_DEFAULT_SCORERS, *_MEMORY_BANK, *_COUPLED, *_PEERS)
}
TABLE_1: Final = (
    "padim",
    "memory_bank",
    "coupled",
    "seed",
    "gaussian",
    "default",
    *(method.name for method in _DEFAULT_SCORERS),
)
TABLE_2: Final = tuple(method.name for method in (*_MEMORY_BANK, *_COUPLED))
PEERS: Final = tuple(method.name for method in _PEERS)
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "table1": TABLE_1,
    "table2": TABLE_2,
    "all": (*TABLE_1, *(name for name in TABLE_2 if name not in TABLE_1)),
}


def chosen_methods(names: Sequence[str], *, peers: bool) -> tuple[Method, ...]:
    """Methods by name or group, each once, in the order of the tables; with `peers`, anomalib's too.

    JigSightError for a name that there is not, or a peer without `peers`.
    """
    wanted = {each for name in names for each in GROUPS.get(name, (name,))} | set(PEERS if peers else ())
    if unknown := sorted(wanted - METHODS.keys()):
        there = ", ".join((*GROUPS, *METHODS))
        raise JigSightError(f"There is no method '{unknown[0]}': there are {there}.")
    if not peers and (asked := wanted & set(PEERS)):
        raise JigSightError(f"{', '.join(sorted(asked))} needs an environment with anomalib: add --peers to make one.")
    return tuple(method for name, method in METHODS.items() if name in wanted)


def method_recipe(method: Method, arch: Architecture, *, false_reject_rate: float) -> Recipe:
    """The method's recipe. RecipeError, naming the method, if the overrides no longer fit it."""
    overrides = resolved(method.overrides or {}, arch)
    if read_recipe(method.recipe).calibration.rule == "conformal":  # the source's own rule has no rate
        overrides["calibration"] = {**overrides.get("calibration", {}), "false_reject_rate": false_reject_rate}
    try:
        return read_recipe(method.recipe, overrides=overrides)
    except RecipeError as error:
        raise RecipeError(f"The method {method.name} cannot be run: {error}") from error


def resolved(settings: Overrides, arch: Architecture) -> dict[str, Any]:
    """The settings as plain values, with PaDiM's number of channels for `arch` where it is left open."""
    plain: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            plain[name] = resolved(value, arch)
        else:
            plain[name] = PADIM_CHANNELS[arch] if value == _BY_ARCH else value
    return plain
