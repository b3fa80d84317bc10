"""SpineMet: spinal metastases in archived CT, found, classified and counted vertebra by vertebra."""

__version__ = "0.1.0"
