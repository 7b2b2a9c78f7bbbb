"""Why something waits, in one sentence, and what would release it.

`reading` gathers the evidence from the store; `tasks`, `novas` and `fleet` are pure and make one
`Explanation` of it. `explanation.REASONS` is the table of all reasons.
"""
