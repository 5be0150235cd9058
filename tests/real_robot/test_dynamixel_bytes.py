"""The fake Dynamixel bus, byte by byte: the e-manual's own examples, dynamixel-sdk, and what a motor refuses."""

import os
import select
import time

import numpy as np
import pytest
from dynamixel_sdk import COMM_SUCCESS, GroupSyncRead, GroupSyncWrite, Protocol2PacketHandler
from toy_robot import until

from palmar.real_robot.drivers.dynamixel import Port
from palmar.real_robot.fakes.dynamixel import COUNT, DynamixelBus
from palmar.real_robot.fakes.dynamixel_packets import Framer, crc16, fast_status, packet
from palmar.real_robot.fakes.plant import ServoPlant


def h(text):
    return bytes.fromhex(text.replace(" ", ""))


# docs/en/dxl/protocol2: request, and the answers of the motors that it names
READ = h("FF FF FD 00 01 07 00 02 84 00 04 00 1D 15"), h("FF FF FD 00 01 08 00 55 00 A6 00 00 00 8C C0")
WRITE = h("FF FF FD 00 01 09 00 03 74 00 00 02 00 00 CA 89"), h("FF FF FD 00 01 04 00 55 00 A1 0C")
REBOOT = h("FF FF FD 00 01 03 00 08 2F 4E"), h("FF FF FD 00 01 04 00 55 00 A1 0C")
SYNC_READ = (
    h("FF FF FD 00 FE 09 00 82 84 00 04 00 01 02 CE FA"),
    h("FF FF FD 00 01 08 00 55 00 A6 00 00 00 8C C0") + h("FF FF FD 00 02 08 00 55 00 1F 08 00 00 BA BE"),
)
FAST = (
    h("FF FF FD 00 FE 0A 00 8A 84 00 04 00 03 07 04 20 F2"),
    h("FF FF FD 00 FE 19 00 55 00 03 A6 00 00 00 84 08") + h("00 07 1F 08 00 00 16 CA") + h("00 04 FF 03 00 00 D1 9E"),
)
SYNC_WRITE = h("FF FF FD 00 FE 11 00 83 74 00 04 00 01 96 00 00 00 02 AA 00 00 00 82 87")
PING_1030 = h("FF FF FD 00 01 07 00 55 00 06 04 26 65 5D")


class Raw:
    """Bytes to and from the bus, without any library."""

    def __init__(self, bus):
        self.fd = os.open(bus.port, os.O_RDWR | os.O_NOCTTY)
        Port(bus.port, bus._baud, timeout=0.1).closePort()  # sets the baud rate

    def ask(self, request, *, size, patience=1.0):
        os.write(self.fd, request)
        answer, end = b"", time.monotonic() + patience
        while len(answer) < size and time.monotonic() < end:
            if select.select([self.fd], [], [], 0.01)[0]:
                answer += os.read(self.fd, 4096)
        return answer


@pytest.fixture
def bus():
    counts = np.array([166, 2079, 166, 1023, 2079])
    still = ServoPlant(counts * COUNT, stiffness=0.0, damping=0.0, friction=3.0)
    with DynamixelBus(still, ids=[1, 2, 3, 4, 7], offset=0.0) as made:
        for motor in made.motors.values():
            motor.put(9, 0)
        yield made


@pytest.fixture
def raw(bus):
    made = Raw(bus)
    yield made
    os.close(made.fd)


@pytest.fixture
def sdk(bus):
    port = Port(bus.port, 4_000_000, timeout=0.3)
    yield Protocol2PacketHandler(), port
    port.closePort()


def test_checksums_and_packets_are_the_manuals():
    for whole in (*READ, *WRITE, *REBOOT, SYNC_READ[0], FAST[0], SYNC_WRITE, PING_1030):
        assert crc16(whole[:-2]) == int.from_bytes(whole[-2:], "little")
    assert packet(1, 0x55, b"\x00\x06\x04\x26") == PING_1030
    assert fast_status([(3, 0, h("A6000000")), (7, 0, h("1F080000")), (4, 0, h("FF030000"))], 3) == FAST[1]


@pytest.mark.parametrize(("request_", "answer"), [READ, WRITE, REBOOT, SYNC_READ, FAST])
def test_the_manuals_examples_get_the_manuals_answers(raw, request_, answer):
    assert raw.ask(request_, size=len(answer)) == answer


def test_a_sync_write_is_obeyed_and_not_answered(bus, raw):
    assert raw.ask(SYNC_WRITE, size=1, patience=0.1) == b""
    assert (bus.motors[1].get(116), bus.motors[2].get(116)) == (150, 170)


def test_a_packet_in_pieces_and_noise_before_it_is_understood(raw):
    os.write(raw.fd, h("00 FF FF 12 FF FF FD 00 01"))
    time.sleep(0.02)
    assert raw.ask(READ[0], size=15) == READ[1]  # the torn packet is given up when the next header comes


def test_the_framer_survives_any_bytes():
    rng, framer, found = np.random.default_rng(0), Framer(), []
    for _ in range(300):
        noise = rng.integers(0, 256, rng.integers(0, 40), dtype=np.uint8).tobytes()
        found += framer.feed(noise + READ[0])
    assert sum(p.intact and p.instruction == 2 for p in found) > 280


def test_header_bytes_in_data_are_stuffed_both_ways(bus, sdk):
    handler, port = sdk
    value = -131_073  # FF FF FD FF
    assert handler.write4ByteTxRx(port, 1, 116, value & 0xFFFFFFFF) == (COMM_SUCCESS, 0)
    assert bus.motors[1].get(116) == value
    assert handler.read4ByteTxRx(port, 1, 116) == (value & 0xFFFFFFFF, COMM_SUCCESS, 0)
    assert len(packet(1, 0x55, b"\x00\xff\xff\xfd\xff")) == 16


def test_the_sdks_own_groups_work(bus, sdk):
    handler, port = sdk
    writer = GroupSyncWrite(port, handler, 116, 4)
    for ident in (1, 2, 7):
        assert writer.addParam(ident, (1000 + ident).to_bytes(4, "little"))
    assert writer.txPacket() == COMM_SUCCESS
    for fast in (False, True):
        reader = GroupSyncRead(port, handler, 116, 4)
        for ident in (7, 1, 2):
            assert reader.addParam(ident)
        assert (reader.fastSyncRead() if fast else reader.txRxPacket()) == COMM_SUCCESS
        assert [reader.getData(i, 116, 4) for i in (1, 2, 7)] == [1001, 1002, 1007]
    found, result = handler.broadcastPing(port)
    assert result == COMM_SUCCESS and found == {i: [1240, 52] for i in (1, 2, 3, 4, 7)}
    assert handler.ping(port, 3) == (1240, COMM_SUCCESS, 0)


def torque_on(bus):
    bus.motors[1].put(64, 1)


@pytest.mark.parametrize(
    ("address", "value", "size", "before", "error"),
    [
        (132, 5, 4, None, 7),  # read only
        (500, 5, 1, None, 7),  # not defined
        (11, 5, 1, torque_on, 7),  # permanent settings while torque is on
        (11, 99, 1, None, 4),  # out of range
        (116, 1_048_576, 4, None, 4),
        (102, 2353, 2, None, 4),
        (116, 5, 2, None, 5),  # half a register
        (116, 5, 4, None, 0),
        (11, 5, 1, None, 0),
    ],
)
def test_what_a_motor_refuses_has_the_manuals_error_number(bus, sdk, address, value, size, before, error):
    handler, port = sdk
    if before:
        before(bus)
    ram = bytes(bus.motors[1].ram)
    assert handler.writeTxRx(port, 1, address, size, list(value.to_bytes(size, "little"))) == (COMM_SUCCESS, error)
    changed = bytes(bus.motors[1].ram)[:120] != ram[:120]
    assert changed == (error == 0)


def test_a_damaged_request_and_an_unknown_one_have_their_error_numbers(raw):
    damaged = WRITE[0][:-3] + b"\x01" + WRITE[0][-2:]
    assert raw.ask(damaged, size=11)[8] == 3
    assert raw.ask(packet(1, 0x77, b""), size=11)[8] == 2
    assert raw.ask(packet(1, 0x02, h("47 00 01 00")), size=11)[8] == 7  # register 71 does not exist


def test_a_hardware_error_takes_the_torque_and_raises_the_alert_bit_until_a_reboot(bus, sdk):
    handler, port = sdk
    handler.write1ByteTxRx(port, 2, 64, 1)
    bus.raise_fault("overload", 2)
    assert handler.read1ByteTxRx(port, 2, 70) == (0b100000, COMM_SUCCESS, 0x80)
    assert handler.read1ByteTxRx(port, 2, 64)[0] == 0
    handler.write1ByteTxRx(port, 2, 64, 1)
    assert not bus.motors[2].on
    assert handler.reboot(port, 2)[0] == COMM_SUCCESS
    time.sleep(0.4)
    assert handler.read1ByteTxRx(port, 2, 70) == (0, COMM_SUCCESS, 0)
    handler.write1ByteTxRx(port, 2, 64, 1)
    assert bus.motors[2].on


def test_an_error_that_is_not_in_shutdown_leaves_the_torque_on(bus):
    bus.motors[1].put(64, 1)
    bus.raise_fault("motor_encoder", 1)
    assert bus.motors[1].on and bus.motors[1].alert == 0x80


def test_the_bus_watchdog_stops_the_motor_and_locks_its_goals(bus, sdk):
    handler, port = sdk
    handler.write1ByteTxRx(port, 1, 98, 5)
    time.sleep(0.2)
    assert bus.motors[1].ram[98] == 5  # torque is off: it does not watch
    handler.write1ByteTxRx(port, 1, 64, 1)
    handler.write4ByteTxRx(port, 1, 116, 900)
    for _ in range(10):  # any instruction for it will do
        handler.read1ByteTxRx(port, 1, 64)
        time.sleep(0.02)
    assert bus.motors[1].ram[98] == 5
    time.sleep(0.25)
    assert handler.read1ByteTxRx(port, 1, 98)[0] == 255
    assert bus.motors[1].on and bus.motors[1].get(116) < 880

    def stands_at_its_goal():
        here = handler.read4ByteTxRx(port, 1, 132)[0]  # which makes it look
        return abs(bus.motors[1].get(116) - here) < 20

    until(stands_at_its_goal, timeout=20.0, what="rest at the goal")
    assert handler.write4ByteTxRx(port, 1, 116, 900)[1] == 4
    assert handler.write2ByteTxRx(port, 1, 102, 90)[1] == 4
    assert handler.write1ByteTxRx(port, 1, 98, 0)[1] == 0
    assert handler.write4ByteTxRx(port, 1, 116, 900)[1] == 0


def test_motors_do_not_hear_another_baud_rate(bus):
    port = Port(bus.port, 57_600, timeout=0.05)
    assert Protocol2PacketHandler().ping(port, 1)[1] != COMM_SUCCESS
    port.closePort()
    assert bus.instructions == 0


def test_a_fast_sync_read_breaks_off_at_a_motor_that_is_silent(bus, raw):
    bus.silence(7)
    assert raw.ask(FAST[0], size=len(FAST[1]), patience=0.2) == FAST[1][:16]
    bus.silence(3)
    assert raw.ask(FAST[0], size=1, patience=0.1) == b""


def test_answers_take_their_time_on_the_wire_and_the_return_delay(bus, sdk):
    handler, port = sdk
    bus.motors[1].put(9, 250)
    begin = time.monotonic()
    for _ in range(20):
        assert handler.read4ByteTxRx(port, 1, 132)[1] == COMM_SUCCESS
    assert time.monotonic() - begin >= 20 * 500e-6
