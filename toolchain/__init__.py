"""snn-export."""
