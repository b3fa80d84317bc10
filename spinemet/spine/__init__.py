"""Volume to vertebrae to slice stacks."""
