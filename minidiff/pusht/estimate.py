"""A filter in front of a policy: it estimates the state in which the next action is carried out.

The policy is trained on exact states, and chooses actions for the state that it is shown. But
positions may be measured with noise, and actions may be carried out late. A model of the world
helps against both. An observer (Luenberger 1966) moves the model's state towards each measurement,
by a share of the difference. A Smith predictor (Smith 1957) simulates the actions that are chosen,
but not yet carried out.

The model is a PushTEnv, so it knows the physics of the world exactly. For a robot another model is
needed.
"""
import numpy as np

from .env import PushTEnv

DRIFT = 0.4  # px by which the model's block may go wrong in a step of the world
UNITS = np.array([1, 1, 1, 1, 1 / 60])  # px; the last in radians: it moves the bar's ends by 1 px
JUMP = 5.0  # a difference above so many standard deviations plus 1 px is a jump, not noise
AGENT, BLOCK = slice(0, 2), slice(2, 5)  # in a state


class EstimatingEnv:
    """A world whose observations are replaced by an estimate: the state when the next action is
    carried out.

    make_env: makes the world, a PushTEnv that observes the state. noise: the standard deviation of
    its measurements, px. If it is 0, the estimate is the measurement. A measurement that noise
    cannot explain, as after a kick, starts a new estimate.

    Measurement k moves the estimate by 1/k of the difference, so the estimate is the mean of all k.
    For the block this share is at least DRIFT / noise (at most 1), as the model of a pushed block
    drifts.
    """
    waiting = ()  # the estimate already contains the effect of the actions that wait

    def __init__(self, make_env, noise=0.0):
        self.env = make_env()
        self.model = PushTEnv()
        self.noise = noise

    def __getattr__(self, name):
        if name == "env":  # not set yet, as while a copy or a pickle is made
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(self, *, seed=None, options=None):
        state, info = self.env.reset(seed=seed, options=options)
        self.set_model([*state, *self.env.motion[5:]])  # at a start the agent's velocity is known
        self.counts = {"agent": 1, "block": 1}  # measurements of each, since it last jumped
        return self.motion[:5], info

    def step(self, action):
        carried_out = [*self.env.waiting, action][0]
        measured, *rest = self.env.step(action)
        self.model.simulate([carried_out])
        self.correct(measured)
        return self.motion[:5], *rest

    def set_model(self, motion):
        """Set the model's state. motion: a state (5,), or (7,) with the agent's velocity."""
        self.model.reset(options={"state": motion, "order": "exact"})

    def correct(self, measured):
        """Move the model's state towards a measurement (5,)."""
        motion = self.model.motion
        error = measured - motion[:5]
        error[4] = np.arctan2(np.sin(error[4]), np.cos(error[4]))
        jumped = np.abs(error) > (JUMP * self.noise + 1) * UNITS
        least = {"agent": 0 if self.noise else 1, "block": DRIFT / max(self.noise, DRIFT)}
        for name, part in (("agent", AGENT), ("block", BLOCK)):
            self.counts[name] = 1 if jumped[part].any() else self.counts[name] + 1
            motion[part] += max(1 / self.counts[name], least[name]) * error[part]
        self.set_model(motion)

    @property
    def motion(self):
        """The estimate of `PushTEnv.motion`, (7,), after the actions that wait."""
        now = self.model.motion
        if not len(self.env.waiting):
            return now
        self.model.simulate(self.env.waiting)
        then = self.model.motion
        self.set_model(now)
        return then
