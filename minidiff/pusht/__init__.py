"""PushT: a task, to push a T onto its goal, with demonstrations and a policy trained on them."""
from pathlib import Path

EXPERT_DEMOS = Path(__file__).with_name("expert.npz")
SHIPPED_POLICY = Path(__file__).with_name("policy.npz")
