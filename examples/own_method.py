"""A method of one's own: nudge units that said nothing in this minibatch until they speak again."""

from dataclasses import dataclass

from torch import nn

from agents import PPO
from plasticity import Intervention, dead_units


class WakeUp(nn.Module, Intervention):
    """Adds `nudge` to the bias of every hidden unit that is dead on the minibatch just learned from."""

    def __init__(self, nudge: float):
        super().__init__()
        self.nudge, self.woken = nudge, 0

    def after_step(self, network):
        for layer in network.layers:
            dead = dead_units(layer.rows(network.activations[layer.name]), layer.activation)
            layer.bias[dead] += self.nudge
            self.woken += int(dead.sum())

    def telemetry(self):  # goes to the log as plasticity/<network>/woken
        return {"woken": float(self.woken)}


@dataclass(frozen=True)
class WakeUpConfig:
    """Its settings; `build` makes one for each network of an agent."""

    nudge: float = 0.01

    def build(self, network, seed):
        return WakeUp(self.nudge)


if __name__ == "__main__":
    settings = {"activation_fn": nn.ReLU, "net_arch": [32, 32]}
    model = PPO("MlpPolicy", "CartPole-v1", plasticity=["cbp", WakeUpConfig()], policy_kwargs=settings, seed=0)
    model.learn(4_096)
    for name, methods in model.policy.plasticity.items():
        print(name, f"nudged {methods.telemetry()['woken']:.0f} times")
