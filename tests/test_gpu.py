"""The whole path on CUDA: it trains there, goes on there after a stop, and scores as the CPU does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import jigsight
from models.artifact import load
from models.images import decode
from models.manifest import Kind
from training.batch_norm import estimate_batch_norm
from training.finetune import finetune
from training.loop import Devices
from training.progress import Progress
from training.recipe import JigsawSection, Recipe, Schedule
from training.samples import write_category
from training.synthetic import Synthetic, make_tiles
from training.textures import ProceduralTextures
from training.workshop import Workshop

pytestmark = pytest.mark.gpu

KIND: Kind = "texture"
RECIPE = """
[preprocess]
image_size = 64
[alignment]
use = "{align}"
[jigsaw]
use = "always"
tiles = 2
permutations = 4
schedule = {{ max_epochs = 2, batch_size = 8 }}
[fusion]
use = "always"
schedule = {{ max_epochs = 2, batch_size = 8 }}
[scorer]
{scorer}
[map]
smoothing = 2.0
"""


@pytest.mark.parametrize(
    ("scorer", "align"),
    [
        ('name = "gaussian"\nrank = 4\nshrinkage = 0.1\npooling = 3', "always"),
        ('name = "dense_gaussian"\nchannels = 16', "never"),
    ],
    ids=["gaussian", "dense"],
)
def test_trained_on_cuda_scores_alike_on_cuda_and_cpu(tmp_path: Path, scorer: str, align: str) -> None:
    parts = write_category(tmp_path / "parts", "flange", train=12, test_good=2, test_defective=3, size=96)
    (tmp_path / "tiny.toml").write_text(RECIPE.format(scorer=scorer, align=align))
    arguments = [
        "train",
        "--data",
        parts.parent,
        "--category",
        "flange",
        "--recipe",
        tmp_path / "tiny.toml",
        "--arch",
        "resnet18",
        "--weights",
        "none",
        "--device",
        "cuda",
        "--artifacts",
        tmp_path / "artifacts",
        "--json",
        tmp_path / "train.json",
    ]
    result = CliRunner().invoke(jigsight.app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    artifact = Path(json.loads((tmp_path / "train.json").read_text())["artifact"])
    on_cpu, on_cuda = (load(artifact).ready(device, precision="float32") for device in ("cpu", "cuda"))
    pictures = [decode(path.read_bytes()) for path in sorted((parts / "test").rglob("*.png"))]
    tiles = [on_cpu.detector.preprocess.resize(picture) for picture in pictures]
    expected, got = on_cpu.runner(tiles), on_cuda.runner(tiles)
    # float32 throughout (`full_precision`): what is left is the order of sums, amplified by the whitening.
    # TensorFloat-32 convolutions would differ by about a hundredth.
    np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-3)


def test_a_run_on_cuda_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8)
    devices, recipe = Devices("cuda"), Recipe()
    workshop = Workshop(recipe, "resnet18", False, devices, tmp_path, Progress.silent())
    source = Synthetic(make_tiles(images, KIND, folder=tmp_path), ProceduralTextures(), 0)
    losses = []
    for epochs in (1, 3):
        backbone = workshop.new_backbone()
        estimate_batch_norm(backbone, [images], recipe.preprocess)
        schedule = Schedule(max_epochs=epochs, batch_size=8, patience=10)
        losses = finetune(
            backbone,
            "resnet18",
            source,
            preprocess=recipe.preprocess,
            section=JigsawSection(tiles=2, permutations=4, schedule=schedule),
            pretrained=False,
            devices=devices,
            checkpoint=tmp_path / "jigsaw.pt",
            progress=Progress.silent(),
        )
    assert len(losses) == 3
    assert not next(backbone.parameters()).is_cuda
