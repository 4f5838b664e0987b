import pytest
from speed.contestants import OURS, OURS_ALONE, bare_name, contestants


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_backbone_takes_part_in_the_detectors_precision_and_in_float32(precision: str) -> None:
    names = [each.name for each in contestants(precision=precision, peers=[], layers=[0], dimensions=50)]
    assert names == [OURS, OURS_ALONE, *dict.fromkeys([bare_name(precision), bare_name("float32")])]
