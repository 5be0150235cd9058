"""What is said about objects on a table: colour, shape, size and relation; meaning, and sentences to train and test on.

``ground`` understands every word; ``tell`` speaks only those of one split, so that a split's sentences are new to the
other.  Left and right are the robot's: it looks along x, left is +y.  Small and large are absolute (``sim.objects``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palmar.safety.config import unknown
from palmar.safety.types import ConfigError, PalmarError
from palmar.sim.forms import SPLITS

Array = np.ndarray
Rgba = tuple[float, float, float, float]

COLOURS: dict[str, dict[str, Rgba]] = {
    "train": {
        "red": (0.80, 0.16, 0.14, 1.0), "green": (0.16, 0.60, 0.26, 1.0), "blue": (0.15, 0.35, 0.80, 1.0),
        "yellow": (0.90, 0.80, 0.15, 1.0), "brown": (0.45, 0.28, 0.15, 1.0),
    },
    "test": {
        "orange": (0.95, 0.50, 0.10, 1.0), "purple": (0.50, 0.20, 0.62, 1.0), "cyan": (0.20, 0.75, 0.80, 1.0),
        "pink": (0.95, 0.55, 0.70, 1.0), "white": (0.92, 0.92, 0.90, 1.0),
    },
}  # fmt: skip
SHAPES: dict[str, dict[str, str]] = {
    "train": {
        "box": "box", "cylinder": "cylinder", "capsule": "capsule", "pebble": "superquadric", "crystal": "polytope",
    },
    "test": {"carton": "box", "can": "cylinder", "pill": "capsule", "stone": "superquadric", "gem": "polytope"},
}  # fmt: skip
"""Nouns and the family of ``sim.objects`` they name."""
SIZES = {"train": {"small": False, "large": True}, "test": {"little": False, "big": True}}
"""Adjectives and whether they mean large."""
RELATIONS = {
    "train": {"left of": "left", "right of": "right", "nearest to": "near", "farthest from": "far"},
    "test": {
        "on the left side of": "left", "on the right side of": "right", "closest to": "near",
        "most distant from": "far",
    },
}  # fmt: skip
VERBS = {"train": ("lift", "pick up"), "test": ("raise", "grab")}
ANYTHING = ("thing", "object", "one")
FILLER = ("the", "a", "please", "that", "is", "up")
SIDE, DOUBT = 0.03, 0.01
"""To the side of something is at least the one beyond it; what is within the other of a limit cannot be told [m]."""
_ASIDE = {"left": 1.0, "right": -1.0}

# All splits' words in one table each, made once: sentences are drawn for every episode.
_COLOUR = {w for split in SPLITS for w in COLOURS[split]}
_SHAPE = {w: family for split in SPLITS for w, family in SHAPES[split].items()}
_SIZE = {w: large for split in SPLITS for w, large in SIZES[split].items()}
_RELATION = {phrase: r for split in SPLITS for phrase, r in RELATIONS[split].items()}
_RELATED = re.compile(rf"\b({'|'.join(sorted(_RELATION, key=len, reverse=True))})\b")
_ORDER = re.compile(rf"^(please )?({'|'.join(v for split in SPLITS for v in VERBS[split])})\b")


class UnknownInstruction(PalmarError):
    """Words that name no object, or more than one."""


@dataclass(frozen=True)
class Described:
    """One object as it is seen."""

    colour: str
    shape: str
    """Family, ``sim.objects.FAMILIES``."""
    large: bool
    position: tuple[float, float]
    """On the table [m], world frame."""

    def __str__(self) -> str:
        return f"{'large' if self.large else 'small'} {self.colour} {self.shape}"


def known() -> tuple[str, ...]:
    """Every word and phrase that means something here."""
    tables = (COLOURS, SHAPES, SIZES, RELATIONS, VERBS)
    return tuple(sorted({w for table in tables for split in SPLITS for w in table[split]} | set(ANYTHING)))


def ground(instruction: str, seen: Sequence[Described]) -> int:
    """Index of the object an instruction names.

    Raises:
        UnknownInstruction: If a word is unknown, the words fit no object or more than one, or a relation is too close
            to call.  The message names the words known, or the objects that fit.
    """
    text = " ".join(re.findall(r"[a-z]+", instruction.lower()))
    parts = _RELATED.split(_ORDER.sub("", text))
    if len(parts) > 3:
        raise UnknownInstruction(f"{instruction!r} has more than one relation; known: {list(_RELATION)}")
    fits = _fitting(parts[0], instruction, seen)
    if len(parts) == 3:
        anchor = _only(_fitting(parts[2], instruction, seen), instruction, seen)
        fits = _related(_RELATION[parts[1]], [k for k in fits if k != anchor], anchor, instruction, seen)
    return _only(fits, instruction, seen)


def _fitting(words: str, instruction: str, seen: Sequence[Described]) -> list[int]:
    """Objects that words of colour, shape and size fit."""
    said = [w for w in words.split() if w not in FILLER]
    strange = [w for w in said if w not in _COLOUR and w not in _SHAPE and w not in _SIZE and w not in ANYTHING]
    if strange or not said:
        raise UnknownInstruction(f"unknown words {strange} in {instruction!r}; known: {list(known())}")

    def fit(d: Described) -> bool:
        return all(
            (w == d.colour if w in _COLOUR else _SHAPE[w] == d.shape if w in _SHAPE else _SIZE[w] == d.large)
            for w in said
            if w not in ANYTHING
        )

    return [k for k, d in enumerate(seen) if fit(d)]


def _only(fits: list[int], instruction: str, seen: Sequence[Described]) -> int:
    if len(fits) != 1:
        found = [str(seen[k]) for k in fits] or "nothing"
        raise UnknownInstruction(f"{instruction!r} fits {found}; there are {[str(d) for d in seen]}")
    return fits[0]


def _related(relation: str, fits: list[int], anchor: int, instruction: str, seen: Sequence[Described]) -> list[int]:
    """Those of ``fits`` in a relation to the anchor."""
    apart = np.array([seen[k].position for k in fits]).reshape(-1, 2) - np.array(seen[anchor].position)
    if relation in _ASIDE:
        offset = _ASIDE[relation] * apart[:, 1]
        sure, perhaps = offset >= SIDE, offset >= SIDE - 2 * DOUBT
    else:
        distance = np.linalg.norm(apart, axis=1) * (1.0 if relation == "near" else -1.0)
        sure = perhaps = distance <= distance.min(initial=np.inf) + DOUBT
    if not np.array_equal(sure, perhaps):
        raise UnknownInstruction(f"{instruction!r}: too close to call between {[str(seen[k]) for k in fits]}")
    return [k for k, yes in zip(fits, sure, strict=True) if yes]


def sentences(seen: Sequence[Described], named: int, split: str) -> tuple[tuple[str, ...], ...]:
    """What can be said of an object in a split's words so that only it fits: by shape, colour, size, relation.

    Groups without any sentence are left out; where all are (two equal objects), the answer is empty.

    Raises:
        ConfigError: If the split, or a word for the object in it, is unknown.
    """
    if split not in SPLITS:
        raise ConfigError(unknown("split", split, SPLITS))
    noun, size, colour = _spoken(seen[named], split)
    plain = [[noun], [colour + noun], [size + noun, size + colour + noun]]
    related = []
    for k, d in enumerate(seen):
        if k == named:
            continue
        other = next((p for p in _phrases(d, split) if _means(p, k, seen)), None)
        if other is not None:
            subjects = [p for p in (noun, "thing") if not _means(p, named, seen)]
            related += [f"{s} {phrase} the {other}" for s in subjects for phrase in RELATIONS[split]]
    groups = [[p for p in group if _means(p, named, seen)] for group in (*plain, related)]
    return tuple(tuple(group) for group in groups if group)


def tell(seen: Sequence[Described], named: int, split: str, choice: int) -> str:
    """One sentence for an object; ``choice`` >= 0 picks the verb, the group and the sentence of the group.

    Raises:
        ConfigError: If nothing that can be said fits this object only.
    """
    groups = sentences(seen, named, split)
    if not groups:
        raise ConfigError(f"no words of split {split!r} tell object {named} from {[str(d) for d in seen]}")
    verb, choice = VERBS[split][choice % 2], choice // 2
    group = groups[choice % len(groups)]
    return f"{verb} the {group[choice // len(groups) % len(group)]}"


def _phrases(d: Described, split: str) -> tuple[str, ...]:
    """Noun phrases of an object, shortest first."""
    noun, size, colour = _spoken(d, split)
    return noun, colour + noun, size + noun, size + colour + noun


def _means(phrase: str, named: int, seen: Sequence[Described]) -> bool:
    try:
        return ground(phrase, seen) == named
    except UnknownInstruction:
        return False


def _spoken(d: Described, split: str) -> tuple[str, str, str]:
    """Noun, size and colour of an object in a split's words; the adjectives with a space behind."""
    noun = next((w for w, family in SHAPES[split].items() if family == d.shape), None)
    size = next(w for w, large in SIZES[split].items() if large == d.large)
    if noun is None or d.colour not in COLOURS[split]:
        words = sorted({w for table in (COLOURS, SHAPES, SIZES, RELATIONS, VERBS) for w in table[split]})
        raise ConfigError(f"split {split!r} has no words for a {d}; it has {words}")
    return noun, f"{size} ", f"{d.colour} "
