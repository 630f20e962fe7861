"""How good answers are, held against people's, without training anything."""
