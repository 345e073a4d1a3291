"""sinabs as a backend: its neurons in an environment of their own."""
