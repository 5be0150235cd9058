"""The report is one offline page that shows what the audit found, with or without a GL backend."""

from __future__ import annotations

import base64
import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from palmar.rollouts.audit import audit
from palmar.rollouts.inspect import ViewerMissing, to_rerun
from palmar.rollouts.read import read
from palmar.rollouts.replay import replay_mujoco
from palmar.rollouts.report import plots
from palmar.rollouts.report.page import Summary, write_report
from palmar.rollouts.report.video import VideoConfig, frame_rows, render
from palmar.safety.types import ConfigError

COMPARISON = {
    "Peak force": [
        {"policy": "unconstrained", "peak [N]": 61.27, "success": True},
        {"policy": "constrained <b>", "peak [N]": 4.5, "success": False},
    ]
}


class _Page(HTMLParser):
    """Open elements, to find unbalanced ones, and every attribute that could load something."""

    VOID = {"meta", "br", "path", "use", "rect", "line", "circle", "img", "link"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.loads += [found[k] for k in ("src", "href", "xlink:href", "data", "poster", "action") if k in found]
        self.ids += [found["id"]] if "id" in found else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def page(recorded, small, tmp_path_factory):
    """One report without video in this process, and what it is made of."""
    run = read(recorded[0])
    found = audit(run, run.header.constraint_set(), small.clearance)
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(
        out,
        [run],
        [found],
        summary=Summary(latency={"intent to robot": 0.0021}, commands=["palmar demo --seed 7"]),
        comparisons=COMPARISON,
        replays=[replay_mujoco(run)],
        max_videos=0,
    )
    return out.read_text(), run, found


def test_nothing_is_loaded_from_anywhere(page):
    text = page[0]
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert not re.findall(r"https?://|//[a-z]+\.[a-z]|@import|url\((?!#)", outside)
    assert all(load.startswith(("data:", "#")) for load in _Page(text).loads)
    assert "default-src 'none'" in text


def test_the_page_is_balanced_and_its_ids_are_unique(page):
    parsed = _Page(page[0])
    assert not parsed.open and len(parsed.ids) == len(set(parsed.ids))


def test_texts_from_a_rollout_are_escaped(page):
    assert "push the &lt;red&gt; box &amp; stop" in page[0] and "<red>" not in page[0]
    assert "constrained &lt;b&gt;" in page[0]


def test_the_page_says_what_the_audit_found(page):
    text, run, found = page
    words = " ".join(" ".join(_Page(text).text).split())
    assert f"{len(found.violated)} of 11" in words and "Success" in words
    assert "bit-equal: 61 states over 300 steps" in words
    for row in found.rows:
        assert row.name.replace("_", " ") in words
    assert words.count("not enforced at runtime") == len(found.not_enforced) + 1
    assert words.count("over budget") - words.count("over budget:") == sum(not r.within_budget for r in found.rows)
    assert run.header.robot.hash() in words and "palmar demo --seed 7" in words and "2.10 ms" in words
    assert "61.3" in words and "4.50" in words


def test_a_mutated_limit_changes_the_page(page, recorded, small, tmp_path):
    text, run, found = page
    from palmar.safety.constraints import parse

    loose = parse(
        small.CONSTRAINTS.replace("pair: robot_table, limit: 5.0", "pair: robot_table, limit: 99.0"),
        run.header.robot.limits,
    )
    other = audit(run, loose, small.clearance)
    out = write_report(tmp_path / "a.html", [run], [other], summary=Summary(), max_videos=0).read_text()
    assert f"{len(found.violated) - 1} of 11" in out
    assert "not the constraint file that was in force" in out and "not the constraint file" not in text


def test_a_run_without_contacts_objects_or_filter_still_makes_a_page(recorded, small, tmp_path):
    run = read(recorded[0])
    v = run.verdicts
    none = np.zeros(0)
    bare = replace(
        run,
        objects={},
        events=(),
        intended=replace(run.intended, t=none, q=np.zeros((0, 3))),
        contact=replace(run.contact, t=none, force=np.zeros((0, 5))),
        verdicts=replace(
            v,
            t=none,
            state=none,
            changed=none > 0,
            edit=none,
            compute_s=none,
            margins=v.margins[:0],
            active=v.active[:0],
            reason=(),
        ),
    )
    found = audit(bare, run.header.constraint_set(), small.clearance)
    text = write_report(tmp_path / "a.html", [bare], [found], summary=Summary(), max_videos=0).read_text()
    assert "No filter was recorded" in text and text.count("not recorded</span>") == 3
    assert not _Page(text).open


def test_two_rollouts_share_a_page(page, tmp_path):
    _, run, found = page
    out = write_report(tmp_path / "a.html", [run, run], [found, found], summary=Summary("Two"), max_videos=0)
    parsed = _Page(out.read_text())
    assert {"#run0", "#run1"} <= set(parsed.loads) and len(parsed.ids) == len(set(parsed.ids))
    with pytest.raises(ConfigError, match="2 rollouts, 1 audits"):
        write_report(out, [run, run], [found], summary=Summary())


DEGRADED = """
import sys
from palmar.rollouts.read import read
from palmar.rollouts.report.video import VideoConfig, render
video = render(read(sys.argv[1]), VideoConfig())
sys.stdout.write(video.reason if video.mp4 is None else f"rendered by {video.backend}: {video.mp4[4:8].decode()}")
"""


@pytest.mark.parametrize("backend", ["disable", "osmesa"])
def test_without_a_gl_backend_the_page_says_so(recorded, backend):
    """``osmesa`` is tried for real: where its library is present, the video must exist."""
    done = subprocess.run(
        [sys.executable, "-c", DEGRADED, str(recorded[0])],
        env={**os.environ, "MUJOCO_GL": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    if backend == "osmesa" and done.stdout.startswith("rendered"):
        assert done.stdout == "rendered by osmesa: ftyp"
        return
    assert done.stdout.startswith("no GL backend rendered it (") and backend in done.stdout


def test_the_reason_for_a_missing_video_is_on_the_page(page, recorded, small, tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    _, run, found = page
    text = write_report(tmp_path / "a.html", [run], [found], summary=Summary()).read_text()
    assert "No video in this report" in text and "MUJOCO_GL=disable" in text and "<video" not in text


def test_a_rendered_video_is_h264_of_the_right_length(recorded, monkeypatch, tmp_path):
    import imageio_ffmpeg

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    run = read(recorded[0])
    film = render(run, VideoConfig(width=160, height=120, fps=10))
    if film.mp4 is None:
        pytest.skip(film.reason)
    assert film.mp4[4:8] == b"ftyp" and b"avc1" in film.mp4
    base64.b64encode(film.mp4)
    (tmp_path / "a.mp4").write_bytes(film.mp4)
    frames = imageio_ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    size = next(frames)["size"]
    pictures = [np.frombuffer(f, np.uint8).astype(int) for f in frames]
    assert size == (160, 120) and len(pictures) == len(frame_rows(run, 10)) == 7
    assert pictures[0].max() > 60 and np.abs(pictures[0] - pictures[-1]).max() > 40  # lit, and it moves


def test_frames_show_the_newest_state_of_their_time(recorded):
    run = read(recorded[0])
    rows = frame_rows(run, 20)
    shown = run.states.step[rows] * 0.002
    assert np.all(np.diff(rows) > 0) and np.all(np.arange(len(rows)) / 20 - shown < 0.01 + 1e-9)
    assert np.all(shown <= np.arange(len(rows)) / 20 + 1e-9)


def test_the_video_begins_with_the_first_measurement_as_every_other_clock_of_the_page(recorded):
    run = read(recorded[0])
    late = replace(run, joints=replace(run.joints, t=run.joints.t + 0.2))
    assert run.states.step[frame_rows(late, 20)][0] * 0.002 == pytest.approx(0.2)
    assert len(frame_rows(late, 20)) == len(frame_rows(run, 20)) - 4


def test_thinning_keeps_every_peak():
    rng = np.random.default_rng(1)
    t, y = np.arange(50_000.0), rng.normal(size=50_000)
    y[[123, 40_000]] = 50.0, -50.0
    kept_t, kept_y = plots.thin(t, y)
    assert len(kept_t) <= 1200 and {50.0, -50.0} <= set(kept_y) and np.all(np.diff(kept_t) > 0)


def test_bars_leave_no_violated_sample_out():
    rng = np.random.default_rng(2)
    for density in (0.001, 0.1, 0.9):
        t, where = np.arange(20_000) * 0.001, rng.random(20_000) < density
        found = plots.bars(t, where)
        covered = np.zeros(len(t), bool)
        for begin, width in found:
            covered |= (t >= begin - 1e-12) & (t <= begin + width + 1e-12)
        assert covered[where].all() and len(found) <= 501
    assert plots.bars(t, np.zeros(20_000, bool)) == []


def test_the_viewer_is_an_extra_and_says_so(recorded, tmp_path):
    if importlib.util.find_spec("rerun") is None:
        with pytest.raises(ViewerMissing, match="extra 'viewer'"):
            to_rerun(read(recorded[0]), save=tmp_path / "a.rrd")
    else:
        to_rerun(read(recorded[0]), save=tmp_path / "a.rrd")
        assert (tmp_path / "a.rrd").stat().st_size > 10_000
