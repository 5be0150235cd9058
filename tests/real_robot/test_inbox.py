"""What the control process takes from shared memory, block by block, without any process."""

import numpy as np
import pytest

from palmar.real_robot.inbox import Inbox
from palmar.real_robot.layout import OPERATOR, control_layout
from palmar.real_robot.shared import Block, Description


def made(dtype):
    return Block(memoryview(bytearray(Block.HEAD + dtype.itemsize)), dtype)


@pytest.fixture
def blocks():
    description = Description(kind="control", robot="", joints=("a",), objects=("red", "blue"))
    return {name: made(dtype) for name, dtype in control_layout(description).blocks.items()}


def test_a_block_is_new_once_per_write_and_not_while_it_is_written(blocks):
    inbox, block = Inbox(blocks), blocks["policy"]
    assert inbox.new("policy") is None
    block.record["pid"] = 7
    block.write()
    assert int(inbox.new("policy")["pid"]) == 7 and inbox.new("policy") is None
    block.write()
    block._seq[0] += np.uint64(1)  # its writer is in the middle of it
    assert inbox.new("policy") is None
    block.write()
    block._data[0] ^= 1  # torn for good
    assert inbox.new("policy") is None
    block.write()
    assert inbox.new("policy") is not None


def test_what_is_asked_for_is_counted_per_block_and_the_most_urgent_comes_first(blocks):
    inbox, record = Inbox(blocks), blocks["request"].record
    for name in OPERATOR:
        record[name] = 3
    assert inbox.asked("request", record) == list(OPERATOR) and inbox.asked("request", record) == []
    record["reset"] = 4
    assert inbox.asked("request", record) == ["reset"] and inbox.asked("operator", record) == list(OPERATOR)


def test_people_come_with_their_time_of_receipt_and_an_empty_message_means_nobody(blocks):
    inbox, block = Inbox(blocks), blocks["people"]
    assert inbox.people() is None
    r = block.record
    r["count"], r["received"] = 1, 12.5
    r["ends"][0], r["radius"][0], r["velocity"][0] = [[1, 0, 0], [1, 0, 2]], 0.3, [0.1, 0, 0]
    block.write()
    p = inbox.people()
    assert p.received == 12.5 and p.ends.shape == (1, 2, 3) and p.radius.tolist() == [0.3]
    assert inbox.people() is p
    r["count"], r["received"] = 0, 13.0
    block.write()
    assert inbox.people().received == 13.0 and len(inbox.people().radius) == 0


def test_tracked_objects_come_once_each_was_seen(blocks):
    inbox, block = Inbox(blocks, blocks["objects"]), blocks["objects"]
    assert inbox.objects() is None
    r = block.record
    r["seq"], r["position"] = [1, 0], [[0.5, 0, 0.03], [np.nan] * 3]
    block.write()
    assert inbox.objects() is None
    r["seq"], r["position"] = [1, 1], [[0.5, 0, 0.03], [0.6, 0, 0.03]]
    block.write()
    position, quaternion = inbox.objects()
    assert position.tolist() == [[0.5, 0, 0.03], [0.6, 0, 0.03]] and quaternion.shape == (2, 4)
    assert inbox.objects()[0] is position  # nothing new is not read again
    assert Inbox(blocks).objects() is None  # a robot without objects
