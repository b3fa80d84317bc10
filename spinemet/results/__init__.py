"""The result tables: schemas, transactions, lease, maintenance."""
