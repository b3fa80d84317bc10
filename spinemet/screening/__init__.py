"""Which studies are new, and what rows a study becomes."""
