"""Continual backprop in a plain torch loop: memorise random labels, again and again, with and without it.

Each task asks for new random labels of the same 128 inputs. Accuracy is that of the last pass over a task: a network
that keeps its plasticity learns the last task as well as the first. Run it: about 10 seconds of one core.
"""

import torch
from torch import nn

from plasticity import ContinualBackprop, Network, UnitAdam, attach, dead_units, hidden_layers


def learn(tasks: int, replacement_rate: float) -> tuple[list[float], float]:
    """Accuracy on each task, and the share of dead units at the end."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = UnitAdam(model.parameters(), lr=0.01)  # Adam that can start single units afresh

    network = Network("net", hidden_layers(model), [optimizer])
    attach(ContinualBackprop(network.layers, replacement_rate=replacement_rate, maturity=50), network)

    inputs, accuracies = torch.randn(128, 32), []
    for _ in range(tasks):
        labels = torch.randint(10, (128,))
        for _ in range(25):
            hits = 0
            for batch in torch.randperm(128).split(32):
                output = model(inputs[batch])
                optimizer.zero_grad()
                nn.functional.cross_entropy(output, labels[batch]).backward()
                optimizer.step()  # continual backprop acts right after it
                hits += int((output.argmax(1) == labels[batch]).sum())
        accuracies.append(hits / 128)

    with network.watch() as activations, torch.no_grad():
        model(inputs)
    dead = torch.cat([dead_units(activations[layer.name], layer.activation) for layer in network.layers])
    return accuracies, float(dead.double().mean())


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, rate in {"backprop": 0.0, "continual backprop": 1e-3}.items():
        accuracies, dead = learn(tasks=40, replacement_rate=rate)
        first, last = sum(accuracies[:5]) / 5, sum(accuracies[-5:]) / 5
        print(f"{name:20} first 5 tasks {first:.0%}   last 5 tasks {last:.0%}   dead units {dead:.0%}")
