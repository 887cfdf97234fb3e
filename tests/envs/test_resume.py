"""A run that is saved, and loaded in a new process, goes on through the regimes of the unbroken one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import DummyVecEnv

from agents import PPO, RegimeClock

KWARGS: dict[str, Any] = {"period": 200, "schedule_seed": 5, "boundary": "step"}

CONTINUE = """
import json, sys
import gymnasium as gym
from stable_baselines3.common.vec_env import DummyVecEnv
from agents import PPO, RegimeClock

kwargs = json.loads(sys.argv[2])
model = PPO.load(sys.argv[1], env=DummyVecEnv([lambda: gym.make("envs:NSPendulum-v1", **kwargs)] * 2), device="cpu")
clock = RegimeClock()
model.learn(512, callback=clock, reset_num_timesteps=False)
print(json.dumps(clock.changes))
"""


def test_the_same_regimes_after_saving_and_loading_in_a_new_process(tmp_path: Path) -> None:
    venv = DummyVecEnv([lambda: gym.make("envs:NSPendulum-v1", **KWARGS)] * 2)
    model = PPO("MlpPolicy", venv, n_steps=64, batch_size=64, n_epochs=1, seed=0, device="cpu")
    first = RegimeClock()
    model.learn(512, callback=first)
    model.save(tmp_path / "model.zip")
    command = [sys.executable, "-c", CONTINUE, str(tmp_path / "model.zip"), json.dumps(KWARGS)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    changes = [*first.changes, *((step, values) for step, values in json.loads(out))]
    due = gym.make("envs:NSPendulum-v1", **KWARGS).get_wrapper_attr("due")
    assert changes == [
        (step, {"gravity": due(step - 2 if step else 0)["nonstationary/gravity"]}) for step, _ in changes
    ]
    # A change at t is seen in force by the step that follows it; the new process notes where it starts, at 512.
    assert [step for step, _ in changes] == [0, 202, 402, 512, 602, 802, 1002]
