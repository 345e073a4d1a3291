"""A NIR graph rebuilt as snnTorch modules."""
