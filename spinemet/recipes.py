"""Named experiments: a recipe is a function that returns a whole training configuration."""
