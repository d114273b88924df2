"""An epoch that does not divide among processes is told of."""

from types import SimpleNamespace

import pytest

from clp_hf.data.sampling import tell_repeated_images


@pytest.mark.parametrize(
    ("images", "changes", "repeated"),
    [
        (60, {}, 4),
        (3, {}, 5),
        (64, {}, 0),
        (60, {"dataloader_drop_last": True}, 0),
        (60, {"world_size": 1}, 0),
        (60, {"process_index": 1}, 0),  # the first speaks for all
    ],
)
def test_repeated_images_are_told_of(caplog, images, changes, repeated):
    args = {"train_batch_size": 4, "world_size": 2, "process_index": 0, "dataloader_drop_last": False}
    tell_repeated_images(images, SimpleNamespace(**args | changes))
    assert (f"filled with {repeated} of its first images" in caplog.text) == bool(repeated)
