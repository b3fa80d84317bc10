"""`spinemet doctor`: what would stop a job on this machine and these places, and what to do about it."""
