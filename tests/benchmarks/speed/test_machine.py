from pathlib import Path

import pytest
from speed.machine import native_bfloat16


@pytest.mark.parametrize(
    ("line", "native"),
    [("flags\t\t: fpu avx512_bf16 amx_tile", True), ("Features\t: fp asimd bf16", True), ("flags : fpu avx2", False)],
)
def test_bfloat16_is_a_flag_of_the_processor(line: str, native: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{line}\n")
    assert native_bfloat16(tmp_path / "cpuinfo") is native
