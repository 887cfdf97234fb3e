"""Does what is faster learn as well? Curves of agents that are worked out by hand beside Stable-Baselines3's own.

python benchmarks/learning_parity.py            # about half an hour of two cores; goes on where it was left
python benchmarks/learning_parity.py --draw     # only the picture and the table again

SAC on Pendulum-v1, and PPO with the published settings on a slice of Slippery Ant (eight environments, friction changes
half-way), several seeds each, with `backend="stock"` in a DummyVecEnv and with `backend="auto"` in a BatchedVecEnv,
continual backprop in both. Equal seeds start with equal weights and draws; rounding soon parts them, so what must agree
are distributions: of the mean return over the run (the area under the curve) and of the last tenth.

docs/data/learning_parity.json and docs/images/learning_parity.png are written from the result.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).parent.parent / "docs"
RESULT, PICTURE = DOCS / "data" / "learning_parity.json", DOCS / "images" / "learning_parity.png"
BACKENDS = {"stock": "Stable-Baselines3's own", "auto": "by hand"}
TASKS = {"sac": ("SAC on Pendulum", 6_000, 5), "ppo": ("PPO on a slice of Slippery Ant", 98_304, 10)}  # steps, seeds
BINS = 24


def learn(task: str, backend: str, seed: int) -> list[tuple[int, float]]:
    """Train one agent; (environment step, return) of each episode."""
    import gymnasium as gym
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    from agents import PPO, SAC, BatchedVecEnv, RegimeClock

    class Episodes(BaseCallback):
        found: list[tuple[int, float]]

        def _on_training_start(self) -> None:
            self.found = []

        def _on_step(self) -> bool:
            ended = [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
            self.found += [(self.num_timesteps, float(value)) for value in ended]
            return True

    torch.set_num_threads(1)
    episodes, steps = Episodes(), TASKS[task][1]
    shared: dict[str, Any] = {"plasticity": "cbp", "seed": seed, "device": "cpu", "backend": backend}
    model: Any
    if task == "sac":
        model = SAC("MlpPolicy", gym.make("Pendulum-v1"), **shared)
    else:

        def make() -> Any:
            return Monitor(gym.make("SlipperyAnt-v5", legacy_obs=True, period=steps // 2, schedule_seed=seed))

        env = (DummyVecEnv if backend == "stock" else BatchedVecEnv)([make] * 8)
        networks = {"net_arch": [256, 256], "activation_fn": torch.nn.ReLU, "init": "lecun"}
        published = {"n_steps": 256, "batch_size": 128, "learning_rate": 1e-4, "vf_coef": 1.0}
        model = PPO("MlpPolicy", env, policy_kwargs=networks, **published, **shared)
    assert (model.why_stock() is None) == (backend == "auto"), model.why_stock()
    model.learn(steps, callback=[RegimeClock(), episodes])
    return episodes.found


def cells() -> Iterator[tuple[str, str, int]]:
    """All that is to be run."""
    for task, (_, _, seeds) in TASKS.items():
        for seed in range(seeds):
            for backend in BACKENDS:
                yield task, backend, seed


def key(task: str, backend: str, seed: int) -> str:
    return f"{task}/{backend}/{seed}"


def curve(task: str, episodes: list[tuple[int, float]]) -> list[float]:
    """Mean return of the episodes that ended in each stretch of the run; where none did, as in the one before."""
    edges, found, last = np.linspace(0, TASKS[task][1], BINS + 1), [], float("nan")
    for low, high in pairwise(edges):
        inside = [value for step, value in episodes if low < step <= high]
        last = float(np.mean(inside)) if inside else last
        found.append(last)
    return found


def compare(task: str, runs: dict[str, Any]) -> dict[str, Any]:
    """Curves by backend, and the difference of their means with a 95 % interval over seeds (bootstrap)."""
    random, found = np.random.default_rng(0), {}
    curves = {
        backend: np.array([runs[key(task, backend, seed)] for seed in range(TASKS[task][2])]) for backend in BACKENDS
    }
    for name, part in {"whole run": slice(None), "last tenth": slice(-max(1, BINS // 10), None)}.items():
        stock, fast = (np.nanmean(curves[backend][:, part], axis=1) for backend in BACKENDS)
        picks = random.integers(len(stock), size=(2, 10_000, len(stock)))
        drawn = fast[picks[0]].mean(1) - stock[picks[1]].mean(1)
        found[name] = {
            "stock": [round(float(stock.mean()), 1), round(float(stock.std(ddof=1)), 1)],
            "auto": [round(float(fast.mean()), 1), round(float(fast.std(ddof=1)), 1)],
            "difference": round(float(fast.mean() - stock.mean()), 1),
            "interval": [round(float(bound), 1) for bound in np.quantile(drawn, [0.025, 0.975])],
        }
    return found


def draw(runs: dict[str, Any]) -> None:
    """One panel a task: every seed thin, the mean thick."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(TASKS), figsize=(10, 3.6), layout="constrained")
    for panel, (task, (title, steps, seeds)) in zip(panels, TASKS.items(), strict=True):
        middles = (np.arange(BINS) + 0.5) * steps / BINS
        for colour, (backend, name) in zip(("#666666", "#0072b2"), BACKENDS.items(), strict=True):
            curves = np.array([runs[key(task, backend, seed)] for seed in range(seeds)])
            panel.plot(middles, curves.T, color=colour, alpha=0.25, linewidth=0.7)
            panel.plot(middles, np.nanmean(curves, axis=0), color=colour, linewidth=2, label=name)
        panel.set(title=f"{title}, {seeds} seeds", xlabel="environment steps", ylabel="return")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=120)


def main() -> None:
    """Run what is missing, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--draw", action="store_true", help="run nothing, draw what there is")
    parser.add_argument("--only", choices=TASKS, help="one task only")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    arguments = parser.parse_args()
    found: dict[str, Any] = json.loads(RESULT.read_text("utf-8")) if RESULT.exists() else {"curves": {}}
    missing = [cell for cell in cells() if key(*cell) not in found["curves"]]
    if arguments.only:
        missing = [cell for cell in missing if cell[0] == arguments.only]
    if not arguments.draw:
        with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
            jobs = {pool.submit(learn, *cell): cell for cell in missing}
            for job, cell in jobs.items():
                found["curves"][key(*cell)] = [round(value, 2) for value in curve(cell[0], job.result())]
                RESULT.write_text(json.dumps(found) + "\n", "utf-8")
                print(f"{len(found['curves'])}/{len(list(cells()))} {key(*cell)}", flush=True)
    whole = [
        t for t, (*_, n) in TASKS.items() if all(key(t, b, s) in found["curves"] for b in BACKENDS for s in range(n))
    ]
    found["comparison"] = {task: compare(task, found["curves"]) for task in whole}
    RESULT.write_text(json.dumps(found) + "\n", "utf-8")
    for task in whole:
        print(TASKS[task][0], json.dumps(found["comparison"][task]))
    if len(whole) == len(TASKS):
        draw(found["curves"])


if __name__ == "__main__":
    main()
