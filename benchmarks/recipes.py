"""Recipes side by side on one category: trains and evaluates each, and prints the table of benchmarks/README.md.

    .venv/bin/python benchmarks/recipes.py --data DIR --category screw --weights FILE --textures DIR --out runs/screw

What is in OUT already is not made again, so a run that was interrupted goes on.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

RECIPES = {"baseline": "benchmarks/baseline.toml", "seed": "seed", "default": "default"}
RATES = (None, 0.05)  # the recipe's own threshold, and the conformal one for 5 % of good parts rejected


def main() -> None:
    """Parse the arguments, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument("--arch", default="mobilenet_v2")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--textures", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = [_row(name, recipe, arguments) for name, recipe in RECIPES.items()]
    print(
        "| recipe | jigsaw | fusion | image AUROC | pixel AUROC | AUPRO "
        "| good rejected / defects missed: own threshold | the same at α = 0.05 | training |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


def _row(name: str, recipe: str, arguments: argparse.Namespace) -> str:
    trained = _train(name, recipe, arguments)
    own, at_five = (_evaluate(name, trained["artifact"], rate, arguments) for rate in RATES)
    kept = {choice["stage"]: "yes" if choice["kept"] else "no" for choice in trained["choices"]}
    figures = " | ".join(f"{own[key]:.3f}" for key in ("image_auroc", "pixel_auroc", "aupro"))
    rates = " | ".join(f"{100 * e['false_reject_rate']:.1f} % / {100 * e['miss_rate']:.1f} %" for e in (own, at_five))
    minutes = sum(trained["seconds"].values()) / 60
    return f"| `{name}` | {kept['jigsaw']} | {kept['fusion']} | {figures} | {rates} | {minutes:.1f} min |"


def _train(name: str, recipe: str, arguments: argparse.Namespace) -> dict[str, Any]:
    result: Path = arguments.out / f"{name}.train.json"
    command = ["train", "--recipe", recipe, "--arch", arguments.arch, "--weights", arguments.weights]
    command += ["--data", arguments.data, "--category", arguments.category, "--artifacts", arguments.out / name]
    if arguments.textures is not None:
        command += ["--textures", arguments.textures]
    return _run(command, result)


def _evaluate(name: str, artifact: str, rate: float | None, arguments: argparse.Namespace) -> dict[str, Any]:
    result: Path = arguments.out / f"{name}{'' if rate is None else f'.{rate}'}.json"
    command = ["evaluate", artifact, "--data", arguments.data, "--category", arguments.category]
    return _run(command + (["--false-reject-rate", rate] if rate is not None else []), result)


def _run(command: list[Any], result: Path) -> dict[str, Any]:
    if not result.exists():
        words = [sys.executable, "-m", "jigsight", *map(str, command), "--json", str(result)]
        subprocess.run(words, check=True, stdout=sys.stderr)
    return dict(json.loads(result.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
