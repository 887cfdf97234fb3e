"""What each method costs: the time of a PPO gradient step with it and without it.

python benchmarks/method_cost.py             # all methods, about 3 minutes of one core
python benchmarks/method_cost.py redo cbp    # these again; the others' numbers stay

A plain torch loop does what one gradient step of PPO does: forward and backward of a policy and a value network on a
minibatch of 64 rows, gradient clipping, one step of UnitAdam. The loop with the method at its default settings and the
loop without take turns every few steps, so that other load on the machine slows both alike; times are processor time of
this process, with one thread. Actions rarer than every step are timed by themselves and divided by their period.
docs/methods/cost.md is written from the result, docs/data/method_cost.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plasticity import (
    METHODS,
    Chain,
    ContinualBackprop,
    Every,
    Network,
    NetworkOptions,
    UnitAdam,
    attach,
    build_intervention,
    hidden_layers,
    network_options,
    rebuild,
)

RESULT = Path(__file__).parent.parent / "docs" / "data" / "method_cost.json"
SIZES = (64, 256)
ROWS, OBSERVATIONS, ACTIONS = 64, 27, 8  # MuJoCo's Ant without contact forces
REPEATS, TURNS, STEPS = 5, 5, 10  # a repeat is TURNS turns of STEPS gradient steps each
DEAD = 16  # one unit in so many starts dead
SETTLE = 110  # steps before anything is timed: methods that act every 100 steps have acted


class Loop:
    """PPO's gradient step on made-up data, with one method or none."""

    def __init__(self, method: str | None, size: int):
        torch.manual_seed(0)
        options = network_options(method)
        self.model = nn.ModuleDict({"pi": _mlp(size, ACTIONS), "vf": _mlp(size, 1)})
        self.log_std = nn.Parameter(torch.zeros(ACTIONS))
        self.optimizer = UnitAdam(
            [*self.model.parameters(), self.log_std], lr=3e-4, eps=1e-5, betas=options.betas or (0.9, 0.999)
        )
        self.networks = self._networks(options)
        self.methods = [build_intervention(method, network, seed=0) for network in self.networks]
        self.periodic = [part for chain in self.methods for part in _periodic(chain)]
        for chain, network in zip(self.methods, self.networks, strict=True):
            attach(chain, network)
        self.batches = [self._batch() for _ in range(16)]
        self.steps = 0
        self._settle()

    def _networks(self, options: NetworkOptions) -> list[Network]:
        networks = self._describe()
        if options.rebuild:
            rebuild(self.model, networks, options)
            for network in networks:
                network.close()
            networks = self._describe()
        with torch.no_grad():
            for layer in (layer for network in networks for layer in network.layers):
                layer.weight[::DEAD] = 0
                if layer.bias is not None:
                    layer.bias[::DEAD] = -1
        return networks

    def _describe(self) -> list[Network]:
        return [
            Network(name, hidden_layers(self.model[name]), [self.optimizer], log_std=[self.log_std] * (name == "pi"))  # type: ignore[arg-type]
            for name in self.model
        ]

    @torch.no_grad()
    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        observations = torch.randn(ROWS, OBSERVATIONS)
        actions = self.model["pi"](observations) + torch.randn(ROWS, ACTIONS)
        return observations, actions, self._log_prob(observations, actions), torch.randn(ROWS), torch.randn(ROWS)

    def _log_prob(self, observations: Tensor, actions: Tensor) -> Tensor:
        policy = torch.distributions.Normal(self.model["pi"](observations), self.log_std.exp())
        density: Tensor = policy.log_prob(actions)  # type: ignore[no-untyped-call]
        return density.sum(1)

    def _settle(self) -> None:
        """Methods as they are in the midst of a long run."""
        for chain, network in zip(self.methods, self.networks, strict=True):
            chain.notice_change()
            for method in chain:
                if isinstance(method, ContinualBackprop):  # its steady state: half of the units are mature
                    for layer in network.layers:
                        state = method.state(layer)
                        state.age[..., ::2] = 1_000_000
                        state.budget.copy_(state.denominator)
        for _ in range(SETTLE // STEPS):
            _run(self)
        self.act()  # and UnitAdam counts weight by weight, if units were replaced

    def step(self) -> None:
        """Forward, backward, clipping, optimizer; the method acts around the latter."""
        observations, actions, before, advantages, returns = self.batches[self.steps % len(self.batches)]
        self.steps += 1
        ratio = (self._log_prob(observations, actions) - before).exp()
        surrogate = torch.min(advantages * ratio, advantages * ratio.clamp(0.8, 1.2))
        values: Tensor = self.model["vf"](observations).flatten()
        loss = -surrogate.mean() + 0.5 * nn.functional.mse_loss(values, returns)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([*self.model.parameters(), self.log_std], 0.5)
        self.optimizer.step()

    def act(self) -> float:
        """Seconds a step that one action of the rare part of the method takes, a share of the action's time."""
        seconds = 0.0
        for place, network in enumerate(self.networks):
            for every in _periodic(self.methods[place]):
                start = time.process_time()
                with torch.no_grad():
                    every.intervention.before_step(network)  # type: ignore[operator]
                    every.intervention.after_step(network)  # type: ignore[operator]
                seconds += (time.process_time() - start) / every.period
        return seconds

    @property
    def size(self) -> tuple[int, int]:
        """Bytes of the networks' parameters, and of what the method keeps between steps besides them."""
        own = {id(parameter): parameter for parameter in self.model.parameters()}
        kept = (tensor for chain in self.methods for tensor in (*chain.parameters(), *chain.buffers()))
        return _bytes(own.values()), _bytes(tensor for tensor in kept if id(tensor) not in own)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _mlp(size: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(OBSERVATIONS, size), nn.ReLU(), nn.Linear(size, size), nn.ReLU(), nn.Linear(size, outputs)
    )


def _periodic(chain: Chain) -> Iterator[Every]:
    return (part for part in chain.modules() if isinstance(part, Every) and part.period > 1)


def measure(method: str, size: int) -> dict[str, float]:
    """Milliseconds of a step without and with the method, and the share by which it is longer, with quartiles."""
    plain, treated = Loop(None, size), Loop(method, size)
    results = [_repeat(plain, treated) for _ in range(REPEATS)]
    rare = statistics.median(treated.act() for _ in range(REPEATS)) if treated.periodic else 0.0
    without = statistics.median(a for a, _ in results)
    shares = [(b + rare) / a - 1 for a, b in results]
    low, middle, high = statistics.quantiles(shares, n=4, method="inclusive")
    return {
        "plain_ms": round(without * 1e3, 4),
        "method_ms": round(without * 1e3 * (1 + middle), 4),
        "share": round(middle, 4),
        "low": round(low, 4),
        "high": round(high, 4),
    }


def _repeat(plain: Loop, treated: Loop) -> tuple[float, float]:
    """Seconds a step of both, taking turns."""
    spent = [0.0, 0.0]
    for _ in range(TURNS):
        for place, loop in enumerate((plain, treated)):
            start = time.process_time()
            _run(loop)
            spent[place] += time.process_time() - start
    return spent[0] / (TURNS * STEPS), spent[1] / (TURNS * STEPS)


def _run(loop: Loop) -> None:
    for _ in range(STEPS):
        for every in loop.periodic:
            every.steps.zero_()  # rare actions are timed by themselves
        loop.step()


def memory(method: str) -> float:
    """What the method adds, in multiples of the plain networks' parameters; the wider networks."""
    (plain, _), treated = Loop(None, SIZES[-1]).size, Loop(method, SIZES[-1]).size
    return round(sum(treated) / plain - 1, 4)


def conditions() -> dict[str, dict[str, Any]]:
    """What the numbers were measured on and with."""
    return {
        "machine": {"processor": _processor(), "cores": os.cpu_count() or 1, "threads used": torch.get_num_threads()},
        "versions": {"torch": importlib.metadata.version("torch"), "Python": platform.python_version()},
        "problem": {"rows": ROWS, "inputs": OBSERVATIONS, "actions": ACTIONS, "steps": REPEATS * TURNS * STEPS},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main(say: Callable[[str], None] = print) -> None:
    """Measure, say what came out, and write it down."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("methods", nargs="*", help=f"default: all, {', '.join(METHODS)}")
    chosen = parser.parse_args().methods or list(METHODS)
    if wrong := [name for name in chosen if name not in METHODS]:
        parser.error(f"unknown methods {', '.join(wrong)}: allowed are {', '.join(METHODS)}")
    torch.set_num_threads(1)
    found: dict[str, Any] = conditions() | {"methods": {}}
    if RESULT.exists() and chosen != list(METHODS):
        old = json.loads(RESULT.read_text("utf-8"))
        if any(old[part] != found[part] for part in found if part != "methods"):
            parser.error("the other methods' numbers are from another machine or version: measure all methods")
        found["methods"] = {name: numbers for name, numbers in old["methods"].items() if name in METHODS}
    columns = " ".join(f"{f'{size} plain':>10} {'with it':>8} {'more':>7}" for size in SIZES)
    say(f"{'method':24} {columns}  memory")
    for name in chosen:
        times, kept = {str(size): measure(name, size) for size in SIZES}, memory(name)
        cells = [f"{n['plain_ms']:7.3f} ms {n['method_ms']:5.2f} ms {n['share']:+7.1%}" for n in times.values()]
        say(f"{name:24} {' '.join(cells)} {kept:7.2f}")
        found["methods"][name] = {**times, "memory": kept}
        found["methods"] = dict(sorted(found["methods"].items()))
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(found, indent=2) + "\n", "utf-8")  # each time: what is done is done


if __name__ == "__main__":
    main()
