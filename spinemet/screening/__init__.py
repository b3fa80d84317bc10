"""Screening an archive: which studies a run reads, what rows they become, when a run stops and what is unusual."""
