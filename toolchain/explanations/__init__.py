"""One page per error code, as ``snn-export explain CODE`` prints it: ``pages/SNX###.md``, read by ``lookup.py``."""
