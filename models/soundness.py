"""What must hold of an artifact's numbers, lest a detector fail, or pass everything, once it is in use.

Names, shapes and types are checked before, by `models.artifact`; here it is the values, against each other and
against the manifest. Raises ArtifactError.
"""

import torch
from torch import Tensor

from models.calibration import Calibration
from models.detector import DetectorConfig
from models.errors import ArtifactError
from models.manifest import ThresholdRecord
from models.smoothing import Smoothing

_ROUNDING = 1e-6  # another writer may compute the kernel by other means


def check_finite(tensors: dict[str, Tensor]) -> None:
    """Every floating-point value is a number."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ArtifactError(f"tensor {name} holds values that are not finite.")


def check_constants(tensors: dict[str, Tensor], config: DetectorConfig) -> None:
    """Normalisation and smoothing kernel are those of the manifest; a kernel of zeros would pass everything."""
    for name, wished in (("mean", config.preprocess.mean), ("std", config.preprocess.std)):
        if tensors[f"preprocess.{name}"].flatten().tolist() != torch.tensor(wished).tolist():
            raise ArtifactError(f"tensor preprocess.{name} contradicts the manifest, which says {wished}.")
    kernel = Smoothing(config.map_smoothing).kernel
    if not torch.allclose(tensors["smoothing.kernel"], kernel, rtol=0, atol=_ROUNDING):
        raise ArtifactError(
            f"tensor smoothing.kernel is not the Gaussian of the manifest, which smooths by {config.smoothing} px."
        )


def check_ignored(ignored: str | None, keep: Tensor) -> None:
    """Positions are ignored if and only if the manifest names a mask: a hidden one would pass everything."""
    if (ignored is None) != bool(keep.all()):
        raise ArtifactError(
            f"tensor smoothing.keep leaves out {int((~keep).sum())} positions, and its manifest says "
            f"{'nothing' if ignored is None else 'that something'} is ignored."
        )


def check_threshold(record: ThresholdRecord, calibration: Calibration) -> None:
    """A conformal threshold is the one that the scores give at its rate. Of `train_max` nothing is known here."""
    rate = record.false_reject_rate
    if (rate is None) != (record.rule == "train_max"):
        raise ArtifactError(f"its threshold follows the rule {record.rule}, and its false-reject rate is {rate}.")
    if rate is not None and record.value != calibration.threshold(rate):
        raise ArtifactError(
            f"its threshold is {record.value}; its calibration scores give {calibration.threshold(rate)} "
            f"for a false-reject rate of {rate}."
        )
