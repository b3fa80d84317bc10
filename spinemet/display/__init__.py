"""One study for a person: terminal, figure, JSON."""
