"""COCO's own releases: numbers of images and boxes, archives, folders."""

from __future__ import annotations

# Images and boxes (crowd regions included) of the published releases.
RELEASES: dict[str, dict[str, tuple[int, int]]] = {
    "2017": {
        "train2017": (118_287, 860_001),
        "val2017": (5_000, 36_781),
        "test2017": (40_670, 0),
        "test-dev2017": (20_288, 0),
    },
}
# Splits whose folder of images has another name: test-dev is a part of the test images.
IMAGE_FOLDERS = {"test-dev2017": "test2017"}
# What to fetch from COCO's site for a split that comes without labels; both archives hold both splits.
ARCHIVES = {"test2017": ("image_info_test2017.zip", "test2017.zip")}
NUM_COCO_CATEGORIES = 80


def how_to_get(split: str) -> str:
    """The end of a message: which archives hold a split without labels; empty for any other split."""
    archives = ARCHIVES.get(IMAGE_FOLDERS.get(split, split))
    return f". Fetch {' and '.join(archives)} from cocodataset.org and unpack them in the root" if archives else ""
