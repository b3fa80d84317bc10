"""Questions asked of the result tables."""
