"""rsl_rl's PPO for Palmar's tasks: sizes and rates as in ``configs/algo/ppo.yaml``.  It ignores costs."""

from __future__ import annotations

from isaaclab.utils import configclass
from isaaclab_rl.rsl_rl import RslRlMLPModelCfg, RslRlOnPolicyRunnerCfg, RslRlPpoAlgorithmCfg


@configclass
class ReachRunnerCfg(RslRlOnPolicyRunnerCfg):
    """Task ``reach``."""

    num_steps_per_env = 24
    max_iterations = 120
    save_interval = 40
    experiment_name = "palmar_reach"
    clip_actions = 1.0
    actor = RslRlMLPModelCfg(
        hidden_dims=[256, 128],
        activation="elu",
        obs_normalization=True,
        distribution_cfg=RslRlMLPModelCfg.GaussianDistributionCfg(init_std=0.5),
    )
    critic = RslRlMLPModelCfg(hidden_dims=[256, 128], activation="elu", obs_normalization=True)
    algorithm = RslRlPpoAlgorithmCfg(
        value_loss_coef=1.0,
        use_clipped_value_loss=False,
        clip_param=0.2,
        entropy_coef=0.0,
        num_learning_epochs=4,
        num_mini_batches=3,
        learning_rate=5.0e-4,
        schedule="adaptive",
        gamma=0.98,
        lam=0.95,
        desired_kl=0.015,
        max_grad_norm=1.0,
    )


@configclass
class LiftRunnerCfg(ReachRunnerCfg):
    """Task ``lift``."""

    max_iterations = 150
    experiment_name = "palmar_lift"
