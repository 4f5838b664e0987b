"""Does synthetic validation agree with the real test? Each option's figures on synthetic and on real defects.

python benchmarks/choosing.py --data DIR --category C --arch A --weights FILE [--textures DIR] [--recipe default]

For every alignment and every setting of the recipe's scorer: image and pixel AUROC on synthetic defects in held-out
good pictures, which is what training chooses by, and on the real test pictures, which it never sees. Markdown.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from models.alignment import AlignmentConfig
from models.preprocess import Preprocess
from training.alignments import ANY, alignments, label
from training.choose import Candidate, ValidationSet, hold_out, make_validation_set
from training.datasets import test_samples, training_images
from training.loop import Devices
from training.picture_files import read_mask, read_taken
from training.pictures import Pictures
from training.progress import Progress
from training.recipe import read_recipe
from training.synthetic import Synthetic, kind_of, make_tiles
from training.textures import open_textures
from training.workshop import Workshop


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument("--arch", default="mobilenet_v2")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--textures", type=Path)
    parser.add_argument("--recipe", default="default")
    return parser.parse_args()


def real_set(data: Path, category: str, preprocess: Preprocess) -> ValidationSet:
    """The test pictures in the place of synthetic ones."""
    tiles, masks = [], []
    for sample in test_samples(data, category):
        tile = read_taken(sample.path, preprocess).tile
        tiles.append(tile)
        nothing = np.zeros(tile.shape[1:], np.bool_)
        masks.append(preprocess.resize_mask(read_mask(sample.mask)).numpy() if sample.mask else nothing)
    return ValidationSet(torch.stack(tiles), np.stack(masks))


def row(name: str, synthetic: Candidate, real: Candidate) -> str:
    both = (synthetic.figures, real.figures)
    figures = " | ".join(f"{of.image_auroc:.4f} | {of.pixel_auroc:.4f}" for of in both)
    return f"| {name} | {synthetic.label} | {figures} |"


def main() -> None:
    given = arguments()
    recipe = read_recipe(given.recipe)
    textures = open_textures(given.textures)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workshop = Workshop(recipe, given.arch, True, Devices(), folder, Progress.silent())
        backbone, _ = workshop.load_backbone(given.weights)
        pictures = Pictures(training_images(given.data, given.category), folder, Progress.silent())
        print("| alignment | settings | synthetic image | pixel | real image | pixel |\n|---|---|---|---|---|---|")
        for align in [None, *_ways(workshop, pictures)]:
            preprocess = Preprocess(workshop.preprocess(align))
            images = pictures.read(preprocess)
            kind = kind_of(images).kind
            tiles = make_tiles(images, kind, folder=folder)
            section = recipe.validation
            good, held = hold_out(tiles, share=section.share, most=section.most, seed=recipe.seed)
            drawn = make_validation_set(Synthetic(held, textures, recipe.seed), defects=section.defects)
            real = real_set(given.data, given.category, preprocess)
            synthetic = workshop.candidates(backbone, None, align=align, good=good, held_out=drawn)
            tested = workshop.candidates(backbone, None, align=align, good=tiles, held_out=real)
            for pair in zip(synthetic, tested, strict=True):
                print(row(label(align), *pair), flush=True)


def _ways(workshop: Workshop, pictures: Pictures) -> list[AlignmentConfig]:
    """The recipe's alignments for these pictures."""
    images = pictures.read(Preprocess(workshop.preprocess(ANY)))
    tiles = make_tiles(images, "texture", folder=workshop.folder)
    return alignments(tiles, workshop.recipe.alignment, square=pictures.square)


if __name__ == "__main__":
    main()
