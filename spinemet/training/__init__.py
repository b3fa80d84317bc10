"""Labels, crops and the training loop; knows torch, not Ray."""
