"""The commands of `spinemet` that ask the result tables and maintain them, by subject."""
