"""A policy that plays in a world of its own, a step of its denoising chain at a time."""
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

REACH = (85.0, 427.0)  # where the T's centre of gravity may be put: it stays between the walls


class Witness:
    """An eps_theta that notes what it was asked and what it said: a list of (x_t, t, eps)."""

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
    """policy.denoise with what the network predicts: yields t, x_t and the predicted x_0.

    Both are actions (B, H, D). A sampler first asks for the noise of the x_t that it has yielded,
    so the predicted x_0 costs nothing; it is bounded as the samplers bound it. Where nothing was
    asked, as by a regression, only the end is yielded: t = 0, where x_0 is what it is.
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
    """A policy at work. candidates: plans sampled for each decision, of which the best, tried in
    the simulator, is carried out."""

    def __init__(self, policy, noise_seed, max_steps, seeding, candidates):
        self.policy = policy
        self.noise_seed, self.max_steps, self.seeding = noise_seed, max_steps, seeding
        self.candidates = candidates
        self.latency = 0  # steps
        self.scratch = PushTEnv()
        self.ended = "not begun"  # words; "" while an episode goes on
        self.forget()

    def forget(self):
        """What was measured so far belongs to other settings than those from now on."""
        self.decisions = []  # milliseconds
        self.solved, self.played = 0, 0  # episodes

    def start(self, seed):
        """Begin an episode."""
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
        self.shown = -1  # which of them is looked at
        self.spent = 0.0  # s
        self.chosen = 0 if self.candidates == 1 else None
        self.carried_out = 0  # actions of the chosen plan

    @property
    def plans(self):
        """Those of the end of the chain, (K, H, 2)."""
        return self.states[-1][1]

    @property
    def state(self):
        """t, x_t and predicted x_0 that are looked at; None before the first."""
        return self.states[self.shown] if self.states else None

    @property
    def denoises(self):
        """Whether its plans come out of noise; a baseline's chain has a single state."""
        return self.chain is not None or len(self.states) > 1

    def look(self, t):
        """Look at the state of the whole chain whose timestep is nearest to t."""
        self.decide()
        self.shown = int(np.abs([state[0] - t for state in self.states]).argmin())

    def progress(self):
        """The share of the chain that is done, from 0 to 1."""
        return 1 - self.states[-1][0] / self.policy.schedule.T if self.states else 0.0

    def denoise(self):
        """One step of the chain, or, at its end, the choice of a plan."""
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
        """All of the chain that is left."""
        while self.chain is not None:
            self.denoise()

    def step(self):
        """Carry out the next action of the plan; begin a new plan where it is time for one."""
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
        """Put the T's centre of gravity (complex, px) there, within REACH. Forget the past."""
        centre = complex(np.clip(centre.real, *REACH), np.clip(centre.imag, *REACH))
        corner = centre - np.exp(1j * angle) * complex(*CENTER_OF_GRAVITY)
        agent_x, agent_y, _, _, _, *velocity = self.world.motion
        motion = [agent_x, agent_y, corner.real, corner.imag, angle, *velocity]
        state, info = self.env.reset(options={"order": "exact", "state": motion})
        self.coverage = info["coverage"]
        self.seen = [state]
