"""A training and its evaluations as data, and their identity. Free of torch.

A job is fully resolved: editing a default elsewhere never changes what an existing id means. Only a field that was
added later has a default, which is what older jobs meant by leaving it out. Two jobs are the same run exactly if their
ids are equal. How a job is executed (devices, workers, launcher, paths) is not part of it.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from detector.errors import UsageError
from detector.runs.backbones import BACKBONES
from drloss.plugins import LossConfig

# Raised when a component's results change for the same job (a bug fix): old records then belong to old ids.
TRAIN_SEMANTICS = {"data": 1, "loss": 1, "model": 1, "training": 1}
EVAL_SEMANTICS = {"evaluation": 1}

# Whole numbers are hashed as floats, which tell them apart up to here. A larger one would share its neighbour's id.
LARGEST = 2**53
Count = Annotated[int, Meta(ge=1, le=LARGEST)]
Index = Annotated[int, Meta(ge=0, le=LARGEST)]
PositiveFloat = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
# What is beyond any training: told when a file or an option is read, not by a full memory or a loss that is no number.
MAX_PIXELS = 16_384  # of a side
MAX_IMAGES = 10_000_000  # of a generated set's split
Iterations = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Images = Annotated[int, Meta(ge=1, le=65_536)]  # of a batch
Pixels = Annotated[int, Meta(ge=1, le=MAX_PIXELS)]
Channels = Annotated[int, Meta(ge=1, le=65_536)]
Few = Annotated[int, Meta(ge=1, le=100)]  # layers, scales
Candidates = Annotated[int, Meta(ge=1, le=1_000_000)]
Factor = Annotated[float, Meta(gt=0, le=1e6)]
Weight = Annotated[float, Meta(ge=0, le=1e6)]
PixelValue = Annotated[float, Meta(ge=-1e6, le=1e6)]
PixelSpread = Annotated[float, Meta(ge=1e-6, le=1e6)]
Scale = Annotated[float, Meta(ge=1e-3, le=1e4)]  # of anchors: sizes in strides, ratios of sides
if TYPE_CHECKING:
    Backbone: TypeAlias = str
else:  # so that the table is the only list of names, and files are still checked by it
    Backbone = Literal[tuple(BACKBONES)]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
BoxConvention = Literal["legacy", "modern"]
# caffe2, torchvision: ImageNet weights of the backbone in that project's file; sha256:...: any readable file, named by
# its content, of a backbone or of a whole detector.
WeightsName = Annotated[str, Meta(pattern=r"^(none|caffe2|torchvision|sha256:[0-9a-f]{64})$(?!\n)")]


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every block of a job.

    ``added`` names the fields that were added after the first release: each is hashed only where it differs from its
    default, so that older ids stay what they were.
    """

    added: ClassVar[tuple[str, ...]] = ()


class CocoRelease(Settings, frozen=True, tag_field="source", tag="coco"):
    """A published release, identified by name and checked by its known counts."""

    release: Literal["2017"]
    train_split: str
    test_split: str


class AnnotatedFolder(Settings, frozen=True, tag_field="source", tag="folder"):
    """Any COCO-format root, identified by the sha256 of its annotation files; None until a root is given.

    ``num_images``: None for all of a split, else the first that many by image id with at least one valid box.
    """

    train_split: str
    test_split: str
    num_images: Count | None
    train_sha256: str | None
    test_sha256: str | None


class Shapes(Settings, frozen=True, tag_field="source", tag="shapes"):
    """The generated set of ``harness data synth``, identified by the generator's version and parameters."""

    version: Count
    seed: Index
    size: Annotated[int, Meta(ge=32, le=MAX_PIXELS)]
    num_train: Annotated[int, Meta(ge=1, le=MAX_IMAGES)]
    num_test: Annotated[int, Meta(ge=1, le=MAX_IMAGES)]
    num_classes: Annotated[int, Meta(ge=1, le=12)]


DataSource = CocoRelease | AnnotatedFolder | Shapes


class PixelSettings(Settings, frozen=True):
    """What the network sees: channels in ``order``, values in 0..``range``, then (value - mean) / std in that order."""

    order: Literal["rgb", "bgr"]
    range: Literal[1, 255]
    mean: tuple[PixelValue, PixelValue, PixelValue]
    std: tuple[PixelSpread, PixelSpread, PixelSpread]


UNIT_RGB = PixelSettings(order="rgb", range=1, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class ModelSettings(Settings, frozen=True, kw_only=True):
    """RetinaNet. Anchor sizes are ``anchor_scale * stride * 2^(i / scales_per_octave)`` pixels.

    ``stride_in_1x1``: where a bottleneck halves the resolution (MSRA's ResNets: in its first convolution, not in its
    3x3). ``norm_epsilon``: of frozen batch norm. ``round_anchors``: to whole pixels, as the box convention does it.
    ``anchor_spacing``: pixels between a level's anchors; nominal: its stride, fitted: image side // feature side
    (torchvision), which differs where an image is not a multiple of the stride.
    """

    added: ClassVar[tuple[str, ...]] = ("pixels", "stride_in_1x1", "norm_epsilon", "round_anchors", "anchor_spacing")

    backbone: Backbone
    weights: WeightsName
    pixels: PixelSettings = UNIT_RGB
    stride_in_1x1: bool = False
    norm: Literal["frozen_batch", "group"]
    norm_epsilon: Fraction = 1e-5
    frozen_stages: Annotated[int, Meta(ge=0, le=5)]  # 2: the stem and the first residual stage
    fpn_channels: Channels
    fpn_levels: tuple[Literal[3], Annotated[int, Meta(ge=5, le=7)]]
    p6_from: Literal["c5", "p5"]
    head_convs: Few
    head_norm: Literal["none", "group"]
    anchor_scale: Scale
    scales_per_octave: Few
    aspect_ratios: tuple[Scale, ...]
    round_anchors: bool = True
    anchor_spacing: Literal["nominal", "fitted"] = "nominal"
    prior_probability: Annotated[float, Meta(gt=0, lt=1)]


class MatchSettings(Settings, frozen=True):
    """Anchor assignment: IoU >= foreground is positive, < background is negative, between is ignored."""

    foreground_iou: Fraction
    background_iou: Fraction
    allow_low_quality: bool


class RegressionSettings(Settings, frozen=True):
    """Smooth L1 (``beta`` 0: L1) over positives, divided by max(1, ``normalizer`` * positives of the group)."""

    box_weights: tuple[Factor, Factor, Factor, Factor]
    beta: Weight
    normalizer: Factor


class OptimizerSettings(Settings, frozen=True):
    """SGD; biases have a learning rate and a weight decay of their own."""

    lr: Factor
    momentum: Fraction
    weight_decay: Weight
    bias_lr_factor: Factor
    bias_weight_decay: Weight


class ScheduleSettings(Settings, frozen=True):
    """Linear warm-up from ``warmup_factor`` of the learning rate, then ``gamma`` at each milestone (iterations)."""

    iterations: Iterations
    warmup_iterations: Index
    warmup_factor: Fraction
    milestones: tuple[Count, ...]
    gamma: Factor


class BatchSettings(Settings, frozen=True):
    """``images_per_group`` images share padding and loss normalisers (the paper's per-GPU batch).

    ``crowd_only``: also train on images whose only boxes are crowds, as images without boxes.
    """

    added: ClassVar[tuple[str, ...]] = ("crowd_only",)

    images: Images
    images_per_group: Images
    aspect_grouping: bool
    crowd_only: bool = False


class AugmentationSettings(Settings, frozen=True):
    """Training images: short side drawn from ``short_sides``, long side at most ``max_size`` pixels, random flip."""

    short_sides: tuple[Pixels, ...]
    max_size: Pixels
    flip_probability: Fraction


class TestSettings(Settings, frozen=True):
    """Inference: several ``short_sides`` are a multi-scale test.

    ``merge``: what of its scales goes through one NMS: all candidates, or the detections that each scale's own NMS and
    ``detections_per_image`` leave.
    """

    added: ClassVar[tuple[str, ...]] = ("merge",)
    __test__: ClassVar[bool] = False  # not a test case for pytest

    short_sides: tuple[Pixels, ...]
    max_size: Pixels
    flip: bool
    score_threshold: Fraction
    candidates_per_level: Candidates
    nms_iou: Fraction
    detections_per_image: Candidates
    merge: Literal["candidates", "detections"] = "candidates"


class TrainJob(Settings, frozen=True, kw_only=True):
    """Everything that decides the final weights.

    ``box_convention``: whether a box of w pixels spans x1 .. x1 + w - 1 (legacy) or x1 .. x1 + w (modern), everywhere.
    ``loss_package``: ``name==version`` of the package that the loss comes from; None for a built-in loss.
    """

    added: ClassVar[tuple[str, ...]] = ("box_convention", "loss_package")

    seed: Index
    box_convention: BoxConvention = "modern"
    data: DataSource
    model: ModelSettings
    loss: LossConfig
    loss_package: str | None = None
    matching: MatchSettings
    regression: RegressionSettings
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    batch: BatchSettings
    augmentation: AugmentationSettings
    precision: Precision

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits of the sha256 of the resolved job and of the components' semantics."""
        return _digest({"train": _hashed(self), "semantics": TRAIN_SEMANTICS})


class EvalJob(Settings, frozen=True):
    """One test of one training's final weights, on ``split`` (None: the data's own test split)."""

    train: TrainJob
    test: TestSettings
    split: str | None

    @property
    def id(self) -> str:
        """As ``TrainJob.id``, over the training's id, the test settings and the split."""
        return self.ids[0]

    @property
    def ids(self) -> tuple[str, str]:
        """The evaluation's id and its training's, whose job is hashed once for both."""
        train = self.train.id
        content = {"train": train, "test": _hashed(self.test), "split": self.split, "semantics": EVAL_SEMANTICS}
        return _digest(content), train


def _hashed(value: Any) -> Any:
    """The value as plain data, without fields that were added later and hold their default."""
    if value is None or type(value) is str:  # half of all values, and every record's job is hashed when it is read
        return value
    if isinstance(value, Struct):
        meant = _later_fields(type(value))
        fields = {
            field: _hashed(getattr(value, field))
            for field in value.__struct_fields__
            if not (field in meant and getattr(value, field) == meant[field])
        }
        config = value.__struct_config__
        return fields | ({config.tag_field: config.tag} if config.tag_field else {})
    if isinstance(value, (tuple, list)):
        return [_hashed(item) for item in value]
    return _number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _number(value: float) -> float:
    """6 and 6.0, 0.0 and -0.0 mean the same, so each pair is hashed as one float. Raises UsageError out of range."""
    if isinstance(value, int) and abs(value) > LARGEST:
        raise UsageError(
            f"A job holds a whole number of {len(str(abs(value)))} digits; the largest is 2^53 = {LARGEST}."
        )
    if not math.isfinite(value):
        raise UsageError(f"A job holds {value}: only finite numbers can be told apart in an id.")
    return float(value) + 0.0


@cache
def _later_fields(kind: type[Struct]) -> dict[str, Any]:
    """Fields that were added later, with their defaults. Cached, because reading annotations is slow."""
    added: tuple[str, ...] = getattr(kind, "added", ())
    return {field.name: field.default for field in msgspec.structs.fields(kind) if field.name in added}


def _digest(payload: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(payload, order="sorted")).hexdigest()[:16]
