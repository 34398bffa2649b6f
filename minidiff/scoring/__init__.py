"""How good a policy is: episodes of any task, many at once, and their scores with intervals."""
