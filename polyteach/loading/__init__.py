"""Loading: stores and their label sets -> one random view per image -> batches of targets.

`plan` says which images are seen and which label sets answer, `sampler` in which order, `reader` decodes them, `views`
varies them, and `transport` brings batches from worker processes to the one that trains.
"""
