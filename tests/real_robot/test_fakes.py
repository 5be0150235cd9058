"""Fakes in general: found by their driver's name, served from a thread, hurt by lines of JSON."""

import logging
import threading

import pytest

from palmar.real_robot.drivers import find
from palmar.real_robot.fakes.serve import fake_of, hurt
from palmar.real_robot.fakes.served import Served
from palmar.safety.types import ConfigError


class Bell(Served):
    orders = ("ring",)

    def __init__(self):
        self.rung, self.ports, self.up = [], 0, threading.Event()

    def ring(self, times, *, loud=False):
        self.rung.append((times, loud))
        return len(self.rung)

    def _serve(self):
        while self.running:
            self.up.set()
            self.up.wait(0.001)

    def _plug_in(self):
        self.ports += 1

    def _unplug(self):
        self.ports -= 1


def test_a_fake_lives_from_start_to_close_and_can_be_started_again():
    bell = Bell()
    bell.close()
    assert bell.ports == 0
    for _ in range(2):
        with bell:
            assert bell.up.wait(10.0) and bell.ports == 1
        assert bell.ports == 0 and "Bell" not in {t.name for t in threading.enumerate()}


def test_orders_are_obeyed_and_what_is_none_is_refused_with_what_there_is():
    bell = Bell()
    assert bell.order('{"do": "ring", "args": [3], "named": {"loud": true}}') == 1
    assert bell.rung == [(3, True)]
    for line in ('{"do": "close"}', '{"do": "ring"}', '{"do": 4}', '{"args": []}', '["ring"]', "ring"):
        with pytest.raises(ConfigError, match="ring"):
            bell.order(line)
    assert bell.rung == [(3, True)]


def test_a_line_hurts_the_device_it_names_and_no_other(caplog):
    fakes = {"arm": Bell(), "hand": Bell()}
    hurt(fakes, '{"who": "hand", "do": "ring", "args": [1]}', logging.getLogger("test"))
    assert (fakes["arm"].rung, fakes["hand"].rung) == ([], [(1, False)])
    for line in ('{"who": "leg", "do": "ring"}', '{"do": "ring"}', '{"who": ["arm"]}', "[]", "x"):
        caplog.clear()
        hurt(fakes, line, logging.getLogger("test"))
        assert "not done" in caplog.text
    assert (fakes["arm"].rung, fakes["hand"].rung) == ([], [(1, False)])


@pytest.mark.parametrize("driver", ["fr3", "leap", "allegro"])
def test_the_drivers_of_ports_have_fakes(driver):
    assert driver in find.names() and callable(fake_of(driver))


def test_a_driver_of_ones_own_brings_its_fake_and_one_without_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_hand.py").write_text("def open_driver(config, joints): ...\ndef fake(stack, joints, body): ...\n")
    assert callable(fake_of("my_hand"))
    with pytest.raises(ConfigError, match="'toy_driver' has no fake"):
        fake_of("toy_driver")
    with pytest.raises(ConfigError, match="unknown driver 'laep'"):
        fake_of("laep")
