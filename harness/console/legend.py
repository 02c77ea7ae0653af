"""What stands under a text or table: its dashes and abbreviations in words, those that occur and no others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# Metrics whose meanings go together: ``AP50, AP75: at an IoU of 0.5, 0.75``.
_METRICS: Final[tuple[tuple[str, Mapping[str, str]], ...]] = (
    ("COCO's average precision, in percent", {"AP": ""}),
    ("at an IoU of", {"AP50": "0.5", "AP75": "0.75"}),
    ("of objects that are", {"APS": "small", "APM": "medium", "APL": "large"}),
)
_WORDS: Final = {
    "n": "number of seeds",
    "sd": "standard deviation between seeds",
    "p": "how likely chance alone gives such a difference",
    "ETA": "time until it is done, by its own pace so far",
    "lr": "learning rate",
    "s/iteration": "seconds per iteration",
}
_CELL: Final = re.compile(r"(?m)(?:^|\s)-(?:\s\s|$)")  # neither the minus in ``B - A`` nor a bullet


def legend(text: str, own: Mapping[str, str] | None = None) -> str:
    """``AP50, AP75: at an IoU of 0.5, 0.75; n: number of seeds; -: not measured.`` Empty where nothing needs a word.

    own: what words and signs mean in this text alone, such as "±" and "-", which differ between commands; "" for a word
    that the text explains itself.
    """
    meanings = _WORDS | dict(own or {})
    found = [f"{word}: {meaning}" for word, meaning in meanings.items() if meaning and _occurs(word, text)]
    parts = [*_metrics(text, meanings), *found]
    return f"{'; '.join(parts)}." if parts else ""


def _metrics(text: str, own: Mapping[str, str]) -> list[str]:
    parts = []
    for what, group in _METRICS:
        if named := [name for name in group if name not in own and _occurs(name, text)]:
            parts.append(f"{', '.join(named)}: {f'{what} '}{', '.join(group[name] for name in named)}".rstrip())
    return parts


def _occurs(word: str, text: str) -> bool:
    if word == "-":
        return _CELL.search(text) is not None
    if not word[0].isalnum():
        return re.search(rf"(?m)(?:^|\s){re.escape(word)}", text) is not None
    return re.search(rf"(?<![\w/.'-]){re.escape(word)}(?![\w/'-]|\.\w)", text) is not None
