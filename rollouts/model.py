"""The scene of a rollout as a MuJoCo model; a file from elsewhere may not reach for other files."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET

import mujoco
import numpy as np

from palmar.rollouts.rollout import Rollout
from palmar.safety.types import RolloutRefused

Array = np.ndarray

REACHING = ("include", "plugin", "extension")
"""Elements that load files or code."""


def compile_scene(rollout: Rollout) -> mujoco.MjModel:
    """The recorded scene, compiled.

    Raises:
        RolloutRefused: If there is none, it names a file that is not in the rollout, or it does not compile.
    """
    header, at = rollout.header, rollout.path
    if header.model_xml is None:
        raise RolloutRefused(f"{at}: holds no model.xml, it can be neither replayed nor rendered")
    if "<!" in header.model_xml.replace("<!--", ""):
        raise RolloutRefused(f"{at}: model.xml declares a document type or entities")
    try:
        elements = list(ET.fromstring(header.model_xml).iter())
    except ET.ParseError as error:
        raise RolloutRefused(f"{at}: model.xml is not XML: {error}") from error
    for element in elements:
        named = [v for k, v in element.attrib.items() if k.startswith("file")]
        missing = [name for name in named if name not in header.assets]
        if element.tag in REACHING or missing:
            raise RolloutRefused(f"{at}: model.xml reaches outside the rollout: <{element.tag}> {missing}")
    try:
        return mujoco.MjModel.from_xml_string(header.model_xml, dict(header.assets))
    except ValueError as error:
        raise RolloutRefused(f"{at}: model.xml does not compile: {error}") from error


def integration_state(model: mujoco.MjModel, data: mujoco.MjData) -> Array:
    """The full state for ``RolloutHeader.state0``; take it right before the first step."""
    full = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.zeros(mujoco.mj_stateSize(model, full))
    mujoco.mj_getState(model, data, state, full)
    return state


def fingerprint(model: mujoco.MjModel) -> str:
    """SHA-256 of a compiled model, hex; the layout of the XML it came from does not matter."""
    buffer = np.zeros(mujoco.mj_sizeModel(model), dtype=np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return hashlib.sha256(buffer.tobytes()).hexdigest()
