"""Whether there is room for the next part, where something is kept at all."""

from pathlib import Path

from service.disk import ailment
from service.settings import Settings

MORE_THAN_THERE_IS = 2**60


def test_less_room_than_the_largest_upload_is_said(tmp_path: Path) -> None:
    data = tmp_path / "not" / "there yet"
    assert ailment(Settings(data=data)) is None
    said = ailment(Settings(data=data, max_body_bytes=MORE_THAN_THERE_IS))
    assert said is not None
    assert "MiB are free in the data folder" in said


def test_a_folder_that_nothing_is_kept_in_may_be_full(tmp_path: Path) -> None:
    full = Settings(data=tmp_path, max_body_bytes=MORE_THAN_THERE_IS, database_url="postgresql:///line")
    assert ailment(full) is not None
    for elsewhere in ({"keep_images": "none"}, {"pictures_url": "s3://line/pictures"}):
        assert ailment(full.model_copy(update=elsewhere)) is None
