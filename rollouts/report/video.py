"""Video of a rollout, rendered after the run from its recorded physics states, in a process of its own.

A GL backend is chosen when MuJoCo is imported and may end its process when it fails, so each is tried in a
fresh one: EGL, then OSMesa, then no video and the reason why.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palmar.rollouts.rollout import Rollout

BACKENDS = ("egl", "osmesa")


@dataclass(frozen=True)
class Video:
    """An H.264 video, or why there is none."""

    mp4: bytes | None
    backend: str = ""
    reason: str = ""
    """Plain words for the page; '' where there is a video."""


@dataclass(frozen=True)
class VideoConfig:
    """How it is rendered."""

    width: int = 704
    height: int = 396
    fps: int = 20
    camera: str = ""
    """Name in the model; '' takes one called ``report``, else the first, else a free view of everything."""
    limit_s: float = 300.0
    """Time a backend may take before it is given up [s]."""


def render(rollout: Rollout, config: VideoConfig) -> Video:
    """The video of ``rollout``; never raises for want of a GL backend."""
    if rollout.header.model_xml is None or not len(rollout.states.step):
        return Video(None, reason="no physics states were recorded (a run on hardware)")
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    backends = BACKENDS if asked == "" else (asked,)
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "video.mp4"
        for backend in backends:
            if backend in ("disable", "disabled", "off", "false", "0"):
                failures.append(f"MUJOCO_GL={backend}")
                continue
            failure = _attempt(rollout.path, out, backend, config)
            if not failure:
                return Video(out.read_bytes(), backend=backend)
            failures.append(f"{backend}: {failure}")
    return Video(None, reason="no GL backend rendered it (" + "; ".join(failures) + ")")


def _attempt(source: Path, out: Path, backend: str, config: VideoConfig) -> str:
    """Render in a fresh process; '' or the last line of what went wrong."""
    arguments = [source, out, config.width, config.height, config.fps, config.camera]
    command = [sys.executable, "-m", "palmar.rollouts.report.video", *map(str, arguments)]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "MUJOCO_GL": backend},
            capture_output=True,
            text=True,
            timeout=config.limit_s,
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {config.limit_s:g} s"
    if done.returncode or not out.exists():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if not line.startswith((" ", "Traceback", "Exception ignored"))]
        return (errors or lines or [f"exit code {done.returncode}"])[0][:200]
    return ""


def write_mp4(source: Path, out: Path, config: VideoConfig) -> int:
    """Render the rollout file ``source`` into ``out`` in this process; the number of frames."""
    import imageio_ffmpeg
    import mujoco

    from palmar.rollouts.model import compile_scene
    from palmar.rollouts.read import read

    rollout = read(source, recover=True)
    model = compile_scene(rollout)
    model.vis.global_.offwidth = max(config.width, model.vis.global_.offwidth)
    model.vis.global_.offheight = max(config.height, model.vis.global_.offheight)
    data = mujoco.MjData(model)
    rows = frame_rows(rollout, config.fps)
    with mujoco.Renderer(model, config.height, config.width) as renderer:
        sink = imageio_ffmpeg.write_frames(
            str(out),
            (config.width, config.height),
            fps=config.fps,
            codec="libx264",
            quality=None,  # pyright: ignore[reportArgumentType]  # not only int: None leaves it to -crf
            macro_block_size=2,
            output_params=["-crf", "24", "-preset", "veryfast", "-movflags", "+faststart"],
        )
        sink.send(None)
        camera = _camera(model, config.camera)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0  # in software they take two thirds of the time
        for row in rows:
            data.qpos[:], data.qvel[:] = rollout.states.qpos[row], rollout.states.qvel[row]
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera)
            sink.send(np.ascontiguousarray(renderer.render()))
        sink.close()
    return len(rows)


def frame_rows(rollout: Rollout, fps: int) -> np.ndarray:
    """Row of ``rollout.states`` shown in each frame: the newest at the frame's time, from the run's begin on."""
    stamps = rollout.header.t0 + rollout.states.step * (rollout.header.physics_dt or 0.0)
    # Physics may have begun before the first measurement, which is where every clock of the page starts.
    first = max(float(stamps[0]), min(rollout.begin, float(stamps[-1])))
    frames = np.arange(first, stamps[-1] + 0.5 / fps, 1.0 / fps)
    return np.searchsorted(stamps, frames + 1e-9, side="right") - 1


def _camera(model, name: str):  # noqa: ANN001, ANN202 (mujoco is imported by the caller)
    import mujoco

    names = [model.camera(i).name for i in range(model.ncam)]
    if name:
        return name
    if "report" in names:
        return "report"
    if names:
        return names[0]
    free = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, free)
    return free


def main(arguments: list[str]) -> None:
    """Entry of the rendering process."""
    source, out, width, height, fps, camera = arguments
    write_mp4(Path(source), Path(out), VideoConfig(int(width), int(height), int(fps), camera))


if __name__ == "__main__":
    main(sys.argv[1:])
