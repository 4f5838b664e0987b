from pathlib import Path

import pytest

from models.errors import DatasetError
from training.benchmark.request import find_categories


def test_categories_are_those_with_good_pictures_to_train_on(tmp_path: Path) -> None:
    for folder in ("flange/train/good", "cloth/train/good", "notes"):
        (tmp_path / folder).mkdir(parents=True)
    assert find_categories(tmp_path, []) == ("cloth", "flange")
    assert find_categories(tmp_path, ["flange", "flange"]) == ("flange",)
    with pytest.raises(DatasetError, match=r"no category 'notes' .* there are cloth, flange"):
        find_categories(tmp_path, ["notes"])
    with pytest.raises(DatasetError, match="holds no category"):
        find_categories(tmp_path / "notes", [])
    with pytest.raises(DatasetError, match="does not exist"):
        find_categories(tmp_path / "nowhere", [])
