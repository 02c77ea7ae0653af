"""Exports of labelling tools, written as the tools write them: the same two classes, images and boxes in each form."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

WIDE, HIGH = 80, 60
Box = tuple[str, int, int, int, int]  # class, x, y, width, height
# Frames of two videos, and one image without an object.
TRUTH: dict[str, list[Box]] = {
    "a_000.jpg": [("cup", 4, 6, 20, 10), ("jug", 30, 20, 24, 16)],
    "a_001.jpg": [("jug", 40, 8, 8, 30)],
    "b_000.jpg": [("cup", 0, 0, 80, 60), ("cup", 8, 30, 12, 12)],
    "b_001.jpg": [],
    "b_002.jpg": [("jug", 50, 50, 30, 10)],
}
NAMES = ("cup", "jug")


def draw(path: Path, size: tuple[int, int] = (WIDE, HIGH), boxes: Iterable[Box] = (), **options: Any) -> None:
    """An image with its boxes filled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, "gray")
    for name, x, y, w, h in boxes:
        image.paste("red" if name == "cup" else "blue", (x, y, x + w, y + h))
    image.save(path, **options)


def draw_all(folder: Path, truth: Mapping[str, Sequence[Box]] = TRUTH) -> None:
    for name, boxes in truth.items():
        draw(folder / name, boxes=boxes)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def voc_xml(name: str, boxes: Iterable[Box], extra: str = "") -> str:
    """Corners count pixels from 1, and are both inside."""
    objects = "".join(
        f"<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
        f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
        for label, x, y, w, h in boxes
    )
    size = f"<size><width>{WIDE}</width><height>{HIGH}</height><depth>3</depth></size>"
    return f"<annotation><folder>f</folder><filename>{name}</filename>{size}{objects}{extra}</annotation>"


def voc(root: Path) -> Path:
    draw_all(root / "JPEGImages")
    for name, boxes in TRUTH.items():
        write(root / "Annotations" / f"{name[:-4]}.xml", voc_xml(name, boxes))
    return root


def yolo_lines(boxes: Iterable[Box]) -> str:
    return "".join(
        f"{NAMES.index(label)} {(x + w / 2) / WIDE:.6f} {(y + h / 2) / HIGH:.6f} {w / WIDE:.6f} {h / HIGH:.6f}\n"
        for label, x, y, w, h in boxes
    )


def yolo(root: Path) -> Path:
    draw_all(root / "images")
    for name, boxes in TRUTH.items():
        write(root / "labels" / f"{name[:-4]}.txt", yolo_lines(boxes))
    write(root / "classes.txt", "cup\njug\n")
    return root


def cvat_box(box: Box, more: str = "") -> str:
    label, x, y, w, h = box
    return f'<box label="{label}" xtl="{x}.00" ytl="{y}.00" xbr="{x + w}.00" ybr="{y + h}.00" {more}/>'


CVAT_LABELS = "<labels><label><name>cup</name></label><label><name>jug</name></label></labels>"


def cvat(root: Path) -> Path:
    draw_all(root / "images")
    images = "".join(
        f'<image id="{i}" name="{name}" width="{WIDE}" height="{HIGH}">{"".join(map(cvat_box, boxes))}</image>'
        for i, (name, boxes) in enumerate(TRUTH.items())
    )
    meta = f"<meta><task><mode>annotation</mode>{CVAT_LABELS}</task></meta>"
    write(
        root / "annotations.xml",
        f"<?xml version='1.0'?><annotations><version>1.1</version>{meta}{images}</annotations>",
    )
    return root


def label_studio_result(box: Box, key: int, rotation: float = 0.0) -> dict[str, Any]:
    label, x, y, w, h = box
    percent = {"x": 100 * x / WIDE, "y": 100 * y / HIGH, "width": 100 * w / WIDE, "height": 100 * h / HIGH}
    return {
        "id": f"r{key}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": WIDE,
        "original_height": HIGH,
        "image_rotation": 0,
        "value": {**percent, "rotation": rotation, "rectanglelabels": [label]},
    }


def label_studio(root: Path) -> Path:
    draw_all(root / "images")
    tasks = [
        {
            "id": i,
            "data": {"image": f"/data/upload/1/0a1b2c3d-{name}"},
            "annotations": [
                {"was_cancelled": False, "result": [label_studio_result(box, k) for k, box in enumerate(boxes)]}
            ],
            "predictions": [],
        }
        for i, (name, boxes) in enumerate(TRUTH.items())
    ]
    write(root / "project-1.json", json.dumps(tasks))
    return root


def via_regions(boxes: Iterable[Box]) -> list[dict[str, Any]]:
    return [
        {
            "shape_attributes": {"name": "rect", "x": x, "y": y, "width": w, "height": h},
            "region_attributes": {"class": label},
        }
        for label, x, y, w, h in boxes
    ]


def via(root: Path) -> Path:
    draw_all(root)
    images = {
        f"{name}1234": {"filename": name, "size": 1234, "regions": via_regions(boxes), "file_attributes": {}}
        for name, boxes in TRUTH.items()
    }
    project = {"_via_settings": {}, "_via_img_metadata": images, "_via_attributes": {"region": {}, "file": {}}}
    write(root / "via_project.json", json.dumps(project))
    return root


def via_csv(root: Path) -> Path:
    draw_all(root)
    with (root / "via.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "filename",
                "file_size",
                "file_attributes",
                "region_count",
                "region_id",
                "region_shape_attributes",
                "region_attributes",
            ]
        )
        for name, boxes in TRUTH.items():
            regions = via_regions(boxes) or [{"shape_attributes": {}, "region_attributes": {}}]
            for i, region in enumerate(regions):
                shape, own = (json.dumps(region[key]) for key in ("shape_attributes", "region_attributes"))
                writer.writerow([name, 1234, "{}", len(boxes), i, shape, own])
    return root


ROBOFLOW_SPLITS = {"train": ("a_000.jpg", "a_001.jpg"), "valid": ("b_000.jpg", "b_001.jpg"), "test": ("b_002.jpg",)}


def roboflow(root: Path) -> Path:
    for split, names in ROBOFLOW_SPLITS.items():
        draw_all(root / split, {name: TRUTH[name] for name in names})
        rows = [(i, box) for i, name in enumerate(names) for box in TRUTH[name]]
        content = {
            "info": {"description": "Exported from roboflow.com"},
            "images": [{"id": i, "file_name": name, "width": WIDE, "height": HIGH} for i, name in enumerate(names)],
            "annotations": [
                {
                    "id": k,
                    "image_id": i,
                    "category_id": 1 + NAMES.index(box[0]),
                    "bbox": list(box[1:]),
                    "area": box[3] * box[4],
                    "segmentation": [],
                    "iscrowd": 0,
                }
                for k, (i, box) in enumerate(rows)
            ],
            "categories": [
                {"id": 0, "name": "kitchen", "supercategory": "none"},
                *({"id": i, "name": name, "supercategory": "kitchen"} for i, name in enumerate(NAMES, start=1)),
            ],
        }
        write(root / split / "_annotations.coco.json", json.dumps(content))
    return root


def roboflow_yolo(root: Path) -> Path:
    for split, names in ROBOFLOW_SPLITS.items():
        draw_all(root / split / "images", {name: TRUTH[name] for name in names})
        for name in names:
            write(root / split / "labels" / f"{name[:-4]}.txt", yolo_lines(TRUTH[name]))
    paths = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    write(root / "data.yaml", f"{paths}\nnc: 2\nnames: ['cup', 'jug']\nroboflow:\n  project: kitchen\n")
    write(root / "README.roboflow.txt", "kitchen\n")
    return root


FORMS = {
    "voc": voc,
    "yolo": yolo,
    "cvat": cvat,
    "label-studio": label_studio,
    "via": via,
    "via, CSV": via_csv,
    "roboflow": roboflow,
    "roboflow, YOLO": roboflow_yolo,
}


def read_root(root: Path) -> dict[str, list[Box]]:
    """Every image's boxes as ``TRUTH`` has them, of all splits."""
    found: dict[str, list[Box]] = {}
    for path in sorted((root / "annotations").glob("instances_*.json")):
        rows = json.loads(path.read_text())
        names = {row["id"]: row["name"] for row in rows["categories"]}
        files = {row["id"]: row["file_name"] for row in rows["images"]}
        found |= {name: [] for name in files.values()}
        for row in rows["annotations"]:
            found[files[row["image_id"]]].append((names[row["category_id"]], *row["bbox"]))
    return found


def splits_of(root: Path) -> dict[str, list[str]]:
    """The images of each split."""
    return {
        path.stem.removeprefix("instances_"): [row["file_name"] for row in json.loads(path.read_text())["images"]]
        for path in sorted((root / "annotations").glob("instances_*.json"))
    }
