"""Archives in, tables out; local disk and S3."""
