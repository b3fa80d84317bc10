"""Finds and names the vertebrae of a volume and cuts their slices; README.md here has the evidence."""
