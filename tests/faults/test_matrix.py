"""The matrix is whole: every row has the cases it should have, and at least two of each run always."""

import re
from collections import Counter

import test_configurations
import test_damaged_files
import test_in_process
import test_malicious_files
import test_processes
import test_recorders
from matrix import ROWS

MODULES = (
    test_in_process, test_recorders, test_damaged_files, test_malicious_files, test_configurations, test_processes,
)  # fmt: skip


def parameters():
    for module in MODULES:
        for name in dir(module):
            for mark in getattr(getattr(module, name), "pytestmark", []):
                if mark.name == "parametrize":
                    yield from mark.args[1]


def test_all_757_named_cases_are_there_once():
    ids = [p.id for p in parameters()]
    assert len(set(ids)) == len(ids) == sum(ROWS.values()) == 757
    assert dict(Counter(int(re.match(r"row(\d\d)-", i)[1]) for i in ids)) == ROWS


def test_at_least_two_cases_of_each_row_run_always():
    smoke = Counter(int(p.id[3:5]) for p in parameters() if not any(m.name == "fault" for m in p.marks))
    assert set(smoke) == set(ROWS) and min(smoke.values()) >= 2 and 60 <= sum(smoke.values()) <= 90
