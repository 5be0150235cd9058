"""The operator's end against a real control process: looks, stops, resets, the lease, the terminal and the page."""

import json
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import toy_robot as toy
from control_rig import Rig

from palmar.cli import monitor
from palmar.cli.main import main
from palmar.cli.monitor_page import Page
from palmar.real_robot import operator as op
from palmar.real_robot import shared
from palmar.safety.types import State


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    with ExitStack() as stack:
        yield Rig(tmp_path_factory.mktemp("rig"), stack)


@pytest.fixture
def operator(rig):
    with op.Operator(rig.map.path) as operator:
        ready(operator)
        yield operator


def ready(operator):
    """Out of whatever an earlier test left, into HOLD or RUN."""
    operator.ask("release")

    def up():
        try:
            return operator.look().state in ("hold", "run") or operator.ask("reset").alive
        except op.OperatorError:
            return False

    toy.until(up, 10.0, "reset")


def test_a_look_says_what_the_control_process_says(rig, operator):
    rig.run_until_moving(toy.HOME + 0.1)
    now = operator.look()
    assert now.alive and now.state == "run" and now.chunks > 0 and now.chunk_age < 0.3 and now.driver_errors == 0
    assert set(now.margins) == {"joint_position"} and now.worst["joint_position"] <= now.margins["joint_position"]
    told = str(monitor.lines(now))
    assert str(now.chunks) in told and "periods missed" in told


@pytest.mark.parametrize("what", ["stop", "estop"])
def test_a_stop_stops_and_only_a_reset_lets_it_move_again(rig, operator, what):
    rig.run_until_moving(toy.HOME)
    assert operator.ask(what).state in ("stop", "latched")
    toy.until(lambda: rig.filter_state()[0] is State.LATCHED, 2.0, "latched")
    assert operator.look().reason == f"operator_{what}"
    rig.keep_running(0.2, toy.HOME)
    assert rig.filter_state()[0] is State.LATCHED
    if what == "estop":
        with pytest.raises(op.OperatorError, match="reset had no effect"):
            operator.ask("reset")
        operator.ask("release")
        assert rig.filter_state()[0] is State.LATCHED
    ready(operator)
    rig.run_until_moving(toy.HOME)


def test_the_bridge_and_the_operator_count_by_themselves(rig, operator):
    """A stop of the bridge's is not undone, or done again, by what the operator's block says."""
    rig.run_until_moving(toy.HOME)
    rig.ask(stop=int(rig.blocks["request"].record["stop"]) + 1)
    toy.until(lambda: rig.filter_state() == (State.LATCHED, "operator_stop"), 2.0, "latched")
    operator.ask("reset")
    rig.run_until_moving(toy.HOME)


def test_one_operator_at_a_time_and_any_number_of_watchers(rig, operator):
    with pytest.raises(op.OperatorError, match="another operator"):
        op.Operator(rig.map.path)
    with op.Operator(rig.map.path, ask=False) as watcher:
        assert watcher.look().alive
        with pytest.raises(op.OperatorError, match="only watches"):
            watcher.ask("stop")


def test_the_lease_is_free_after_the_operator_left(rig):
    for _ in range(2):
        with op.Operator(rig.map.path) as operator:
            assert operator.look().ticks > 0


def test_what_is_not_there_is_refused(rig, tmp_path, operator):
    with pytest.raises(op.OperatorError, match=r"accepted \['estop', 'stop', 'release', 'reset'\]"):
        operator.ask("halt")
    with pytest.raises(shared.SharedMemoryError, match="cannot open"):
        op.Operator(tmp_path / "nothing", ask=False)
    with pytest.raises(op.OperatorError, match="no control process runs"):
        op.the_one(op.running(tmp_path))
    with pytest.raises(op.OperatorError, match="2 control processes run"):
        op.the_one([tmp_path / "a", tmp_path / "b"])


def test_a_dead_control_process_is_not_listed_and_never_looks_alive(rig):
    record = np.zeros(1, rig.blocks["state"].dtype)[0]
    now = op.status(record, rig.map.description.constraints, 5.0)
    assert now.silent == 5.0 and not now.alive
    assert "nobody controls" in str(monitor.page(now).renderables[0])


def test_the_command_line_stops_and_prints(rig, capsys):
    rig.run_until_moving(toy.HOME)
    memory = ["--memory", str(rig.map.path)]
    assert main(["monitor", *memory, "--do", "stop", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] in ("stop", "latched")
    assert main(["monitor", *memory, "--watch", "--do", "stop"]) == 2
    toy.until(lambda: rig.filter_state()[0] is State.LATCHED, 2.0, "latched")
    assert main(["monitor", *memory, "--do", "reset"]) == 0
    assert "joint position" in capsys.readouterr().out


@contextmanager
def served(operator, **kwargs):
    with Page(operator, 0, **kwargs) as page:
        thread = threading.Thread(target=page.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield page
        finally:
            page.shutdown()
            thread.join()


def fetch(page, path, data=None, **headers):
    request = urllib.request.Request(page.address[:-1] + path, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_page_shows_the_state_and_stops_the_robot(rig, operator):
    rig.run_until_moving(toy.HOME)
    with served(operator, ask=True) as page:
        status, text = fetch(page, "/")
        assert status == 200 and page.secret in text and "not safety-rated" in text
        assert json.loads(fetch(page, "/state")[1])["margins"].keys() == {"joint_position"}
        stop = json.dumps({"do": "stop"}).encode()
        status, told = fetch(page, "/do", stop, **{"X-Palmar": page.secret})
        assert status == 200 and json.loads(told)["state"] in ("stop", "latched")
    toy.until(lambda: rig.filter_state()[0] is State.LATCHED, 2.0, "latched")


def test_nobody_else_may_ask_the_page(rig, operator):
    rig.run_until_moving(toy.HOME)
    stop = json.dumps({"do": "stop"}).encode()
    with served(operator, ask=True) as page:
        assert page.server_address[0] == "127.0.0.1"
        assert fetch(page, "/do", stop)[0] == 403
        assert fetch(page, "/do", stop, **{"X-Palmar": page.secret, "Host": "evil.example"})[0] == 403
        assert fetch(page, "/do", b"{", **{"X-Palmar": page.secret})[0] == 409
        assert fetch(page, "/etc/passwd")[0] == 404
    with served(operator, ask=False) as page:
        assert page.secret not in fetch(page, "/")[1]
        assert fetch(page, "/do", stop, **{"X-Palmar": page.secret})[0] == 403
    rig.run_until_moving(toy.HOME)
