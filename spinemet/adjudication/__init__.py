"""Readers check a sample of the calls: the sample, the page on which they answer, and what their answers say."""
