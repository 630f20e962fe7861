"""Networks over images: pseudo labels into a store, and predictions into files."""
