"""PushT: the task. A round finger pushes a T-shaped block onto its goal; nothing in here knows how a policy is learned."""
