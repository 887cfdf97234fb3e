"""Schedules are pure functions of (schedule seed, t), and say what is wrong with a text."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import Schedule, parse_changes, parse_schedule
from envs.stream import Stream

finite = st.floats(-1e6, 1e6, allow_nan=False)
positive = st.floats(1e-6, 1e6, allow_nan=False)
pairs = st.tuples(finite, finite).map(sorted)
positive_pairs = st.tuples(positive, positive).map(sorted)
values = st.lists(finite, min_size=1, max_size=6)

whens = st.one_of(
    st.integers(1, 10_000).map(lambda n: f"every:{n}"),
    st.floats(1, 5_000).map(lambda m: f"poisson:{m!r}"),
    st.lists(st.integers(1, 100_000), min_size=1, max_size=8, unique=True).map(
        lambda ts: "at:" + ",".join(str(t) for t in sorted(ts))
    ),
)
whats = st.one_of(
    pairs.map(lambda p: f"uniform:{p[0]!r},{p[1]!r}"),
    positive_pairs.map(lambda p: f"loguniform:{p[0]!r},{p[1]!r}"),
    values.map(lambda vs: "cycle:" + ",".join(repr(v) for v in vs)),
    values.map(lambda vs: "list:" + ",".join(repr(v) for v in vs)),
    st.sampled_from(["permutation", "sign", "mask:2", "gaussian_vector:2.0"]),
)
SIZE = 5  # of the vectors
texts = st.builds(
    lambda when, to, first: f"{when}|{to}{first}", whens, whats, st.sampled_from(["", "|draw", "|nominal"])
)
seeds = st.integers(0, 2**32)
times = st.lists(st.integers(0, 100_000), min_size=1, max_size=12)


def read(schedule: Schedule, t: int) -> tuple[int, float | list[float] | None]:
    assert schedule.at(t) is None or np.array_equal(schedule.at(t), schedule.value(schedule.regime(t)))
    return schedule.regime(t), np.asarray(schedule.at(t)).tolist()


def regimes(text: str, seed: int = 0, name: str = "") -> Schedule:
    schedule = parse_schedule(text, seed=seed, name=name)
    assert isinstance(schedule, Schedule)
    return replace(schedule, size=SIZE)


@settings(max_examples=150, deadline=None)
@given(texts, seeds, times)
def test_the_same_forwards_backwards_and_from_a_fresh_copy(text: str, seed: int, ts: list[int]) -> None:
    forwards = regimes(text, seed, "a")
    backwards = regimes(text, seed, "a")
    ahead = {t: read(forwards, t) for t in sorted(ts)}
    behind = {t: read(backwards, t) for t in sorted(ts, reverse=True)}
    fresh = {t: read(regimes(text, seed, "a"), t) for t in ts}
    assert ahead == behind == fresh


@settings(max_examples=150, deadline=None)
@given(texts, seeds, st.integers(0, 100_000))
def test_regimes_grow_one_by_one_and_start_when_they_say(text: str, seed: int, t: int) -> None:
    schedule = regimes(text, seed)
    k = schedule.regime(t)
    start, after = schedule.start(k), schedule.start(k + 1)
    assert schedule.span(t) == (start, math.inf if after is None else after)
    assert schedule.regime(0) == 0 == schedule.start(0)
    assert start is not None
    assert start <= t < (math.inf if after is None else after)
    assert schedule.regime(start) == k
    assert start == 0 or schedule.regime(start - 1) == k - 1
    if after is not None:
        assert schedule.regime(after) == k + 1
        assert schedule.regime(after - 1) == k


@settings(max_examples=150, deadline=None)
@given(texts, seeds, st.integers(0, 10**9))
def test_values_respect_their_bounds(text: str, seed: int, regime: int) -> None:
    schedule = regimes(text, seed)
    low, high = schedule.bounds()
    value = schedule.value(regime)
    assert (value is None) == (regime == 0 and schedule.first == "nominal")
    assert value is None or low <= np.min(value) <= np.max(value) <= high


@settings(max_examples=150, deadline=None)
@given(texts, seeds)
def test_short_form_and_dict_round_trip_through_json(text: str, seed: int) -> None:
    schedule = parse_schedule(text, seed=seed)
    assert parse_schedule(json.loads(json.dumps(str(schedule))), seed=seed) == schedule
    assert parse_schedule(json.loads(json.dumps(schedule.to_dict())), seed=seed) == schedule


@settings(max_examples=100, deadline=None)
@given(texts, st.sampled_from(["soon", "nan", "-inf", "1.5.2", "evry"]), st.data())
def test_one_wrong_token_is_named_by_the_error(text: str, wrong: str, data: st.DataObject) -> None:
    parts = re.split(r"([:,|])", text)  # words and numbers at the even places
    place = 2 * data.draw(st.integers(0, len(parts) // 2))
    parts[place] = wrong
    with pytest.raises(ValueError, match=re.escape(wrong)):
        parse_schedule("".join(parts))


def number(schedule: Schedule, regime: int) -> float:
    value = schedule.value(regime)
    assert isinstance(value, float)
    return value


def test_values_are_those_of_the_distribution() -> None:
    schedule = regimes("every:1|loguniform:0.02,2.0|draw", 3)
    logs = [math.log(number(schedule, k)) for k in range(4000)]
    low, high = math.log(0.02), math.log(2.0)
    mean, deviation = (low + high) / 2, (high - low) / math.sqrt(12)
    assert abs(sum(logs) / 4000 - mean) < 4 * deviation / math.sqrt(4000)
    assert len(set(logs)) == 4000


@pytest.mark.parametrize("mean", [1, 2, 50.5])
def test_poisson_gaps_have_the_mean_asked_for(mean: float) -> None:
    schedule = regimes(f"poisson:{mean}|cycle:1,2", 5)
    last = schedule.start(4000)
    assert last is not None
    deviation = math.sqrt(mean * mean - mean)  # of a geometric gap
    assert abs(last / 4000 - mean) <= 4 * deviation / math.sqrt(4000)


def test_seeds_and_targets_have_streams_of_their_own() -> None:
    text = "poisson:100|uniform:0,1|draw"
    drawn = {
        (seed, name): (
            regimes(text, seed, name).value(4),
            regimes(text, seed, name).start(4),
        )
        for seed in (0, 1)
        for name in ("gravity", "mass")
    }
    assert len({value for value, _ in drawn.values()}) == 4
    assert len({start for _, start in drawn.values()}) == 4
    # Adding a second target leaves the first one's world as it was.
    one = parse_changes({"target": "mass", "when": "every:5", "to": "uniform:0,1"}, schedule_seed=1)[0]
    both = parse_changes(["gravity=every:5|uniform:0,1", "mass=every:5|uniform:0,1"], schedule_seed=1)[1]
    assert one == both
    assert one.schedule.at(5) == both.schedule.at(5)


def test_cycle_repeats_and_list_stays_at_its_last() -> None:
    cycle, once = regimes("every:10|cycle:1,2,3|draw"), regimes("every:10|list:1,2,3")
    assert [cycle.at(t) for t in (0, 9, 10, 20, 30, 45)] == [1, 1, 2, 3, 1, 2]
    assert [once.at(t) for t in (0, 9, 10, 20, 30, 40, 10**9)] == [None, None, 1, 2, 3, 3, 3]
    assert once.regime(10**9) == 3
    assert once.start(4) is None


def test_steps_may_be_written_as_people_write_them() -> None:
    assert parse_schedule("every:5e4|cycle:1") == parse_schedule("every:50_000|cycle:1.0")
    assert parse_schedule("every: 50000 | cycle: 1") == parse_schedule({"when": "every:5.0e4", "to": "cycle:1e0"})


def test_a_recorded_table(tmp_path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("step,value\n0,0.5\n100,2\n250,0.1\n")
    schedule = parse_schedule(f"table:{path}")
    assert [schedule.at(t) for t in (0, 99, 100, 249, 250, 10**6)] == [0.5, 0.5, 2, 2, 0.1, 0.1]
    assert [schedule.regime(t) for t in (0, 100, 250)] == [0, 1, 2]
    assert parse_schedule(str(schedule)) == schedule == parse_schedule(schedule.to_dict())
    path.write_text("step,value\n0,0.5\n100,2\n250,0.1\n", encoding="utf-8-sig")  # as spreadsheets write it
    assert parse_schedule(f"table:{path}") == schedule
    path.write_text("100,2\n250,0.1\n")  # no row for t = 0: the first regime is nominal
    schedule = parse_schedule({"when": f"table:{path}"})
    assert [schedule.at(t) for t in (0, 99, 100, 250)] == [None, None, 2, 0.1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("evry:5|cycle:1", """unknown 'when' "evry": allowed are every, poisson, at, table, linear,"""),
        ("evry:5|cycle:1", """did you mean "every"?"""),
        ({"when": "evry:5"}, """unknown 'when' "evry": allowed are every, poisson, at, table; did you mean "every"?"""),
        (
            "every:5|loguni:1,2",
            """unknown 'to' "loguni": allowed are loguniform, uniform, cycle, list, permutation, gaussian_vector, """
            """sign, mask; did you mean "loguniform"?""",
        ),
        ("every:5|cycle:1|drawn", """unknown 'first' "drawn": allowed are nominal, draw; did you mean "draw"?"""),
        (
            "every:nan|cycle:1",
            "every must be a whole number >= 1 (environment steps; 5e4 and 50_000 are fine), got 'nan'",
        ),
        ("every:inf|cycle:1", "got 'inf'"),
        ("every:0|cycle:1", "got '0'"),
        ("every:-3|cycle:1", "got '-3'"),
        ("every:2.5|cycle:1", "got '2.5'"),
        ("every:soon|cycle:1", "got 'soon'"),
        ("every:|cycle:1", 'when: every needs its numbers after a colon, such as "every:2e6"'),
        ("every|cycle:1", "when: every needs its numbers after a colon"),
        ("poisson:0.5|cycle:1", "must be >= 1 environment step, got '0.5'"),
        ("poisson:nan|cycle:1", "must be a finite number, got 'nan'"),
        ("at:2,5,5,9|cycle:1", "the times in when: at must increase, and 5 follows 5, got '2,5,5,9'"),
        ("at:0,5|cycle:1", "a time in when: at must be a whole number >= 1"),
        ("at:5,,6|cycle:1", "when: at has an empty item"),
        ("every:5|cycle:1,nan", "a value in to: cycle must be a finite number, got 'nan'"),
        ("every:5|list:", "to: list needs its numbers after a colon"),
        ("every:5|list:1,", "to: list has an empty item"),
        ("every:5|uniform:1", "to: uniform takes low,high with low <= high, got '1'"),
        ("every:5|uniform:2,1", "to: uniform takes low,high with low <= high, got '2,1'"),
        ("every:5|loguniform:0,1", "to: loguniform needs low > 0, got '0,1'"),
        (
            "every:5",
            'a schedule needs "to" (loguniform, uniform, cycle, list, permutation, gaussian_vector, sign, mask)',
        ),
        ("every:5|cycle:1|draw|x", "a schedule is when|to or when|to|first"),
        ("table:/nowhere.csv", "when: table cannot read '/nowhere.csv': No such file"),
        ("table:/nowhere.csv|cycle:1", 'leave out "to" and "first"'),
        (
            {"when": "every:5", "too": "cycle:1"},
            'unknown key in a schedule "too": allowed are when, to, first, drift, resolution; did you mean "to"?',
        ),
        ({"to": "cycle:1"}, 'a schedule needs "when" (every, poisson, at, table)'),
        ({"when": 5, "to": "cycle:1"}, "unknown 'when' 5: allowed are"),
        (5, "a schedule is text"),
        ("every:5|permutation:3", "to: permutation takes no numbers, got 'permutation:3'"),
        ("every:5|sign:1", "to: sign takes no numbers"),
        (
            "every:5|gaussian_vector",
            'to: gaussian_vector needs its numbers after a colon, such as "gaussian_vector:2.0"',
        ),
        ("every:5|gaussian_vector:0", "the standard deviation in to: gaussian_vector must be > 0, got '0'"),
        ("every:5|mask:0.5", "the number in to: mask must be a whole number >= 1"),
    ],
)
def test_errors_teach(text: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_schedule(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "has no rows"),
        ("0,1,2\n", "has the row '0,1,2'"),
        ("2,1\n5,1\n4,2\n", "must increase, and 4 follows 5"),
        ("0,nan\n", "must be a finite number, got 'nan'"),
        ("-1,2\n", "must be a whole number >= 0"),
    ],
)
def test_a_broken_table_is_refused(tmp_path, rows: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(rows)
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_schedule(f"table:{tmp_path / 't.csv'}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], "changes must name at least one change"),
        ("every:5|cycle:1", 'a change is a dict or "target=when|to"'),
        ({"when": "every:5", "to": "cycle:1"}, 'a change needs "target"'),
        ({"tagret": "mass", "when": "every:5", "to": "cycle:1"}, 'did you mean "target"?'),
        ({"target": "mass", "when": "every:5", "to": "cycle:1", "boundary": "stpe"}, 'did you mean "step"?'),
        (["mass=every:5|cycle:1", "mass=every:6|cycle:1"], 'the target "mass" more than once'),
        (7, "a change is a dict or text, got 7"),
        (
            {"target": "mass", "drift": "sine:9,0,1", "boundary": "truncate"},
            "mass drifts, which ends no episode: boundary is step or episode, got truncate",
        ),
        ("mass=every:5|cycle:1|draw|x", "a change is target=when|to or target=when|to|first"),
    ],
)
def test_errors_in_changes_teach(changes: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_changes(changes)


@pytest.mark.parametrize("seed", [-1, 1.5, "7", None, True])
def test_a_schedule_seed_is_a_whole_number(seed: object) -> None:
    with pytest.raises(ValueError, match="schedule_seed must be an integer >= 0"):
        parse_changes("mass=every:5|cycle:1", schedule_seed=seed)  # type: ignore[arg-type]


def test_a_stream_remembers_what_was_asked_for_last_and_nothing_else():
    stream, other = Stream(0, "friction"), Stream(0, "friction")
    four = stream.uniform(0, 3, 4)
    assert len(four) == 4
    assert stream.uniform(0, 3, 2) == four[:2]
    assert stream.uniform(0, 3, 4) == four
    given = stream.uniform(0, 3, 4)
    given[0] = 7.0
    assert stream.uniform(0, 3, 4) == four
    assert stream.uniform(1, 3, 4) == other.uniform(1, 3, 4) != four
    assert stream.uniform(0, 4, 4) == other.uniform(0, 4, 4) != four


def test_a_stream_that_was_pickled_by_an_earlier_version_draws_on():
    stream = Stream(0, "friction")
    assert not {"_asked", "_numbers"} & vars(stream).keys()  # as pickles of old have none
    earlier = Stream.__new__(Stream)
    vars(earlier).update(vars(stream))
    assert earlier.uniform(0, 3, 4) == stream.uniform(0, 3, 4)
