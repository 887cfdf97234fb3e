"""Small networks that the tests of the plasticity package share."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from plasticity import Network, hidden_layers


def mlp(sizes: tuple[int, ...] = (4, 6, 5, 2), activation: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    parts: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        parts += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*parts[:-1])


def network(model: nn.Module, optimizer: torch.optim.Optimizer | None = None, name: str = "net") -> Network:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.01)
    return Network(name, hidden_layers(model), [optimizer])


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 1, batch: int = 8) -> None:
    """Regression on random data from a generator of its own."""
    random = torch.Generator().manual_seed(seed)
    parameter = next(model.parameters())
    for _ in range(steps):
        x = torch.randn(batch, parameter.shape[1], generator=random).to(parameter)
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
