"""Every sentence means one object; what is unknown, ambiguous or too close to call is refused."""

import numpy as np
import pytest

from palmar.safety.types import ConfigError, PalmarError
from palmar.sim import words
from palmar.sim.forms import FAMILIES, SPLITS
from palmar.sim.words import Described, UnknownInstruction, ground, sentences, tell

SCENE = (
    Described("red", "box", False, (0.50, 0.10)),
    Described("red", "box", True, (0.50, -0.10)),
    Described("green", "cylinder", False, (0.55, 0.00)),
    Described("blue", "box", False, (0.40, 0.00)),
    Described("pink", "polytope", True, (0.60, 0.15)),
)


@pytest.mark.parametrize(
    ("said", "index"),
    [
        ("lift the small red box", 0), ("Pick up the large red box!", 1), ("raise the green can", 2),
        ("please lift the blue box", 3), ("the gem", 4), ("grab the big pink thing", 4), ("lift the big carton", 1),
        ("lift the box nearest to the gem", 0), ("lift the red box left of the cylinder", 0),
        ("grab the box on the right side of the can", 1), ("lift the thing farthest from the pink one", 1),
        ("lift the red thing that is closest to the gem", 0), ("lift the crystal", 4),
    ],
)  # fmt: skip
def test_words_mean_an_object(said, index):
    assert ground(said, SCENE) == index


@pytest.mark.parametrize(
    ("said", "because"),
    [
        ("lift the mauve box", "mauve"), ("lift the red teapot", "teapot"), ("lift the box", "fits"), ("", "known"),
        ("lift", "known"), ("lift the red green thing", "fits nothing"), ("lift the small gem", "fits nothing"),
        ("lift the box left of the box", "fits"), ("lift the box left of the teapot", "teapot"),
        ("lift the box right of the box left of the gem", "more than one relation"),
        ("lift the thing left of the gem", "fits nothing"), ("lift the box nearest to the box", "fits"),
        ("lift the red box nearest to the can", "fits"), ("lift the purple thing", "fits nothing"),
        ("lift the thing nearest to", "known"), ("lift the red box; drop it", "drop"),
    ],
)  # fmt: skip
def test_unknown_and_ambiguous_words_are_refused_with_what_there_is(said, because):
    with pytest.raises(UnknownInstruction, match=because) as refused:
        ground(said, SCENE)
    assert isinstance(refused.value, PalmarError)
    assert "red" in str(refused.value) or "left of" in str(refused.value)


def test_relations_that_noise_could_turn_are_too_close_to_call():
    near = [Described("red", "box", False, (0.5, y)) for y in (0.02, -0.1)] + [
        Described("blue", "box", False, (0.5, 0))
    ]
    with pytest.raises(UnknownInstruction, match="too close to call"):
        ground("lift the red box left of the blue box", near)
    clear = [Described("red", "box", False, (0.5, y)) for y in (0.05, -0.1)] + near[2:]
    assert ground("lift the red box left of the blue box", clear) == 0


def scenes(split, n, seed=0):
    """Random scenes of distinct objects."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        seen = {}
        while len(seen) < rng.integers(3, 7):
            key = str(rng.choice(list(words.COLOURS[split]))), str(rng.choice(FAMILIES)), bool(rng.integers(2))
            x, y = rng.uniform(-0.2, 0.2, 2)
            seen[key] = Described(*key, (0.5 + float(x), float(y)))
        yield list(seen.values())


@pytest.mark.parametrize("split", SPLITS)
def test_what_is_told_is_what_is_understood(split):
    for k, seen in enumerate(scenes(split, 10)):
        for named in range(len(seen)):
            for choice in range(k, k + 4):
                assert ground(tell(seen, named, split, choice), seen) == named


@pytest.mark.parametrize("split", SPLITS)
def test_all_four_kinds_of_words_are_spoken(split):
    said = " ".join(tell(s, 0, split, choice) for s in scenes(split, 20) for choice in range(16))
    for table in (words.COLOURS, words.SHAPES, words.SIZES, words.RELATIONS, words.VERBS):
        assert all(w in said for w in table[split]), table[split]


def test_splits_share_no_colour_and_no_word():
    for table in (words.COLOURS, words.SHAPES, words.SIZES, words.RELATIONS, words.VERBS):
        assert not set(table["train"]) & set(table["test"])
    rgb = {s: np.array(list(words.COLOURS[s].values())) for s in SPLITS}
    assert np.linalg.norm(rgb["train"][:, None] - rgb["test"][None], axis=-1).min() > 0.1
    spoken = {s: {tell(x, 0, s, c) for x in scenes(s, 10) for c in range(8)} for s in SPLITS}
    assert not spoken["train"] & spoken["test"]


def test_two_equal_objects_cannot_be_told_apart_and_foreign_ones_not_named():
    twin = [Described("red", "box", False, (0.5, 0.0))] * 2
    assert sentences(twin, 0, "train") == ()
    with pytest.raises(ConfigError, match="tell object 0"):
        tell(twin, 0, "train", 0)
    with pytest.raises(ConfigError, match="no words"):
        tell(twin[:1], 0, "test", 0)
    with pytest.raises(ConfigError, match="exam"):
        tell(twin[:1], 0, "exam", 0)
