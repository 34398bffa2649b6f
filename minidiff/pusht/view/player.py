"""A policy that plays an episode in its own world, one step of the denoising chain at a time."""
import dataclasses
import time

import numpy as np

from ...demos import frame_of
from ...diffusion import x0_from_eps
from ...policy import history
from ..env import PushTEnv
from ..estimate import EstimatingEnv
from ..geometry import CENTER_OF_GRAVITY
from ..study.candidates import best
from ..study.disturbances import DisturbedEnv

REACH = (85.0, 427.0)  # px, for x and y of the T's centre of gravity: so the T is between the walls


class Witness:
    """An eps_theta that records its calls: a list of (x_t, t, eps)."""

    def __init__(self, eps_theta):
        self.eps_theta = eps_theta
        self.calls = []

    def __call__(self, x_t, t, cond):
        eps = self.eps_theta(x_t, t, cond)
        self.calls.append((x_t, t, eps))
        return eps

    def with_variance(self, x_t, t, cond):
        eps, v = self.eps_theta.with_variance(x_t, t, cond)
        self.calls.append((x_t, t, eps))
        return eps, v

    def __getattr__(self, name):
        return getattr(self.eps_theta, name)


def denoising(policy, obs, rng):
    """As policy.denoise, with what the network predicts: yields t, x_t and the predicted x_0.

    x_t and x_0 are actions (B, H, D). A sampler first calls eps_theta with the x_t that it has just
    yielded, so the predicted x_0 costs no further call; it is clipped as the samplers clip it. At
    the end t is 0 and both are the plans. A sampler that never calls eps_theta, as a regression,
    yields this end alone.
    """
    frame = frame_of(policy.task, obs)
    witness = Witness(policy.eps_theta)
    chain = dataclasses.replace(policy, eps_theta=witness).denoise(obs, rng)
    plans = next(chain)
    for following in chain:
        if witness.calls:
            x_t, t, eps = witness.calls[0]
            x0 = x0_from_eps(policy.schedule, x_t, t, eps).clip(-policy.clip, policy.clip)
            yield int(t), plans, policy.normaliser.denormalise(x0, frame)
        witness.calls.clear()
        plans = following
    yield 0, plans, plans


class Player:
    """A policy, its world and the state of its denoising chain.

    candidates: plans sampled for each decision, of which the best, tried in the simulator, is
    carried out. With action latency the policy sees the state that its next action will meet (see
    EstimatingEnv).
    """

    def __init__(self, policy, noise_seed, max_steps, seeding, candidates):
        self.policy = policy
        self.noise_seed, self.max_steps, self.seeding = noise_seed, max_steps, seeding
        self.candidates = candidates
        self.latency = 0  # steps of the world
        self.scratch = PushTEnv()
        self.ended = "not begun"  # words; "" while an episode goes on
        self.forget()

    def forget(self):
        """Forget the measurements so far, as after a change of the settings."""
        self.decisions = []  # milliseconds
        self.solved, self.played = 0, 0  # episodes

    def start(self, seed):
        """Begin an episode from the start of a seed."""
        self.rng = np.random.default_rng([self.noise_seed, seed])
        self.world = DisturbedEnv(seeding=self.seeding, action_latency=self.latency)
        self.env = EstimatingEnv(lambda: self.world)  # what the policy sees of it
        state, info = self.env.reset(seed=seed)
        self.coverage = info["coverage"]
        self.steps = 0
        self.seen, self.trail = [state], [self.world.state[:2]]
        self.ended = ""
        self.replan()

    def replan(self):
        """Begin to denoise plans (K, H, 2) for the last observations."""
        policy = self.policy
        obs = np.repeat(history(self.seen, policy.obs_horizon)[None], self.candidates, 0)
        self.chain = denoising(policy, obs, self.rng)  # None once a plan is chosen
        self.states = []  # t, x_t, predicted x_0; from T down to 0
        self.shown = -1  # index of the state that is shown
        self.spent = 0.0  # s
        self.chosen = 0 if self.candidates == 1 else None
        self.carried_out = 0  # actions of the chosen plan

    @property
    def plans(self):
        """The plans that the chain has come to, (K, H, 2)."""
        return self.states[-1][1]

    @property
    def state(self):
        """t, x_t and predicted x_0 that are shown; None before the first."""
        return self.states[self.shown] if self.states else None

    @property
    def denoises(self):
        """Whether its sampler denoises; the chain of a baseline has a single state."""
        return self.chain is not None or len(self.states) > 1

    def look(self, t):
        """Complete the chain, and show its state whose timestep is nearest to t."""
        self.decide()
        self.shown = int(np.abs([state[0] - t for state in self.states]).argmin())

    def progress(self):
        """The share of the chain that is done, from 0 to 1."""
        return 1 - self.states[-1][0] / self.policy.schedule.T if self.states else 0.0

    def denoise(self):
        """Take one step of the chain or, at its end, choose a plan."""
        began = time.perf_counter()
        state = next(self.chain, None)
        if state is not None:
            self.states.append(state)
        else:
            self.chain = None
            if len(self.plans) > 1:
                plan, _ = best(self.env, self.scratch, self.plans)
                self.chosen = int((self.plans == plan).all((1, 2)).argmax())
        self.spent += time.perf_counter() - began
        if self.chain is None:
            self.decisions.append(1000 * self.spent)

    def decide(self):
        """Take all steps that are left of the chain, and choose a plan."""
        while self.chain is not None:
            self.denoise()

    def step(self):
        """One step of the world: the next action of the plan. Then begin a new plan, if due."""
        self.decide()
        action = self.plans[self.chosen][self.carried_out]
        state, _, solved, _, info = self.env.step(action)
        self.coverage = info["coverage"]
        self.steps += 1
        self.carried_out += 1
        self.shown = -1
        self.seen.append(state)
        self.trail.append(self.world.state[:2])
        if solved:
            self.ended = f"solved after {self.steps} steps"
        elif self.steps >= self.max_steps:
            self.ended = "out of steps"
        if self.ended:
            self.solved += solved
            self.played += 1
        elif self.carried_out == self.policy.action_horizon:
            self.replan()

    def move(self, centre, angle):
        """Move the T: its centre of gravity to `centre` (complex, px; within REACH), its angle to
        `angle`. The history that the policy sees begins anew."""
        centre = complex(np.clip(centre.real, *REACH), np.clip(centre.imag, *REACH))
        corner = centre - np.exp(1j * angle) * complex(*CENTER_OF_GRAVITY)
        agent_x, agent_y, _, _, _, *velocity = self.world.motion
        motion = [agent_x, agent_y, corner.real, corner.imag, angle, *velocity]
        state, info = self.env.reset(options={"order": "exact", "state": motion})
        self.coverage = info["coverage"]
        self.seen = [state]
