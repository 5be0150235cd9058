"""Pieces of a page: every value is escaped here, once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any


def number(value: float, digits: int = 3) -> str:
    """A number as a person writes it; ``not known`` for NaN."""
    if math.isnan(value):
        return "not known"
    if value == 0:
        return "0"
    size = abs(value)
    if 1e-3 <= size < 1e5:
        text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(size)))}f}"
        return text.replace("-", "\N{MINUS SIGN}")
    return f"{value:.{digits}g}".replace("-", "\N{MINUS SIGN}")


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    if math.isnan(value):
        return "not known"
    if value == 0:
        return "0 s"
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if abs(value) * factor >= 1 or unit == "µs":
            return f"{number(value * factor)} {unit}"
    return "0 s"


def tile(label: str, value: str, more: str = "", tone: str = "") -> str:
    """One headline number."""
    below = f'<div class="more">{escape(more)}</div>' if more else ""
    return (
        f'<div class="tile"><div class="label">{escape(label)}</div>'
        f'<div class="value {tone}">{escape(value)}</div>{below}</div>'
    )


def tiles(items: Sequence[str]) -> str:
    """A row of them; '' for none."""
    return f'<div class="tiles">{"".join(items)}</div>' if items else ""


def pill(text: str, tone: str = "") -> str:
    """A short mark."""
    return f'<span class="pill {tone}">{escape(text)}</span>'


def table(heads: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> str:
    """A table; ``heads`` are (text, class), cells are HTML already."""
    top = "".join(f'<th class="{c}" scope="col">{escape(h)}</th>' for h, c in heads)
    body = "".join(
        "<tr>" + "".join(f'<td class="{c}">{cell}</td>' for cell, (_, c) in zip(row, heads, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def pairs(items: Mapping[str, str]) -> str:
    """A list of names and values; values are HTML already."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{v}</dd>" for k, v in items.items()) + "</dl>"


def figure(svg: str, title: str, caption: str) -> str:
    """A plot in a card; '' for no plot."""
    if not svg:
        return ""
    svg = svg.replace("<svg ", f'<svg aria-label="{escape(title)}" ', 1)
    head = f"<h3>{escape(title)}</h3><figcaption>{escape(caption)}</figcaption>"
    return f'<figure class="card">{head}<div class="scroll">{svg}</div></figure>'


def comparison(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of a side-by-side evaluation; a bar under each number of a column that is all numbers."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {
        c: max((abs(float(row[c])) for row in rows if c in row and math.isfinite(row[c])), default=0.0)
        for c in columns
        if all(_is_number(row[c]) for row in rows if c in row)
    }
    heads = [(c, "num" if c in numeric else "") for c in columns]
    return table(heads, [[_cell(row.get(c), numeric.get(c)) for c in columns] for row in rows])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any, largest: float | None) -> str:
    if value is None:
        return ""
    if largest is None:
        return escape(("yes" if value else "no") if isinstance(value, bool) else str(value))
    share = 100 * abs(value) / largest if largest and math.isfinite(value) else 0
    return f'{number(float(value))}<span class="bar" style="width:{share:.0f}%"></span>'
