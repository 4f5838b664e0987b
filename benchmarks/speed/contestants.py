"""Who is compared with whom: each contestant's name, script, environment, and what it is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

Role = Literal["ours", "bare", "peer"]

OURS: Final = "jigsight"
OURS_ALONE: Final = "jigsight, detector alone"  # of fits: without the calibration, which no peer has
ANOMALIB_TORCH: Final = "anomalib Torch"
ANOMALIB_OPENVINO: Final = "anomalib OpenVINO"
ANOMAVISION: Final = "AnomaVision"
BARE: Final = "bare backbone"  # and its precision

REQUIREMENTS: Final[Mapping[str, str]] = {
    "anomalib": "anomalib[openvino]==2.7.0",
    "anomavision": "anomavision[cpu]==3.6.2",
}
_SCRIPTS = Path(__file__).parent / "workers"


@dataclass(frozen=True, eq=False)
class Contestant:
    """`fit` names the fit whose artifact `artifact` it loads; a bare backbone has none and needs none.

    `judges`: it is not only fitted.
    """

    name: str
    role: Role
    script: Path
    environment: str | None  # of REQUIREMENTS; None: ours
    fit: str
    artifact: str = ""
    judges: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)


def bare_name(dtype: str) -> str:
    """The bare backbone of a precision."""
    return f"{BARE}, {dtype}"


def contestants(*, precision: str, peers: Sequence[str], layers: Sequence[int], dimensions: int) -> list[Contestant]:
    """All of them, ours first. `precision` is the detector's own, `layers` and `dimensions` are AnomaVision's.

    The backbone takes part in the detector's own precision, and in float32 in any case.
    """
    script, alone = _SCRIPTS / "ours.py", {"calibrated": False}
    found = [
        Contestant(OURS, "ours", script, None, fit=OURS, artifact="jigsight"),
        Contestant(OURS_ALONE, "ours", script, None, fit=OURS_ALONE, judges=False, settings=alone),
    ]
    for dtype in dict.fromkeys([precision, "float32"]):
        name = bare_name(dtype)
        found.append(Contestant(name, "bare", _SCRIPTS / "bare.py", None, fit=name, settings={"dtype": dtype}))
    if "anomalib" in peers:
        script = _SCRIPTS / "anomalib_padim.py"
        for name, inferencer in ((ANOMALIB_TORCH, "torch"), (ANOMALIB_OPENVINO, "openvino")):
            told = {"inferencer": inferencer}
            found.append(Contestant(name, "peer", script, "anomalib", "anomalib", inferencer, settings=told))
    if "anomavision" in peers:
        settings = {"layers": list(layers), "dimensions": dimensions}
        script = _SCRIPTS / "anomavision_padim.py"
        found.append(Contestant(ANOMAVISION, "peer", script, "anomavision", ANOMAVISION, "torch", settings=settings))
    return found


ROOFLINE: Final = _SCRIPTS / "roofline.py"
