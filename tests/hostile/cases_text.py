"""YAML of tables and clusters, values of ``--set``, and answers of the evaluation server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from detector.evaluation.test_dev.answer import read_answer
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, parse_overrides, resolve
from harness.slurm.clusters import read_cluster
from tests.answers import NUMBERS, PERCENT, TEST_DEV, json_text, scores_text, summary_text
from tests.hostile.case import Case, Expected, either, refused, right
from tests.hostile.files import NOT_JSON, SPECIAL
from tests.hostile.invariant import PROJECT, Action, command
from tests.own_experiments import RECIPE, own_folder

# Each is put into a file that is right but for it. "nine" levels of nine aliases make 387 million values.
_ALIASES: Final = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
BAD_YAML: Final[tuple[tuple[str, bytes], ...]] = (
    ("aliases of aliases", _ALIASES.encode()),
    ("an alias of itself", b"x: &a [*a]\n"),
    ("an unknown alias", b"x: *nowhere\n"),
    ("a call of os.system", b"x: !!python/object/apply:os.system [touch owned]\n"),
    ("a module's name", b"x: !!python/name:os.system\n"),
    ("an unknown tag", b"x: !owned y\n"),
    ("a date that is none", b"x: 2024-13-45\n"),
    ("a time that is none", b"x: 2024-01-01T99:99:99Z\n"),
    ("base 64 that is none", b"x: !!binary '@@@'\n"),
    ("an integer of words", b"x: !!int words\n"),
    ("a float of words", b"x: !!float words\n"),
    ("a number of 50,000 digits", b"x: " + b"9" * 50_000 + b"\n"),
    ("bytes that are not UTF-8", b"x: \xff\xfe\n"),
    ("a zero byte", b"x: a\0b\n"),
    ("a control byte", b"x: \x1b[31m\n"),
    ("a tab before a key", b"x:\n\ty: 1\n"),
    ("an open bracket", b"x: [1, 2\n"),
    ("an open quote", b"x: 'a\n"),
    ("20,000 brackets", b"x: " + b"[" * 20_000 + b"]" * 20_000 + b"\n"),
    ("20,000 levels of lists", b"x: " + b"- " * 20_000 + b"a\n"),
    ("a list as a key", b"? [a, b]\n: 1\n"),
    ("a mapping as a key", b"? {a: b}\n: 1\n"),
    ("a merge of text", b"<<: text\n"),
    ("a second document", b"---\nx: 1\n"),
    ("an unknown version", b"%YAML 9.9\n---\nx: 1\n"),
    ("half a surrogate pair", b'x: "\\ud800"\n'),
    ("an unknown key", b"unknown_key: 1\n"),
    ("a set of YAML 1.1", b"x: !!set {a, b}\n"),
    ("an ordered map of text", b"x: !!omap text\n"),
)
TABLE: tuple[tuple[str, tuple[str, str], Expected], ...] = (
    ("no fault", ("", ""), right("table5")),
    ("4:30 is text", ('["0.3"]', "[4:30]"), right()),
    ("0400 is 400, yes is text", ('["0.3"]', "[yes]"), right()),
    ("line ends of Windows", ("\n", "\r\n"), right("table5")),
    ("1e-1 is a number", ("{loss.margin: 0.3}", "{loss.margin: 3e-1}"), right()),
    ("no title", ("title: Margins\n", ""), refused("table5.yaml", "title")),
    ("another id", ("id: table5", "id: ../../x"), refused("table5.yaml")),
    ("a row twice", ("id: high", "id: low"), refused("table5.yaml", "low")),
    ("a row's id that leaves", ("id: low", "id: ../../x"), refused("table5.yaml")),
    ("a key twice", ("title: Margins", "title: Margins\ntitle: Other"), refused("table5.yaml", "twice")),
    ("rows null", ("rows:", "rows: null\nx:"), refused("table5.yaml")),
    ("columns of another number", ("columns: [Margin]", "columns: [a, b]"), refused("table5.yaml")),
    ("an unknown split", ("split: minival", "split: maxival"), refused("table5.yaml", "maxival")),
    ("an unknown recipe", ("recipe: dr-r50-1x", "recipe: nowhere"), refused("nowhere")),
    ("a title that acts", ("title: Margins", 'title: "\\e]0;owned\\a\\r"'), either()),
    ("a title of two lines", ("title: Margins", 'title: "a\\nb"'), either()),
    ("a margin of .nan", ("0.3}", ".nan}"), either()),
    ("a margin of .inf", ("0.3}", ".inf}"), either()),
    ("a margin of text", ("0.3}", "high}"), either()),
)


def _table(edit: Callable[[str], str] | None = None, more: bytes = b"") -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        path = own_folder(folder / "own", "table5") / "table5.yaml"
        text = path.read_text()
        path.write_bytes((edit(text) if edit else text).encode() + more)
        return command("list", HARNESS_EXPERIMENTS=folder / "own")

    return given


def _swap(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, -1 if old == "\n" else 1) if old else text


def _table_file(make: Callable[[Path], None]) -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        make(own_folder(folder / "own", "table5") / "table5.yaml")
        return command("list", HARNESS_EXPERIMENTS=folder / "own")

    return given


def _recipes(**extends: str) -> Callable[[Path], Action]:
    """Recipes of one's own by name, and what each extends."""

    def given(folder: Path) -> Action:
        (folder / "own" / "recipes").mkdir(parents=True)
        for name, base in extends.items():
            text = RECIPE.replace("name: mine", f"name: {name}").replace("extends: dr-r50-1x", f"extends: {base}")
            (folder / "own" / "recipes" / f"{name}.yaml").write_text(text)
        return command("explain", next(iter(extends)), HARNESS_EXPERIMENTS=folder / "own")

    return given


# Values that the setting cannot have.
BAD_SET: tuple[str, ...] = (
    *("optimizer.lr", "=1", "", "=", "optimizer.lr=", "optimizer.lr=high", "optimizer.lr=.nan", "optimizer.lr=.inf"),
    *("optimizer.lr=-1", "optimizer.lr=[1]", "optimizer.lr={a: 1}", "optimizer.lr=null", "optimizer.lr=2024-13-45"),
    *("optimizer.lr=true", "optimizer.lr=!!python/object/apply:os.system [touch owned]", "optimizer.lr=!!binary '@'"),
    *(
        "optimizer.lr=*a",
        "optimizer.lr=&a [*a]",
        "optimizer.lr=[",
        "optimizer.lr=1\x00",
        "optimizer.lr='",
        "optimizer.lr=1: 2: 3",
    ),
    *(
        "optimizer.lr=1e400",
        f"optimizer.lr={'9' * 5000}",
        f"optimizer.lr={'[' * 5000}",
        "optimizer=1",
        "optimizer.lr.x=1",
    ),
    *("unknown=1", "../x=1", "optimizer..lr=1", ".=1", "schedule.iterations=0", "schedule.iterations=-5"),
    *("schedule.iterations=1.5", "schedule.iterations=1000000000000000000", f"schedule.iterations={2**64}"),
    *("schedule.milestones=[300, 200]", "schedule.milestones=[-1]", "schedule.milestones=5", "batch.images=0"),
    *("batch.images=3", "batch.images_per_group=0", "model.anchor_scale=1e308", "model.anchor_scale=0"),
    *("model.aspect_ratios=[]", "model.aspect_ratios=[0]", "model.backbone=nowhere", "model.weights=../../x"),
    *("model.fpn_levels=[5, 3]", "model.fpn_channels=1000000000000", "model.scales_per_octave=1000000000"),
    *("test.short_sides=[0]", "test.short_sides=[1000000000]", "test.short_sides=[]", "test.nms_iou=2"),
    *("loss.name=nowhere", "loss.L=-1", "loss.surrogate={name: nowhere}", "loss.surrogate={name: logistic, L: 0}"),
    *("loss.h_pos=-1", "matching.background_iou=0.9", "precision=fp8", "optimizer.momentum=2"),
)
GOOD_SET: tuple[tuple[str, Any], ...] = (
    ("optimizer.lr=0.005", 0.005),
    ("optimizer.lr=5e-3", 0.005),
    ("optimizer.lr= 0.005", 0.005),
    ("optimizer.lr=1", 1.0),
    ("optimizer.lr=0400", 400.0),
)


@cache
def _registry() -> Registry:
    return Registry(PROJECT / "experiments")


def _resolved(*items: str) -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        def read() -> float:
            found = resolve(
                _registry(), "table2/L6", _registry().profile("tiny"), overrides=parse_overrides(list(items))
            )
            return eval_job(found, 0).train.optimizer.lr

        return read

    return given


CLUSTER: tuple[tuple[str, str, Any], ...] = (
    ("no fault", "", lambda cluster: cluster.nodes == 2 and cluster.extra == {}),
    ("time_minutes: 0", "time_minutes: 240", "time_minutes: 0"),
    ("negative time", "time_minutes: 240", "time_minutes: -4"),
    ("time of words", "time_minutes: 240", "time_minutes: four"),
    ("time of 1e30", "time_minutes: 240", "time_minutes: 1e30"),
    ("time 4:30 is text", "time_minutes: 240", "time_minutes: 4:30"),
    ("no time", "time_minutes: 240", "x: 1"),
    ("nodes: 0", "nodes: 2", "nodes: 0"),
    ("nodes: 2^64", "nodes: 2", f"nodes: {2**64}"),
    ("gpus_per_node: -1", "gpus_per_node: 4", "gpus_per_node: -1"),
    ("memory .nan", "memory_gb_per_gpu: 32", "memory_gb_per_gpu: .nan"),
    ("memory .inf", "memory_gb_per_gpu: 32", "memory_gb_per_gpu: .inf"),
    ("a partition of two lines", "partition: gpu", 'partition: "gpu\\n#SBATCH --uid=0"'),
    ("an account of two lines", "account: null", 'account: "a\\nrm -rf x"'),
    ("a name that leaves", "name: example", "name: ../../x"),
    ("a name of two lines", "name: example", 'name: "a\\nb"'),
    ("an option of two lines", "extra: {}", 'extra: {comment: "a\\nrm -rf x"}'),
    ("an option's name of two lines", "extra: {}", 'extra: {"comment\\nrm": x}'),
    ("an option of the submission's", "extra: {}", "extra: {output: /etc/passwd}"),
    ("a list as an option", "extra: {}", "extra: {comment: [a]}"),
    ("setup null", "setup:", "setup: null\nx:"),
    ("python of two lines", "python: null", 'python: "python\\nrm -rf x"'),
    ("a container of two lines", "container: null", 'container: "x\\nrm -rf y"'),
    ("an empty python", "python: null", "python: ''"),
    ("an empty container", "container: null", "container: ' '"),
    ("an empty partition", "partition: gpu", "partition: ''"),
    ("a partition with a space", "partition: gpu", "partition: gpu --uid=0"),
    ("a setup line that acts on terminals", "- export NCCL_DEBUG=WARN", '- "x\\e[2Jy"'),
    ("a setup line with a carriage return", "- export NCCL_DEBUG=WARN", '- "x\\rrm -rf y"'),
    ("memory that rounds to nothing", "memory_gb_per_gpu: 32", "memory_gb_per_gpu: 1e-9"),
    ("start_minutes: 0", "start_minutes: 30", "start_minutes: 0"),
    ("start_minutes .inf", "start_minutes: 30", "start_minutes: .inf"),
    ("a nice of 2^64", "nice: null", f"nice: {2**64}"),
    ("an option of 1e300", "extra: {}", "extra: {switches: 1e300}"),
    ("an option's name with a space", "extra: {}", "extra: {exclude n7 --uid: 0}"),
    ("an option with a key of its own", "extra: {}", "extra: {mail_type: ALL}"),
    ("a mail_type that Slurm has not", "mail_type: []", "mail_type: [FALL]"),
    ("a mail_user of two lines", "mail_user: null", 'mail_user: "me\\n#SBATCH --uid=0"'),
    ("a dependency that Slurm has not", "dependency: null", "dependency: afterok:../x"),
    ("a slurm_conf that is relative", "slurm_conf: null", "slurm_conf: ../slurm.conf"),
    ("evaluation that is a list", "evaluation: null", "evaluation: [1]"),
    ("evaluation with an unknown key", "evaluation: null", "evaluation: {setup: [x]}"),
    ("evaluation of two lines", "evaluation: null", 'evaluation: {qos: "q\\nx"}'),
    ("evaluation without time", "evaluation: null", "evaluation: {time_minutes: 2}"),
    ("rows that are a list", "rows: {}", "rows: [table4/x]"),
    ("a row without a table", "rows: {}", "rows: {dr-x101: {nodes: 1}}"),
    ("a row of two lines", "rows: {}", 'rows: {"table4/x\\ny": {nodes: 1}}'),
    ("a row's option of the submission's", "rows: {}", "rows: {table4/*: {extra: {wrap: x}}}"),
    ("a row's nodes: 0", "rows: {}", "rows: {table2/*: {nodes: 1}, table4/*: {nodes: 0}}"),
    ("a fallback to itself", "fallback: null", "fallback: {partition: gpu, after: 1}"),
    ("a fallback after -1", "fallback: null", "fallback: {partition: other, after: -1}"),
)


def _cluster(edit: Callable[[str], str], more: bytes = b"") -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        path = folder / "example.yaml"
        text = (PROJECT / "experiments" / "clusters" / "example.yaml").read_text()
        path.write_bytes(edit(text).encode() + more)
        return lambda: read_cluster(path)

    return given


def _cluster_file(make: Callable[[Path], None]) -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        make(folder / "example.yaml")
        return lambda: read_cluster(folder / "example.yaml")

    return given


_SUMMARY: Final = summary_text()
ANSWERS: tuple[tuple[str, bytes, Expected], ...] = (
    ("the summary", _SUMMARY.encode(), right(value=PERCENT)),
    ("scores.txt", scores_text().encode(), right(value=PERCENT)),
    ("JSON", json_text().encode(), right(value=PERCENT)),
    ("in percent", scores_text(tuple(round(100 * x, 1) for x in NUMBERS)).encode(), right(value=PERCENT)),
    ("with a byte order mark", b"\xef\xbb\xbf" + scores_text().encode(), right(value=PERCENT)),
    ("line ends of Windows", scores_text().replace("\n", "\r\n").encode(), right(value=PERCENT)),
    (
        "no small objects",
        scores_text((*NUMBERS[:3], -1, *NUMBERS[4:])).encode(),
        right(value=lambda found: found["APS"] is None),
    ),
    ("AP -1", scores_text((-1, *NUMBERS[1:])).encode(), refused("AP")),
    ("AP NaN", scores_text((float("nan"), *NUMBERS[1:])).encode(), refused("AP")),
    ("AP inf", scores_text((float("inf"), *NUMBERS[1:])).encode(), refused("AP")),
    ("AP 1e9", scores_text((1e9, *NUMBERS[1:])).encode(), refused("AP")),
    ("AP above AP50", scores_text((0.7, *NUMBERS[1:])).encode(), refused("AP50")),
    ("AP twice", (scores_text() + "AP: 0.5\n").encode(), refused("AP")),
    ("no AP", scores_text().split("\n", 1)[1].encode(), refused("AP")),
    ("percent and fractions", scores_text((41.7, *NUMBERS[1:])).encode(), refused("percent")),
    ("a decimal comma", scores_text().replace("0.417", "0,417").encode(), refused("AP")),
    ("digits of another script", scores_text().replace("0.417", "\u0660.\u0664\u0661\u0667").encode(), either()),
    ("a number with underscores", scores_text().replace("0.417", "0.41_7").encode(), either()),
    ("cut within a number", _SUMMARY[:-3].encode(), refused()),
    ("AP a list", json_text().replace("0.417", "[0.417]").encode(), refused("AP")),
    ("AP null", json_text().replace("0.417", "null").encode(), refused("AP")),
    ("AP true", json_text().replace("0.417", "true").encode(), refused("AP")),
    ("AP of 1e999", json_text().replace("0.417", "1e999").encode(), refused("AP")),
    ("AP of 5,000 digits", json_text().replace("0.417", "9" * 5000).encode(), refused()),
    ("AP that acts", scores_text().replace("0.417", "\x1b[31m").encode(), refused("AP")),
    ("2 MB of spaces", b" " * 2_000_000, refused("answer.txt")),
    ("UTF-16", scores_text().encode("utf-16"), refused("answer.txt")),
    ("another split's JSON", json_text(split="test2015").encode(), refused()),
)


def _answer(data: bytes) -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        (folder / "answer.txt").write_bytes(data)
        return lambda: read_answer(folder / "answer.txt", TEST_DEV)

    return given


def _answer_file(make: Callable[[Path], None]) -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        make(folder / "answer.txt")
        return lambda: read_answer(folder / "answer.txt", TEST_DEV)

    return given


def _cases() -> Iterator[Case]:
    area = "experiments"
    for name, (old, new), expected in TABLE:
        yield Case(area, name, _table(_swap(old, new)), expected)
    for name, more in BAD_YAML:
        yield Case(area, f"a table with {name}", _table(more=more), refused("table5.yaml"))
    for name, make in SPECIAL:
        yield Case(area, f"a table that is {name}", _table_file(make), Expected((1, 2), ("table5.yaml",)))
    yield Case(area, "a recipe that extends itself", _recipes(mine="mine"), refused("mine"))
    yield Case(area, "recipes that extend each other", _recipes(one="two", two="three", three="one"), refused("one"))
    yield Case(area, "a recipe that extends nothing there", _recipes(mine="nowhere"), refused("nowhere"))
    area = "--set"
    for item in BAD_SET:
        yield Case(area, repr(item[:60]), _resolved(item), refused("--set"))
    for item, value in GOOD_SET:
        yield Case(area, repr(item), _resolved(item), right(value=value))
    yield Case(area, "one path twice", _resolved("optimizer.lr=1", "optimizer.lr=2"), refused("optimizer.lr"))
    area = "clusters"
    for name, old, new in CLUSTER:
        expected = right(value=new) if not old else refused("example.yaml")
        yield Case(area, name, _cluster(_swap(old, new) if old else str), expected)
    for name, more in BAD_YAML:
        yield Case(area, f"with {name}", _cluster(str, more), refused("example.yaml"))
    for name, make in SPECIAL:
        yield Case(area, name, _cluster_file(make), refused("example.yaml"))
    area = "answers"
    for name, data, expected in ANSWERS:
        yield Case(area, name, _answer(data), expected)
    for name, data in NOT_JSON:
        yield Case(area, f"file of {name}", _answer(data), refused("answer.txt"))
    for name, make in SPECIAL:
        yield Case(area, name, _answer_file(make), refused("answer.txt"))


CASES: Final = tuple(_cases())
