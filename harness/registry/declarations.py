"""What an experiment file may say: tables, rows, recipes, profiles, the ledger, claims. Free of torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct

from detector.runs.assignment import AnchorRanges
from detector.runs.job import (
    AugmentationSettings,
    Backbone,
    BatchSettings,
    BoxConvention,
    Count,
    DataSource,
    Factor,
    Images,
    Iterations,
    MatchSettings,
    ModelSettings,
    OptimizerSettings,
    Pixels,
    PositiveFloat,
    Precision,
    RegressionSettings,
    ScheduleSettings,
    Settings,
    TestSettings,
)
from drloss.plugins import LossConfig
from harness.registry.claims import Claim, Line
from harness.registry.speeds import SpeedsFile

METRICS = ("AP", "AP50", "AP75", "APS", "APM", "APL")
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\n)")]
Processes = Annotated[int, Meta(ge=1, le=4096)]
Percent = Annotated[float, Meta(ge=0, le=100)]


class Row(Settings, frozen=True):
    """A line of a table: a difference from a recipe, or numbers cited from another paper.

    ``published``: the paper's AP, AP50, AP75, APS, APM, APL in percent on the table's split. ``profiles``: those at
    which the row means something, if the others set what it compares; None for all.
    """

    id: Name
    cells: tuple[Line, ...]
    recipe: str | None = None
    set: dict[str, Any] = {}  # noqa: RUF012 (msgspec copies it)
    published: tuple[Percent, Percent, Percent, Percent, Percent, Percent] | None = None
    cited: Line | None = None
    group: Literal["two-stage", "one-stage"] | None = None
    profiles: tuple[Name, ...] | None = None


class Table(Settings, frozen=True):
    """A table of the paper, ``ablations`` (rows of our own), or one of the user. ``columns``: headings of the cells."""

    id: Name
    title: Line
    split: Literal["minival", "test-dev"]
    columns: tuple[Line, ...]
    rows: tuple[Row, ...]

    def refs(self, profile: str | None = None) -> list[str]:
        """``table/row`` of every row that this project trains (at that profile)."""
        return [
            f"{self.id}/{row.id}"
            for row in self.rows
            if row.recipe and (profile is None or row.profiles is None or profile in row.profiles)
        ]


class ResolvedSettings(Settings, frozen=True):
    """What a recipe must give in full: a TrainJob without its seed, and the test."""

    data: DataSource
    box_convention: BoxConvention
    model: ModelSettings
    loss: LossConfig
    matching: MatchSettings
    regression: RegressionSettings
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    batch: BatchSettings
    augmentation: AugmentationSettings
    precision: Precision
    test: TestSettings


class Released(Settings, frozen=True):
    """A configuration that the paper's authors released: its name, and the AP that they state for its checkpoint."""

    config: Name
    minival: Percent | None = None
    test_dev: Percent | None = None


class RecipeFile(Settings, frozen=True):
    """A recipe as written: settings over those of ``extends``, and the source of each (a path covers all below it).

    ``released``: the authors' own configuration that the recipe is; None for any other.
    """

    name: Name
    title: Line
    settings: dict[str, Any]
    sources: dict[str, tuple[str, ...]]
    extends: str | None = None
    released: Released | None = None


class Execution(Settings, frozen=True):
    """How a profile's runs are executed; recorded, and no part of any identity."""

    gpus_per_run: Literal["all"] | Annotated[int, Meta(ge=0, le=65_536)]
    threads: Processes  # CPU threads per process
    memory_gb: Annotated[float, Meta(gt=0, le=1e6)]  # of main memory per run, to decide how many go side by side
    loader_workers: Annotated[int, Meta(ge=0, le=1024)]
    checkpoint_every: Count  # iterations
    groups_per_forward: Images  # groups of equal shape that share a forward pass
    evaluate_every: Annotated[int, Meta(ge=0)] = 0  # iterations; only for 'AP so far' in the status; 0: never
    compile: bool = False  # trains with backbone and head under torch.compile; needs a C++ compiler
    cuda_graphs: bool = True  # a GPU replays passes of shapes that it met before as CUDA graphs
    deterministic: bool = False  # a GPU repeats a training to the last bit, with slower algorithms


class StatedSpeed(Settings, frozen=True):
    """How fast such trainings are by others' account: for plans, until runs of this software are measured.

    ``seconds_per_iteration``: of ``images`` images of that ``short_side`` on ``gpus`` GPUs together;
    ``seconds_per_test_image``: on one GPU at that side.
    """

    source: Line
    gpus: Count
    images: Count
    short_side: Count
    seconds_per_iteration: dict[Backbone, PositiveFloat]
    seconds_per_test_image: dict[Backbone, PositiveFloat] = {}  # noqa: RUF012 (msgspec copies it)


class Profile(Settings, frozen=True):
    """A scale. It changes data, model size, schedule and execution; never what the tables compare.

    ``iterations_1x``: what the paper's 90,000 iterations become; ``short_side_800``: what its 800 pixels become;
    ``long_side_1333``: what the limit of 1333 of the long side becomes (default: in proportion to the short side).
    ``assumed_sd``: the deviation between seeds (percent) where it cannot be estimated yet. ``lr_limit``: the largest
    learning rate that is known to train at this scale, up to which ``--batch-size`` rescales. ``anchor_ranges``: how
    many anchors per image the first batch may match on this data; a run with others stops. ``stated_speed``: what
    ``harness plan`` uses while there is no record to measure by.
    """

    FIXED: ClassVar[tuple[str, ...]] = (
        "loss",
        "matching",
        "regression",
        "model.prior_probability",
        "test.score_threshold",
        "test.nms_iou",
    )

    name: Name
    title: Line
    needs: Line
    compare_with_paper: bool
    execution: Execution
    assumed_sd: dict[str, Annotated[float, Meta(gt=0, le=100)]]
    iterations_1x: Iterations | None = None
    short_side_800: Pixels | None = None
    long_side_1333: Pixels | None = None
    backbones: dict[Backbone, Backbone] = {}  # noqa: RUF012
    settings: dict[str, Any] = {}  # noqa: RUF012
    without_weights: Literal["stop", "from_scratch"] = "stop"
    lr_limit: Factor | None = None
    anchor_ranges: AnchorRanges | None = None
    stated_speed: StatedSpeed | None = None

    def __post_init__(self) -> None:
        """Reject a long side alone (msgspec turns the ValueError into a ValidationError)."""
        if self.long_side_1333 is not None and self.short_side_800 is None:
            raise ValueError(f"profile {self.name!r}: long_side_1333 goes with short_side_800")


class LedgerEntry(Settings, frozen=True, kw_only=True):
    """One setting on which the sources differ: what each says ("silent": nothing), and why we use what we use.

    ``recipes`` and ``rows`` (``table/row``) limit where it applies; ``others``: what further codebases do, by name;
    ``ablations``: rows with another value.
    """

    path: str
    paper: Any
    released: Any
    base: Any
    why: Line
    ablations: Annotated[tuple[str, ...], Meta(min_length=1)]
    others: dict[str, Any] = {}  # noqa: RUF012
    recipes: tuple[Name, ...] | None = None
    rows: tuple[str, ...] | None = None


class CodeDifference(Settings, frozen=True, kw_only=True):
    """A difference in code, which no setting switches."""

    what: Line
    released: Line
    base: Line
    used: Line


class LedgerFile(Settings, frozen=True):
    """ledger.yaml: where the paper, its released configuration, its base codebase and we are not all equal."""

    fields: tuple[LedgerEntry, ...]
    code: tuple[CodeDifference, ...]


class ClaimsFile(Settings, frozen=True):
    """claims.yaml: the statements of the paper's section 4, or those of the user."""

    claims: tuple[Claim, ...]


FILE_KINDS: dict[str, type[Struct]] = {
    "table": Table,
    "recipe": RecipeFile,
    "profile": Profile,
    "claims": ClaimsFile,
    "ledger": LedgerFile,
    "speeds": SpeedsFile,
}
