"""A representation on a downstream task: protocol, budget, sweep, scores."""
