"""The archive of studies: listing, grouping, objects."""
