"""Who runs what where on a Ray cluster; the only files that import ray."""
