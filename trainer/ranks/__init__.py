"""What ranks say to each other: sums over all of them, and one word that all follow."""
