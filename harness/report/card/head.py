"""The YAML head of a model card, in the fields that model hubs read, with the metrics unrounded."""

from __future__ import annotations

import re
from typing import Any, Final

from detector.errors import UsageError
from detector.runs.job import CocoRelease, Shapes
from detector.runs.record import COCO_METRICS, Record
from harness.report.card.facts import CardFacts

TASK: Final = "object-detection"
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
MEANING: Final = {
    "AP": "AP at IoU 0.50:0.95, percent",
    "AP50": "AP at IoU 0.50, percent",
    "AP75": "AP at IoU 0.75, percent",
    "APS": "AP of small objects, percent",
    "APM": "AP of medium objects, percent",
    "APL": "AP of large objects, percent",
    "AR1": "average recall of 1 detection per image, percent",
    "AR10": "average recall of 10 detections per image, percent",
    "AR100": "average recall of 100 detections per image, percent",
    "ARS": "average recall of small objects, percent",
    "ARM": "average recall of medium objects, percent",
    "ARL": "average recall of large objects, percent",
}


def model_name(record: Record) -> str:
    """``retinanet-slim-dr-6b1dc777``: network, loss, the training's first digits."""
    return f"retinanet-{record.job.train.model.backbone}-{loss_name(record)}-{record.train_id[:8]}".replace("_", "-")


def loss_name(record: Record) -> str:
    """``dr``, ``focal``, ``cross_entropy``, or the name of a loss from elsewhere."""
    return str(type(record.job.train.loss).__struct_config__.tag)


def card_head(facts: CardFacts, licence: str) -> str:
    """The head between its two lines. licence: as hubs name it. Raises UsageError for one that is no such name."""
    import yaml

    if not _LICENCE.fullmatch(licence):
        raise UsageError(
            f"--license {licence!r} is no name of a licence as hubs write it, such as apache-2.0 or other."
        )
    record = facts.record
    shown = [name for name in COCO_METRICS if record.metrics.get(name) is not None]
    data = _data_set(record)
    fields: dict[str, Any] = {
        "license": licence,
        "library_name": "drloss-harness",
        "pipeline_tag": TASK,
        "tags": [TASK, "retinanet", "pytorch", f"{loss_name(record).replace('_', '-')}-loss", "dr-loss-reproduction"],
        **({"datasets": [data["type"]]} if isinstance(record.job.train.data, CocoRelease) else {}),
        "metrics": shown,
        "model-index": [
            {
                "name": model_name(record),
                "results": [
                    {
                        "task": {"type": TASK, "name": "Object detection"},
                        "dataset": data,
                        "metrics": [
                            {"type": name, "name": MEANING[name], "value": record.metrics[name]} for name in shown
                        ],
                    }
                ],
            }
        ],
    }
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{text}---\n"


def _data_set(record: Record) -> dict[str, str]:
    """The data set of the test, as a hub names one; ``type`` is a hub's id where there is one."""
    source, digest = record.job.train.data, record.test_split.sha256
    if isinstance(source, Shapes):
        return {"type": "generated-shapes", "name": f"Generated shapes, version {source.version}", "split": "val2017"}
    if isinstance(source, CocoRelease):
        split = record.job.split or source.test_split
        return {"type": "coco", "name": f"COCO {source.release}", "split": split}
    return {"type": "own", "name": f"A COCO-format folder, annotations sha256 {digest}", "split": source.test_split}
