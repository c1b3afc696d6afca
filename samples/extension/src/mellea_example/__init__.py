"""One extension of each kind for mellea-cli."""
