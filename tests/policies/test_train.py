import dataclasses
import json

import numpy as np
import pytest
import torch
from point_mass import PointMass
from safetensors.torch import load_file

from palmar.policies.algorithms import find
from palmar.policies.evaluate import evaluate
from palmar.policies.rl import checkpoint
from palmar.policies.train import train
from palmar.safety.config import load
from palmar.safety.types import ConfigError

BUDGETS = {"disc": 0.05, "wall": 0.1}
LEARN = dict(
    num_envs=64, steps=32, minibatch=512, iterations=80, hidden=(64, 64), lr=1e-3, budgets=BUDGETS, evaluate_every=5
)
SMALL = dict(num_envs=8, steps=32, minibatch=64, iterations=6, hidden=(16, 16), budgets=BUDGETS)


def asked(algorithm, **settings):
    return find.load(algorithm).config(**settings)


SHORT = asked("ppo_lagrangian", **SMALL, warmup=1)


def unseen(policy, episodes=64):
    return evaluate(PointMass(64), policy, episodes=episodes, seed=777, budgets=BUDGETS)


def solved(report):
    return report.evaluation is not None and report.evaluation.success_rate >= 0.95


def test_ppo_solves_the_task_and_violates(tmp_path):
    result = train(PointMass(64), asked("ppo", **LEARN), run_dir=tmp_path, evaluate=unseen, stop_when=solved)
    found = evaluate(PointMass(64), result.policy, episodes=200, seed=4242, budgets=BUDGETS)
    assert found.successes >= 190
    assert found.costs[:, 0].mean() > 4 * BUDGETS["disc"] and found.over_budget[0] > 0.95


def test_ppo_lagrangian_solves_it_within_the_budget(tmp_path):
    def safe(report):
        return solved(report) and report.evaluation.within_budgets

    result = train(PointMass(64), asked("ppo_lagrangian", **LEARN), run_dir=tmp_path, evaluate=unseen, stop_when=safe)
    found = evaluate(PointMass(64), result.policy, episodes=200, seed=4242, budgets=BUDGETS)
    assert found.successes >= 190
    assert np.all(found.costs.mean(axis=0) <= [BUDGETS["disc"], BUDGETS["wall"]])


class Fixed(PointMass):
    """Every episode starts alike, beside the disc: an environment started afresh goes on as before."""

    def _start(self, ids):
        self.p[ids] = np.stack([np.full(len(ids), -0.45), np.linspace(-0.3, 0.3, self.num_envs)[ids]], axis=1)
        self.age[ids] = 0


def state(run_dir):
    newest = checkpoint.latest(run_dir)
    return load_file(newest / "learner.safetensors"), json.loads((newest / "learner.json").read_text())


@pytest.mark.parametrize("algorithm", find.names())
def test_a_resumed_learner_goes_on_as_if_it_had_not_stopped(tmp_path, algorithm):
    own = {"ppo_lagrangian": {"warmup": 1}, "ppo_penalty": {"penalties": {"disc": 1.0}}}
    config = asked(algorithm, **SMALL, **own.get(algorithm, {}))
    train(Fixed(8), config, run_dir=tmp_path / "whole")
    train(Fixed(8), dataclasses.replace(config, iterations=3), run_dir=tmp_path / "parts")
    half, _ = state(tmp_path / "parts")
    train(Fixed(8), config, run_dir=tmp_path / "parts", resume=True)
    (whole, whole_json), (parts, parts_json) = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    assert [whole_json[k] for k in ("iteration", "env_steps")] == [parts_json[k] for k in ("iteration", "env_steps")]
    assert not all(torch.equal(half[k], parts[k]) for k in half if k.startswith("actor"))
    if algorithm == "ppo_lagrangian":
        assert whole["multipliers.value"][0] > 0


def test_the_same_seed_learns_the_same_and_another_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(PointMass(8), dataclasses.replace(SHORT, seed=seed, iterations=2), run_dir=tmp_path / name)
    a, b, c = (state(tmp_path / name)[0] for name in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["actor.net.0.weight"], c["actor.net.0.weight"])


def test_a_run_is_not_overwritten_nor_resumed_as_another(tmp_path):
    train(PointMass(8), dataclasses.replace(SHORT, iterations=1), run_dir=tmp_path)
    with pytest.raises(ConfigError, match="already holds a run"):
        train(PointMass(8), SHORT, run_dir=tmp_path)
    with pytest.raises(ConfigError, match="gamma"):
        train(PointMass(8), dataclasses.replace(SHORT, gamma=0.5), run_dir=tmp_path, resume=True)
    with pytest.raises(ConfigError, match="16 worlds"):
        train(PointMass(16), SHORT, run_dir=tmp_path, resume=True)
    file = checkpoint.latest(tmp_path) / "learner.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ConfigError, match="checkpoint"):
        train(PointMass(8), SHORT, run_dir=tmp_path, resume=True)


def test_a_run_leaves_its_configuration_reports_and_scalars(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reports = []
    config = dataclasses.replace(SHORT, iterations=4, evaluate_every=2)
    result = train(PointMass(8), config, run_dir=tmp_path, evaluate=lambda p: unseen(p, 8), progress=reports.append)
    raw = json.loads((tmp_path / "run.json").read_text())
    assert load(find.load(raw["config"]["algorithm"]).config, raw["config"]) == config
    assert raw["versions"]["torch"] == torch.__version__ and set(raw["git"]) == {"commit", "dirty"}
    assert [r.evaluation is not None for r in reports] == [False, True, False, True]
    assert set(reports[0].seconds) == {"env", "inference", "update", "evaluate"}
    assert result.stopped == "iterations" and result.env_steps == 4 * 8 * 32
    json.dumps(result.fingerprint(), allow_nan=False)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    logged = set(events.Tags()["scalars"])
    assert {"episode/return", "episode/success", "cost/disc", "cost_to_budget/disc", "lambda/disc"} <= logged
    assert {"learner/kl", "learner/lr", "time/fps", "time/env_s", "evaluation/success"} <= logged


def test_the_time_limit_and_the_stopping_rule_end_a_run_with_a_checkpoint(tmp_path):
    late = train(PointMass(8), SHORT, run_dir=tmp_path / "late", time_limit_s=0.0)
    assert (late.stopped, late.iterations) == ("time limit", 0)
    ruled = train(PointMass(8), SHORT, run_dir=tmp_path / "ruled", stop_when=lambda r: r.iteration == 2)
    assert (ruled.stopped, ruled.iterations) == ("stop_when", 2)
    assert state(tmp_path / "ruled")[1]["iteration"] == 2


def test_an_environment_without_costs_trains_with_ppo_only(tmp_path):
    class Free(PointMass):
        constraint_names = ()

        def step(self, action):
            step = super().step(action)
            info = {k: v for k, v in step.info.items() if k != "margin"}
            return dataclasses.replace(step, cost=step.cost[:, :0], info=info)

    free = SMALL | {"budgets": {}, "iterations": 2}
    result = train(Free(8), asked("ppo", **free), run_dir=tmp_path / "ppo")
    assert evaluate(Free(4), result.policy, episodes=4, seed=0).costs.shape == (4, 0)
    with pytest.raises(ConfigError, match="has costs"):
        train(Free(8), asked("ppo_lagrangian", **free), run_dir=tmp_path / "lagrangian")


def test_a_fixed_penalty_is_paid_out_of_the_reward(tmp_path):
    def safe(report):
        return solved(report) and report.evaluation.costs[:, 0].mean() < 0.5 * BUDGETS["disc"]

    config = asked("ppo_penalty", **LEARN, penalties={"disc": 5.0})
    result = train(PointMass(64), config, run_dir=tmp_path, evaluate=unseen, stop_when=safe)
    assert result.stopped == "stop_when" and unseen(result.policy, 200).costs[:, 0].mean() < BUDGETS["disc"]
