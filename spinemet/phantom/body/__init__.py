"""The body of a phantom patient: its parameters, and how its bones and soft tissues are drawn."""
