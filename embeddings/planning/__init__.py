"""Which ranks hold which part of which table, and what that costs."""
