"""What is done to a store as a whole: filled, checked, divided, merged, repaired."""
