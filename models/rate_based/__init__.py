"""Rate-based backpropagation: a spike pass without gradients, and one pass over firing rates with them."""
