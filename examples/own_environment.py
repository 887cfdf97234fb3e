"""A world of one's own that changes: push a mass on a spring to a mark, while the spring's stiffness is drawn anew."""

import gymnasium as gym
import numpy as np

from agents import PPO, RegimeClock
from envs import NonStationary


class Spring(gym.Env):
    """Position, velocity and mark are seen; the action is a force; the reward is minus the distance to the mark."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    stiffness = 1.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.mark, self.steps = np.zeros(2), self.np_random.uniform(-1, 1), 0
        return self.observe(), {}

    def step(self, action):
        position, velocity = self.state
        velocity += 0.1 * (2.0 * float(action[0]) - self.stiffness * position - 0.5 * velocity)
        self.state, self.steps = np.array([position + 0.1 * velocity, velocity]), self.steps + 1
        return self.observe(), -abs(self.state[0] - self.mark), False, self.steps >= 100, {}

    def observe(self):
        return np.array([*self.state, self.mark], np.float32)


class Stiffness:
    """What changes: any class with these three methods."""

    def validate(self, env):
        self.spring = env.unwrapped

    def apply(self, value):
        self.spring.stiffness = value

    def restore(self):
        self.spring.stiffness = 1.0


if __name__ == "__main__":
    env = NonStationary(Spring(), {"target": Stiffness, "when": "every:2000", "to": "loguniform:0.2,5.0"})
    clock = RegimeClock()  # keeps the schedule on the agent's own count of steps
    PPO("MlpPolicy", env, plasticity="cbp", n_steps=256, seed=0, device="cpu").learn(6_000, callback=clock)
    for step, values in clock.changes:
        print(f"from step {step:5}: {values}")
