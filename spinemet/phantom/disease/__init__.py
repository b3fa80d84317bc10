"""Changes of a vertebra's bone: metastases, and benign changes that look like them."""
