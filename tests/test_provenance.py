"""Which filter a result belongs to: what is said about it changes nothing, what it computes does."""

import pytest

from palmar.benchmarks.provenance import code, meaning

SOURCE = """
'''A module.'''
LIMIT = 1.0
'''[m]'''
def margin(x):
    '''Distance.'''
    return LIMIT - x  # below
"""


def test_words_and_layout_are_not_in_the_meaning():
    assert code(SOURCE) == code("LIMIT = 1.0\n\n\ndef margin(x): return (LIMIT - x)")


@pytest.mark.parametrize(("old", "new"), [("1.0", "1.1"), ("LIMIT - x", "x - LIMIT"), ("def margin", "def clearance")])
def test_every_number_sign_and_name_is(old, new):
    assert code(SOURCE.replace(old, new)) != code(SOURCE)


def test_it_is_the_same_twice():
    assert meaning() == meaning() and len(meaning()) == 16
