"""The one optimisation loop, and the verbs that train by it."""
