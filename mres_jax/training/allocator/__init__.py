"""Training an allocator by rewards: allocations drawn, answers under them, what they earn, steps.

`loop` holds it together; `prompts` and `features` are what goes in, `draws` and `rollouts` what is
tried, `rewarding` what it is worth, `learner` and `backbone` what learns from it.
"""
