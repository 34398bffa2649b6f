"""What is measured and drawn about a policy's plans: forks, steering, the README's pictures."""
from minidiff import beyond
from minidiff.pusht import SHIPPED_POLICY
from minidiff.pusht.env import PushTEnv
from minidiff.pusht.features import PUSHT
from minidiff.pusht.geometry import GOAL_POSE
from minidiff.pusht.study import forks

import dataclasses
import re
from functools import partial

import numpy as np
import pytest
from benchmarks import gallery
from conftest import ROOT, is_png, mirror

STATES = forks.symmetric_states(6, np.random.default_rng(0))


def test_the_states_are_their_own_mirror_images():
    states = forks.symmetric_states(6, np.random.default_rng(0))
    reflected, _ = mirror(states, states[:, :2])
    away = reflected - states
    away[:, 4] %= 2 * np.pi
    np.testing.assert_allclose(away, 0, atol=1e-9)


def test_the_states_spread_along_the_axis_with_the_agent_at_either_end():
    agent, block, angle = np.split(forks.symmetric_states(500, np.random.default_rng(0)), [2, 4], 1)
    assert np.allclose(angle, 5 * np.pi / 4)  # upside down
    off = (block - GOAL_POSE[:2])[:, 0]
    assert off.min() == pytest.approx(-60 / np.sqrt(2), abs=1)
    assert off.max() == pytest.approx(60 / np.sqrt(2), abs=1)
    middle = block + 45 / np.sqrt(2) * np.array([1, -1])  # the block is upside down
    away = (agent - middle) @ forks.ALONG
    for gap in (away[away > 0], -away[away < 0]):
        assert len(gap) > 200 and (90 <= gap).all() and (gap <= 140).all() and np.ptp(gap) > 48


def test_off_the_axis_only_the_agent_moves_and_to_the_right():
    moved = forks.symmetric_states(6, np.random.default_rng(0), 5.0) - STATES
    np.testing.assert_allclose(moved[:, :2] @ forks.ACROSS, 5)
    np.testing.assert_allclose(moved[:, :2] @ forks.ALONG, 0, atol=1e-9)
    assert not moved[:, 2:].any()


def test_on_the_axis_the_demonstrator_goes_both_ways_equally():
    shown = forks.demonstrated(STATES[0], 16, np.random.default_rng(0))
    assert shown.shape == (16, forks.STEPS, 2)
    _, reflected = mirror(STATES[:1], shown[:8])
    np.testing.assert_allclose(shown[8:], reflected)


def test_off_the_axis_no_motion_is_the_mirror_image_of_another():
    state, = forks.symmetric_states(1, np.random.default_rng(0), 3.0)
    shown = forks.demonstrated(state, 4, np.random.default_rng(0))
    off = ((shown - state[:2]) @ forks.ACROSS).mean(1)
    assert len(off) == 4 and np.abs(off[:2] + off[2:]).min() > 1e-3


def test_a_motion_is_made_of_whole_plans(tiny_policy, monkeypatch):
    """Of 8 actions each, though the policy would carry out 2."""
    seen = []
    policy = tiny_policy(action_horizon=2)

    def plan(policy, obs, rng):
        seen.append(obs[0, -1])
        return np.linspace(STATES[0, :2], STATES[0, :2] + 40, 8)[None]

    monkeypatch.setattr(type(policy), "plan", plan)
    forks.motions(policy, STATES[0], 1, np.random.default_rng(0))
    env = PushTEnv(state_order="exact")
    env.reset(options={"state": STATES[0]})
    after = env.simulate(np.linspace(STATES[0, :2], STATES[0, :2] + 40, 8))[-1]
    np.testing.assert_allclose(seen[1], after)


@pytest.mark.parametrize("counts", [(3, 0, 3), (0, 6, 0), (1, 2, 3), (1, 0, 9), (1, 0, 10)])
def test_plans_are_counted_by_the_side_they_take(counts):
    """Straight plans that end 40 px to the left, on the axis or 40 px to the right: 20 px away on
    average."""
    direction = np.repeat([-1, 0, 1], counts)[:, None, None] * forks.ACROSS
    moves = np.linspace(0, 40, forks.STEPS)[:, None] * direction  # (6, STEPS, 2)

    def move(state, rng):
        return state[:2] + moves

    row = forks.measure(move, STATES, [move(state, None) for state in STATES])
    shares = row["left"], row["between"], row["right"]
    assert shares == pytest.approx(np.array(counts) / sum(counts))
    assert row["forks"] == (10 * min(counts[0], counts[2]) >= sum(counts))
    assert row["distance"] == pytest.approx(0, abs=1e-9) and row["difference"] == 0


def to_sides(counts):
    """move(state, rng): so many straight motions to the left and to the right."""
    direction = np.repeat([-1, 1], counts)[:, None, None] * forks.ACROSS
    moves = np.linspace(0, 40, forks.STEPS)[:, None] * direction
    return lambda state, rng=None: state[2:4] + moves


def test_both_ways_counts_where_the_demonstrator_goes_both_ways():
    """At the first state it goes right; there the policy, which goes right by 3 of 4, is off by a
    quarter; at the others it goes right by a half."""
    shown = [to_sides((0, 4))(STATES[0])] + [to_sides((2, 2))(state) for state in STATES[1:]]
    row = forks.measure(to_sides((1, 3)), STATES, shown)
    assert row["forks"] == 1 - 1 / len(STATES) and row["both"] == 1
    assert row["difference"] == pytest.approx(0.25)
    row = forks.measure(to_sides((0, 4)), STATES, shown)
    assert row["both"] == 0 and row["difference"] == pytest.approx(0.5 * (1 - 1 / len(STATES)))
    assert forks.sentence("a", row | {"difference": 0.104}) == (
        "a: left 0%, between 0%, right 100%; both ways at 0% of the forks; share to the right off "
        "by 10 points at a state; 0 px from the nearest demonstrated motion")


def test_without_a_fork_there_is_no_share_of_forks():
    shown = [to_sides((0, 4))(state) for state in STATES]
    assert np.isnan(forks.measure(to_sides((1, 3)), STATES, shown)["both"])


@pytest.mark.parametrize("px, expected", [(10.5, (0, 0, 1)), (9.5, (0, 1, 0)), (-9.5, (0, 1, 0)),
                                          (-10.5, (1, 0, 0))])
def test_sides_are_those_of_the_axis_wherever_the_agent_is(px, expected):
    state, = forks.symmetric_states(1, np.random.default_rng(0), off=15.0)
    plans = np.tile(state[2:4] + px * forks.ACROSS, (2, forks.STEPS, 1))
    assert forks.shares(plans, state) == expected


def test_the_plans_that_are_counted_are_the_same_each_time():
    def move(state, rng):
        return state[:2] + rng.normal(0, 30, (10, forks.STEPS, 2))

    shown = [move(state, np.random.default_rng(1)) for state in STATES]
    assert forks.measure(move, STATES, shown) == forks.measure(move, STATES, shown)


def test_the_distance_is_that_to_the_nearest_demonstrated_motion():
    still = np.zeros((1, forks.STEPS, 2))

    def move(state, rng):
        return state[:2] + np.concatenate([still, still + [1.5, 2], still - [3, 4]])

    shown = [state[:2] + np.concatenate([still + [30, 40], still + [3, 4]]) for state in STATES]
    assert forks.measure(move, STATES, shown)["distance"] == pytest.approx(5)


@dataclasses.dataclass
class Onward:
    """Goes on by 20 px from where the agent is: a policy of single actions."""
    obs_horizon: int = 2
    pred_horizon: int = 1
    action_horizon: int = 1

    def plan(self, obs, rng):
        assert obs.shape == (1, 2, 5)
        return obs[:, -1:, :2] + 20.0


def test_a_policy_of_single_actions_sees_where_they_led():
    moved, = forks.motions(Onward(), STATES[0], 1, None)
    assert moved.shape == (forks.STEPS, 2) and (np.diff(moved, axis=0) > 0.5).all()


def test_short_plans_are_carried_out_whole(tiny_policy):
    """Plans of 8 make motions of 16 in two decisions, even if the policy would act on 2 of them."""
    policy = tiny_policy()
    assert (policy.pred_horizon, policy.action_horizon) == (8, 2)
    moved = forks.motions(policy, STATES[0], 2, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    first = policy.plan(np.tile(STATES[0], (2, 2, 1)), rng)
    seen = []
    for actions in first:
        world = PushTEnv(state_order="exact")
        world.reset(options={"state": STATES[0]})
        seen.append(world.simulate(actions)[-2:])
    second = policy.plan(np.array(seen), rng)
    np.testing.assert_array_equal(moved, np.concatenate([first, second], 1))
    assert moved.shape == (2, forks.STEPS, 2)


@pytest.mark.slow
def test_the_command_prints_a_line_for_each_policy(capsys):
    forks.main([str(SHIPPED_POLICY), "--states", "1", "--plans", "4"])
    lines = capsys.readouterr().out.splitlines()
    assert lines.pop(0) == "100% of the states are forks: the demonstrator goes both ways"
    assert [line.partition(": left")[0] for line in lines] == ["the demonstrator again",
                                                               str(SHIPPED_POLICY)]


def test_what_is_measured_has_random_numbers_of_its_own():
    drawn = []

    def move(state, rng):
        drawn.append(rng.random())
        return to_sides((1, 3))(state, rng)

    forks.measure(move, STATES, [to_sides((1, 3))(state, None) for state in STATES])
    assert drawn[0] not in [np.random.default_rng(k).random() for k in range(100)]


def test_the_command_measures_samples_against_draws_of_their_own(monkeypatch):
    """Policies at temperature 1; a generator for each state, and as many plans of everyone."""
    rngs, measured = [], []
    monkeypatch.setattr(forks, "demonstrated",
                        lambda state, count, rng: rngs.append(rng.random()) or count)
    monkeypatch.setattr(forks, "measure", lambda *given: measured.append(given) or {"forks": 1})
    monkeypatch.setattr(forks, "sentence", lambda *given: "")
    forks.main([str(SHIPPED_POLICY), "--states", "3", "--plans", "7", "--off", "2"])
    assert rngs == [np.random.default_rng(k).random() for k in range(3)]
    (again, states, shown), (move, *same) = measured
    assert shown == [forks.SHOWN] * 3 and same == [states, shown]
    expected = forks.symmetric_states(3, np.random.default_rng(0), 2.0)
    np.testing.assert_array_equal(states, expected)
    assert again.keywords == move.keywords == {"count": 7}
    assert move.args[0].temperature == 1.0


def test_the_command_refuses_a_policy_before_the_work(capsys):
    with pytest.raises(ValueError, match="policy.npz is the same as .*policy.npz: give it only"):
        forks.main([str(SHIPPED_POLICY), str(SHIPPED_POLICY.parent)])
    with pytest.raises(FileNotFoundError, match="nowhere: no such checkpoint"):
        forks.main([str(SHIPPED_POLICY), "nowhere"])
    assert capsys.readouterr() == ("", "")


# ---- steering ------------------------------------------------------------------------------------

def test_a_plan_that_is_told_where_to_end_ends_there(tiny_policy):
    ending = gallery.to_end_at(tiny_policy(), STATES[0], (300.0, 200.0))
    plans = ending.plan(np.tile(STATES[0], (5, 2, 1)), np.random.default_rng(0))
    np.testing.assert_allclose(plans[:, -1], [[300, 200]] * 5, atol=1e-3)
    assert np.ptp(plans[:, 0], axis=0).max() > 1


def test_a_cost_moves_the_plans_of_the_shipped_policy_to_one_side():
    def share_to_the_right(policy):
        rng = np.random.default_rng(0)
        return forks.shares(gallery.plans(policy, gallery.STATE, 60, rng), gallery.STATE)[2]

    shipped, _ = beyond.load(SHIPPED_POLICY, PUSHT, temperature=1.0)
    assert share_to_the_right(shipped) < 0.6
    assert share_to_the_right(gallery.to_one_side(shipped)) > 0.8


def test_the_pictures_say_how_many_plans_lead_to_each_side():
    moved = to_sides((2, 3))(gallery.STATE)
    between = np.tile(gallery.STATE[2:4], (4, forks.STEPS, 1))
    said = gallery.sides(np.concatenate([moved, between]))
    assert said == "2 left of the T,\n3 right of the T, 4 between"


def test_the_picture_of_the_wall_counts_the_plans_that_hit_it():
    at_wall = np.array([-0.6, -0.51, -0.49, 0.0, 0.49, 0.51])  # it ends at -0.5 and 0.5
    x, y = np.outer(at_wall, [0, 0.8, 1.2, 0]), np.tile([-1, -0.1, 0.1, 1], (6, 1))
    assert gallery.passing(np.stack([x, y], -1)) == "2 pass left, 1 right, 3 hit it"


# ---- pictures ------------------------------------------------------------------------------------

def test_a_picture_that_cannot_be_made_is_named_and_the_others_are_drawn(monkeypatch, capsys,
                                                                         tmp_path):
    def refuse(path, policy):
        raise RuntimeError("pictures need pygame")

    for name in gallery.PICTURES:
        draw = refuse if name == "fork.png" else lambda path, policy: None
        monkeypatch.setitem(gallery.PICTURES, name, draw)
    gallery.main(["--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert f"no {tmp_path / 'fork.png'}: pictures need pygame" in said
    assert said.count("picture: ") == len(gallery.PICTURES) - 1


@pytest.mark.slow
def test_one_command_makes_every_picture_of_the_pages_again(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pygame")
    monkeypatch.setattr(gallery, "REGRESSION", dataclasses.replace(gallery.REGRESSION, steps=20))
    task = gallery.wall.TASK
    short = task._replace(recipe=task.recipe | {"steps": 20})
    monkeypatch.setattr(gallery.wall, "TASK", short)
    monkeypatch.setattr(gallery, "HERO_STEPS", 5)
    save = gallery.drawing.save_animation
    monkeypatch.setattr(gallery.drawing, "save_animation", lambda path, frames, fps: (
        save(path, frames[:2], fps[:2])))  # to encode all takes half a minute
    brief = partial(gallery.rests.rollout, make_env=partial(PushTEnv, max_steps=5))
    monkeypatch.setattr(gallery.rests, "rollout", brief)
    monkeypatch.setattr(gallery.rests, "rests", lambda *given: True)
    real = forks.demonstrated
    monkeypatch.setattr(forks, "demonstrated",
                        lambda state, count, rng: real(state, min(count, 2), rng))
    gallery.main(["--out", str(tmp_path)])
    pages = (ROOT / "README.md", ROOT / "minidiff/pusht/RESULTS.md")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    shown = set(re.findall(r"pictures/(\w+\.png)", text))
    drawn = {path.name for path in tmp_path.glob("*.png")}
    drawn |= {"ladder.png"}  # its figures take half an hour
    assert shown <= drawn == {path.name for path in gallery.FOLDER.glob("*.png")}
    assert all(map(is_png, tmp_path.glob("*.png")))
    said = capsys.readouterr().out
    assert (tmp_path / "hero.webp").exists() or "pip install 'minidiff[film]'" in said
