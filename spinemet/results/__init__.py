"""The result tables: schemas, reading and writing, lease, upkeep."""
