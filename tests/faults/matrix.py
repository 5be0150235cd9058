"""How many named cases each row of the fault matrix has, and how they become parameters of tests."""

import pytest

ROWS = {
    1: 16, 2: 8, 3: 40, 4: 24, 5: 12, 6: 12, 7: 10, 8: 8, 9: 10, 10: 60, 11: 46, 12: 20, 13: 40, 14: 24,
    15: 30, 16: 12, 17: 16, 18: 20, 19: 25, 20: 12, 21: 20, 22: 8, 23: 30, 24: 12, 25: 18, 26: 16, 27: 8, 28: 200,
}  # fmt: skip


def named(row, cases, smoke=()):
    """Parameters ``row23-name`` of a mapping from names to what they do; all but ``smoke`` are marked ``fault``."""
    assert set(smoke) <= set(cases), set(smoke) - set(cases)
    return [
        pytest.param(case, id=f"row{row:02d}-{name}", marks=() if name in smoke else pytest.mark.fault)
        for name, case in cases.items()
    ]
