"""Figures that others published, to stand beside ours, never to be mistaken for them."""

from dataclasses import dataclass
from typing import Final

from models.backbone import Architecture

ARCHITECTURE: Final[Architecture] = "wide_resnet50_2"


@dataclass(frozen=True)
class Published:
    """(image AUROC, pixel AUROC), on average over MVTec AD's 15 categories and on its screw."""

    name: str
    mean: tuple[float, float]
    screw: tuple[float, float]
    methods: tuple[str, ...]  # ours that are the same method


SOURCE: Final = (
    "anomalib's README, wide_resnet50_2, with that project's own preprocessing and definitions of the figures"
)
PUBLISHED: Final = (
    Published("PaDiM", (0.950, 0.979), (0.845, 0.988), ("padim", "anomalib_padim")),
    Published("PatchCore", (0.980, 0.980), (0.960, 0.989), ("memory_bank", "anomalib_patchcore")),
    Published("CFA", (0.956, 0.983), (0.703, 0.979), ()),  # ours trains for a fraction of its steps
)
CLAIMS: Final = (
    "The source of JigSight's method publishes gains, in points of mean image AUROC over MVTec AD: its method over "
    "PaDiM +0.93 (here: seed less padim), and its stages on PatchCore +0.64. The methods with "
    "+jigsaw and +fusion have other forms of these stages, so that figure has nothing to stand beside."
)
