"""Processes: isolation of untrusted bytes, memory."""
