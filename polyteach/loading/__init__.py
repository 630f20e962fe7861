"""From stores to batches: which images and label sets, in which order, seen how, read by whom."""
