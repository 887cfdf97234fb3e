"""What is measured together: contestants that take turns, and the rows of the table that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks import settings
from benchmarks.rows import SIZES, Result, result
from benchmarks.turns import Child, Entry, Turn, children, gains, speeds, spread, take_turns

Advance = Callable[[float], None]
SLOW = ("width_1024", "depth_8")
TURNS_OF_A_RUN = 10  # and the one that is dropped: the second measurement of a run falls into the last of them


@dataclass(frozen=True)
class Plan:
    """What there is to measure with.

    peers: the interpreter of the benchmarks' own environment. lop: a checkout of the published code, or None.
    quick: a fifth of the turns.
    """

    peers: str
    lop: str | None = None
    quick: bool = False

    def turns(self, count: int) -> int:
        """So many, or fewer."""
        return max(2, count // 5) if self.quick else count


@dataclass(frozen=True)
class Part:
    """rows: what comes of it. seconds: about how long it takes, on two cores. measure: does it."""

    rows: tuple[str, ...]
    seconds: float
    measure: Callable[[Plan, Advance], dict[str, Result]]


def ppo(plan: Plan, advance: Advance) -> dict[str, Result]:
    """Whole training of PPO: ours and all peers in one round."""
    ours = Entry("ours.train", {"words": settings.ppo_words(), "steps": settings.ROLLOUT})
    peers = {
        "ppo": Entry("peers.sb3.ppo", {}, plan.peers),
        "ppo_one": Entry("peers.sb3.ppo", {"n_envs": 1}, plan.peers),
        "ppo_sbx": Entry("peers.sbx.ppo", {}, plan.peers),
    }
    if plan.lop is not None:
        peers["ppo_lop"] = Entry("peers.lop.ppo", {"path": plan.lop}, plan.peers)
    with children([ours, *peers.values()]) as all_of_them:
        mine, *theirs = take_turns(all_of_them, plan.turns(20), advance)
    found = {name: _gain(mine, other) for name, other in zip(peers, theirs, strict=True)}
    updates = _gain(mine, theirs[0], "update_seconds")
    return found | {"ppo_update": updates, "metrics": _share_of_metrics(mine)}


def sac(plan: Plan, advance: Advance) -> dict[str, Result]:
    """Whole training of SAC."""
    ours = Entry("ours.train", {"words": settings.SAC_WORDS, "steps": settings.SAC_STEPS})
    peers = [Entry(f"peers.{name}.sac", {}, plan.peers) for name in ("sb3", "sbx")]
    with children([ours, *peers]) as all_of_them:
        mine, sb3, sbx = take_turns(all_of_them, plan.turns(20), advance)
    return {"sac": _gain(mine, sb3), "sac_sbx": _gain(mine, sbx), "sac_update": _gain(mine, sb3, "update_seconds")}


def cbp(plan: Plan, advance: Advance) -> dict[str, Result]:
    """Our PPO's update with continual backprop and without."""
    return {"cbp": _share_of_cbp(plan, advance)}


def cbp_at_other_sizes(plan: Plan, advance: Advance) -> dict[str, Result]:
    """The same in narrow, wide, shallow and deep networks."""
    part = _part_of(advance, len(SIZES))
    return {f"cbp_{name}": _share_of_cbp(plan, part, name in SLOW, **size) for name, size in SIZES.items()}


def metrics_at_other_sizes(plan: Plan, advance: Advance) -> dict[str, Result]:
    """The share of metrics there: two runs each, of as many turns as hold a measurement."""
    found, runs = {}, plan.turns(2)
    for name, size in SIZES.items():
        entry = Entry("ours.train", {"words": settings.ppo_words(**size), "steps": settings.ROLLOUT})
        turns = _of_several(entry, runs, TURNS_OF_A_RUN, _part_of(advance, len(SIZES)))
        found[f"metrics_{name}"] = _share_of_metrics(turns)
    return found


def _share_of_cbp(plan: Plan, advance: Advance, slow: bool = False, **size: int) -> Result:
    """Two agents take turns within a process, since a machine has better seconds and worse ones; in several processes,
    since where one finds its memory makes some per cent of a difference."""
    processes, turns = (4, 6) if slow else (8, 15)
    both = [settings.ppo_words(methods, **size) for methods in (settings.CBP, settings.NO_CBP)]
    found = _of_several(Entry("ours.updates", {"agents": both}), plan.turns(processes), turns, advance)
    with_it, without = ([turn[f"{name}_seconds"] for turn in found] for name in ("first", "second"))
    shares = [(more - less) / more for more, less in zip(with_it, without, strict=True)]
    return result(shares, with_seconds=spread(with_it), without_seconds=spread(without))


def _of_several(entry: Entry, processes: int, turns: int, advance: Advance) -> list[Turn]:
    """So many turns of each of several processes, one after the other."""
    found = []
    for _ in range(processes):
        with children([entry]) as one:
            (told,) = take_turns(one, turns, _part_of(advance, processes))
        found += told
    return found


def _part_of(advance: Advance, parts: int) -> Advance:
    """To be told of one of so many parts."""
    return lambda share: advance(share / parts)


def _share_of_metrics(turns: Sequence[Turn]) -> Result:
    """Of all turns together: most have no measurement, and a median would hide those that have one."""
    spent = sum(turn["metrics_seconds"] + turn["log_seconds"] for turn in turns)
    return result([spent / sum(turn["seconds"] for turn in turns)])


def batched(plan: Plan, advance: Advance) -> dict[str, Result]:
    """BatchedVecEnv against DummyVecEnv, with all cores."""
    (turn,) = _once(Entry("ours.batched", {"turns": plan.turns(200)}), advance)
    best = turn["threads"][max(turn["threads"], key=int)]
    steps = {"ours_steps": 1e6 / best["us"], "peer_steps": 1e6 / turn["dummy_us"]}
    numbers = result([best["gain"]], **steps)
    return {"batched": numbers | {"low": best["low"], "high": best["high"], "turns": plan.turns(200)}}


def wrapper(plan: Plan, advance: Advance) -> dict[str, Result]:
    """A step of Ant with the wrapper and without."""
    (turn,) = _once(Entry("ours.wrapper", {"repeats": plan.turns(9)}), advance)
    numbers = result([turn["share"]], step_us=turn["step_us"], extra_us=turn["extra_us"])
    return {"wrapper": numbers | {"low": turn["low"], "high": turn["high"], "turns": plan.turns(9)}}


def adam(plan: Plan, advance: Advance) -> dict[str, Result]:
    """UnitAdam against torch's fused Adam."""
    with children([Entry("ours.adam", {})]) as (one,):
        ((*turns,),) = take_turns([one], plan.turns(20), advance)
    slower = [turn["seconds"] / turn["torch_seconds"] - 1 for turn in turns]
    steps = {"ours_steps": spread(speeds(turns)), "peer_steps": spread(speeds(turns, "torch_seconds"))}
    return {"adam": result(slower, **steps)}


def memory(plan: Plan, advance: Advance) -> dict[str, Result]:
    """The peak of a whole run of train.py, and of SB3 doing nothing but train, for as many steps."""
    rollouts, pairs = 5, 1 if plan.quick else 3
    words = [*settings.ppo_words(), f"total_steps={rollouts * settings.ROLLOUT}"]
    entries = [(Entry("ours.whole_run", {"words": words}), 1), (Entry("peers.sb3.ppo", {}, plan.peers), rollouts)]
    peaks: list[list[float]] = [[], []]
    for _ in range(pairs):
        for place, (entry, turns) in enumerate(entries):
            peaks[place].append(max(turn["peak_mib"] for turn in _once(entry, lambda share: None, turns)))
            advance(0.5 / pairs)
    more = [one / other - 1 for one, other in zip(*peaks, strict=True)]
    return {"memory": result(more, ours_mib=spread(peaks[0]), peer_mib=spread(peaks[1]))}


def _once(entry: Entry, advance: Advance, turns: int = 1) -> Iterator[Turn]:
    """What a contestant tells of its turns, the first among them."""
    one = Child(entry)
    try:
        for _ in range(turns):
            yield one.turn()
            advance(1 / turns)
    finally:
        one.close()


def _gain(ours: Sequence[Turn], peer: Sequence[Turn], seconds: str = "seconds") -> Result:
    steps = {"ours_steps": spread(speeds(ours, seconds)), "peer_steps": spread(speeds(peer, seconds))}
    return result(gains(ours, peer, seconds), **steps)


PARTS = (
    Part(("ppo", "ppo_one", "ppo_sbx", "ppo_lop", "ppo_update", "metrics"), 220, ppo),
    Part(("sac", "sac_sbx", "sac_update"), 130, sac),
    Part(("cbp",), 90, cbp),
    Part(tuple(f"cbp_{size}" for size in SIZES), 400, cbp_at_other_sizes),
    Part(tuple(f"metrics_{size}" for size in SIZES), 150, metrics_at_other_sizes),
    Part(("batched",), 30, batched),
    Part(("wrapper",), 40, wrapper),
    Part(("adam",), 15, adam),
    Part(("memory",), 75, memory),
)
