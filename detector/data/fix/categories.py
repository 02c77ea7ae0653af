"""Categories: ids that are whole numbers, one name for each, the same list in all splits. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detector.data.fix.draft import Choices, Draft, Row
from detector.data.fix.values import whole


def mend_categories(drafts: Sequence[Draft], choices: Choices) -> None:
    """Make the categories of all splits one list; annotations of others are dropped."""
    numbers = _numbers(drafts)
    for draft in drafts:
        for row in draft.categories:
            row["id"] = numbers[_key(row.get("id"))] if _key(row.get("id")) is not None else None
        draft.categories = _once(draft)
    maps = _agreed(drafts, choices)
    for draft, mapped in zip(drafts, maps, strict=True):
        kept = []
        for row in draft.annotations:
            found = numbers.get(_key(row.get("category_id")))
            if found is None or found not in mapped:
                what = f"{draft.of(row)}, category {row.get('category_id')!r}"
                draft.done.add("annotations of unknown categories (dropped)", what)
            else:
                kept.append({**row, "category_id": mapped[found]})
        draft.annotations = kept


def _key(value: Any) -> int | str | None:
    """What a category id is compared by: its number, else its text."""
    found = whole(value)
    return found if found is not None else value if isinstance(value, str) and value else None


def _numbers(drafts: Sequence[Draft]) -> dict[int | str | None, int]:
    """A whole number for each category id of all splits; text gets the next that are free."""
    keys = [_key(row.get("id")) for draft in drafts for row in draft.categories]
    numbers: dict[int | str | None, int] = {key: key for key in keys if isinstance(key, int)}
    free = max([0, *numbers.values()]) + 1
    for draft in drafts:
        for row in draft.categories:
            key = _key(row.get("id"))
            if isinstance(key, str) and key not in numbers:
                numbers[key], free = free, free + 1
                draft.done.add("category ids that were text (numbers now)", f"{key!r}: {numbers[key]}")
            elif isinstance(key, int) and type(row.get("id")) is not int:
                draft.done.add("category ids that were written as text or fractions", draft.of(row, "category"))
    return numbers


def _once(draft: Draft) -> list[Row]:
    """Each category once: without those that have no id or name, and without repetitions."""
    found: dict[int, Row] = {}
    for row in draft.categories:
        name = row.get("name")
        if isinstance(name, int | float) and not isinstance(name, bool):
            name = row["name"] = str(name)
            draft.done.add("category names that were numbers (text now)", draft.of(row, "category"))
        if row["id"] is None or not isinstance(name, str):
            draft.done.add("categories without an id or a name (dropped)", f"{row.get('name')!r} of {draft.split}")
        elif row["id"] not in found:
            found[row["id"]] = row
        elif found[row["id"]]["name"] == name:
            draft.done.add("categories that were listed twice", draft.of(row, "category"))
        else:
            names = f"{found[row['id']]['name']!r} and {name!r}"
            draft.unclear.add("category ids with two names", f"{draft.of(row, 'category')} is {names}")
    return list(found.values())


def _agreed(drafts: Sequence[Draft], choices: Choices) -> list[dict[int, int]]:
    """For each split, the common list's id of each of its own; sets the common list in every split."""
    common: dict[int, Row] = {}
    contradicting = False
    for draft in drafts:
        for row in draft.categories:
            known = common.setdefault(row["id"], row)
            if known["name"] != row["name"]:
                contradicting = True
                if choices.categories is None:
                    what = f"{row['id']} is {known['name']!r} elsewhere and {row['name']!r} in {draft.split}"
                    draft.unclear.add(
                        "category ids whose names differ between splits (say --categories names|ids)", what
                    )
    if contradicting and choices.categories == "names":
        return _by_name(drafts)
    for draft in drafts:
        absent = [key for key in common if key not in {row["id"] for row in draft.categories}]
        for key in absent:
            draft.done.add("categories that a split did not list (added)", f"{common[key]['name']!r} to {draft.split}")
        if contradicting and choices.categories == "ids":
            draft.done.add("splits whose categories were taken by their ids", draft.split)
        draft.categories = [dict(common[key]) for key in sorted(common)]
    return [{key: key for key in common} for _ in drafts]


def _by_name(drafts: Sequence[Draft]) -> list[dict[int, int]]:
    """As ``_agreed``, where a category is known by its name: the first split's ids stay, others get the next."""
    common: dict[str, Row] = {}
    used: set[int] = set()
    for draft in drafts:
        for row in draft.categories:
            if row["name"] not in common:
                key = row["id"] if row["id"] not in used else max(used) + 1
                used.add(key)
                common[row["name"]] = {**row, "id": key}
    maps = []
    for draft in drafts:
        mapped = {row["id"]: common[row["name"]]["id"] for row in draft.categories}
        if any(key != value for key, value in mapped.items()):
            draft.done.add("splits whose categories were taken by their names", draft.split)
        maps.append(mapped)
        draft.categories = [dict(row) for row in sorted(common.values(), key=lambda row: int(row["id"]))]
    return maps
