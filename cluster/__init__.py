"""Runs a function on the workers of a Ray cluster. The only folder that imports ray; it knows no recommender."""
